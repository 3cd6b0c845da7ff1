package audit

import (
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/hindsight-events/hindsight/internal/lazyregexp"
)

// gap is a declared gap: a range of versions in which states may be missing.
type gap struct {
	namespace string // empty: all
	from, to  uint64 // from excluded, to included; 0: unknown
	end       time.Time
	cause     string
	open      bool // it had not ended when the gap record was written
}

// gapVersions finds the versions in the message of a gap record: a line of the format text has
// nothing else.
var gapVersions = lazyregexp.New(`between (?:\S+ \(version (\d+)\)|version (\d+)|.+?) and (?:\S+ \(version (\d+)\)|version (\d+)|[^:]+)`)

// parseGap parses the Event of a gap record, which is stored under the time at.
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
	annotations := e.Annotations
	versions := gapVersions().FindStringSubmatch(e.Message)
	if versions == nil {
		versions = make([]string, 5)
	}
	g.from = number(annotations["hindsight/from_version"], versions[1], versions[2])
	g.to = number(annotations["hindsight/to_version"], versions[3], versions[4])
	g.cause = annotations["hindsight/cause"]
	g.end = at
	g.open = g.to == 0 && (g.cause == "stalled" || strings.Contains(e.Message, "watches deliver nothing"))
	return g
}

// endedBy reports whether another record declares the end of the gap.
func (g gap) endedBy(o gap) bool { return !o.open && o.from == g.from && o.namespace == g.namespace }

// contains reports whether a state is inside the gap.
func (g gap) contains(s *state) bool {
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
	end := "the one of " + timestamp(g.end)
	if g.open {
		end = "now"
	}
	text := "versions " + bound(g.from, "0") + " to " + bound(g.to, end)
	if g.cause != "" {
		text += ", " + g.cause
	}
	return text
}
