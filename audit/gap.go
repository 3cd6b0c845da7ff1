package audit

import (
	"regexp"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// gap is a stretch of versions in which, Hindsight says, states may be missing.
type gap struct {
	namespace string // empty: all
	from, to  uint64 // from is not in it, to is; 0: not known
	end       time.Time
	cause     string
	open      bool // it had not ended when the record was written
}

// gapVersions finds the versions in the words of a gap: a line of the format text has
// nothing else.
var gapVersions = regexp.MustCompile(`between (?:\S+ \(version (\d+)\)|version (\d+)|.+?) and (?:\S+ \(version (\d+)\)|version (\d+)|[^:]+)`)

// parseGap returns what the Event of a gap says, which is stored under the time
// at.
func parseGap(e *corev1.Event, at time.Time) (g gap) {
	if name := e.InvolvedObject.Name; name != "*" {
		g.namespace = name
	}
	number := func(texts ...string) uint64 {
		for _, text := range texts {
			if n, err := strconv.ParseUint(text, 10, 64); err == nil {
				return n
			}
		}
		return 0
	}
	said := e.Annotations
	words := gapVersions.FindStringSubmatch(e.Message)
	if words == nil {
		words = make([]string, 5)
	}
	g.from = number(said["hindsight/from_version"], words[1], words[2])
	g.to = number(said["hindsight/to_version"], words[3], words[4])
	g.cause = said["hindsight/cause"]
	g.end = at
	g.open = g.to == 0 && (g.cause == "stalled" || strings.Contains(e.Message, "watches deliver nothing"))
	return g
}

// endedBy reports whether another record says where the gap ends.
func (g gap) endedBy(o gap) bool { return !o.open && o.from == g.from && o.namespace == g.namespace }

// holds reports whether a state lies in the gap.
func (g gap) holds(s *state) bool {
	version, err := strconv.ParseUint(s.version, 10, 64)
	switch {
	case err != nil, g.namespace != "" && g.namespace != s.namespace, version <= g.from:
		return false
	case g.to != 0:
		return version <= g.to
	case g.open:
		return true
	}
	return !s.at.After(g.end)
}

func (g gap) String() string {
	bound := func(version uint64, unknown string) string {
		if version == 0 {
			return unknown
		}
		return strconv.FormatUint(version, 10)
	}
	end := "that of " + timestamp(g.end)
	if g.open {
		end = "now"
	}
	text := "versions " + bound(g.from, "0") + " to " + bound(g.to, end)
	if g.cause != "" {
		text += ", " + g.cause
	}
	return text
}
