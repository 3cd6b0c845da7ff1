package loki

import (
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/hindsight-events/hindsight/internal/lazyregexp"
)

// rejection is Loki's message about the entries of a push that it rejected while it stored the
// others. It has one of two forms.
type rejection struct {
	// The distributor lists all rejected entries, grouped by message, in any order:
	// "2 errors like: entry for stream '{…}' has timestamp too old: …; …".
	groups             []group
	metadataDisallowed int // entries rejected because they have structured metadata

	// The ingester names at most ten entries, in their order, with their exact time:
	// "entry with timestamp … ignored, reason: '…',\n…total ignored: 3 out of 9".
	named       []ingesterRejection
	total       int // rejected entries
	outOf       int // entries that the ingester received
	rateLimited bool
}

// group is a number of entries that were rejected with the same message.
type group struct {
	count  int
	reason string

	// One of these identifies the entries.
	oldest   time.Time // they are the oldest of this second
	newest   time.Time // they are the newest of this second
	line     int       // the length of their lines
	metadata int       // the size of their metadata
	pairs    int       // the number of pairs of their metadata
}

// ingesterRejection is an entry that the ingester rejected.
type ingesterRejection struct {
	time        time.Time
	reason      string
	cutoff      time.Time // entries before it are rejected; zero for other reasons
	rateLimited bool
}

var (
	quoted = lazyregexp.New(`"(?:[^"\\]|\\.)*"`)

	groupCount         = lazyregexp.New(`(?i)^(\d{1,9}) errors like: `)
	tooOld             = lazyregexp.New(`(?i)^entry for stream '\{.*\}' has timestamp too old: (\S+), oldest acceptable timestamp is: \S+$`)
	tooNew             = lazyregexp.New(`(?i)^entry for stream '\{.*\}' has timestamp too new: (\S+)$`)
	lineTooLong        = lazyregexp.New(`(?i)^max entry size '\d+' bytes exceeded for stream '\{.*\}' while adding an entry with length '(\d{1,9})' bytes$`)
	metadataTooLarge   = lazyregexp.New(`(?i)^stream '\{.*\}' has structured metadata too large: '(\d{1,9})' bytes, limit: '\d+' bytes`)
	tooMuchMetadata    = lazyregexp.New(`(?i)^stream '\{.*\}' has too many structured metadata labels: '(\d{1,9})', limit: '\d+'`)
	metadataDisallowed = lazyregexp.New(`(?i)^stream '\{.*\}' includes structured metadata, but this feature is disallowed`)
	ignored            = lazyregexp.New(`(?i)^entry with timestamp (.+) ignored, reason: '(.+?)'(?: for stream: \{.*\})?,$`)
	ignoredTotal       = lazyregexp.New(`(?i)^(?:user '.*', )?total ignored: (\d{1,9}) out of (\d{1,9})(?: for stream: \{.*\})?$`)
	oldestAcceptable   = lazyregexp.New(`(?i)oldest acceptable timestamp is: (\S+)$`)

	labelsRejected = lazyregexp.New(`(?i)^(?:\d+ errors like: )?(?:` +
		`entry for stream '.*' has \d+ label names; limit` +
		`|stream '.*' has (?:label name too long|label value too long|duplicate label name)` +
		`|missing required labels ` +
		`|error at least one label pair is required` +
		`|error parsing labels ` +
		`|couldn't parse labels)`)
)

// blankQuoted empties double-quoted strings: label values, which may look like a message of Loki.
func blankQuoted(body string) string {
	return quoted().ReplaceAllLiteralString(strings.TrimSpace(body), `""`)
}

// parseRejection parses a body after blankQuoted. It returns false unless it understands all of it.
func parseRejection(body string) (rejection, bool) {
	if strings.HasPrefix(strings.ToLower(body), "entry with timestamp ") {
		return parseIngester(body)
	}
	return parseDistributor(body)
}

// parseDistributor parses messages of validator.go (ValidateEntry), joined by GroupedErrors:
// https://github.com/grafana/loki/blob/v3.7.8/pkg/distributor/validator.go
// https://github.com/grafana/loki/blob/v3.7.8/pkg/util/errors.go
func parseDistributor(body string) (r rejection, ok bool) {
	for message := range strings.SplitSeq(body, "; ") {
		g := group{count: 1}
		if m := groupCount().FindStringSubmatch(message); m != nil {
			g.count, _ = strconv.Atoi(m[1])
			message = message[len(m[0]):]
		}
		g.reason = message
		if g.count < 1 {
			return rejection{}, false
		}
		if metadataDisallowed().MatchString(message) {
			r.metadataDisallowed += g.count
			continue
		}
		if !g.parseReason() {
			return rejection{}, false
		}
		r.groups = append(r.groups, g)
	}
	return r, true
}

// parseReason sets the field that identifies the entries of the group.
func (g *group) parseReason() bool {
	for _, f := range []struct {
		pattern *regexp.Regexp
		to      *int
	}{{lineTooLong(), &g.line}, {metadataTooLarge(), &g.metadata}, {tooMuchMetadata(), &g.pairs}} {
		if m := f.pattern.FindStringSubmatch(g.reason); m != nil {
			*f.to, _ = strconv.Atoi(m[1])
			return *f.to > 0
		}
	}
	for _, f := range []struct {
		pattern *regexp.Regexp
		to      *time.Time
	}{{tooOld(), &g.oldest}, {tooNew(), &g.newest}} {
		if m := f.pattern.FindStringSubmatch(g.reason); m != nil {
			at, err := time.Parse(time.RFC3339, m[1])
			*f.to = at
			return err == nil
		}
	}
	return false
}

// parseIngester parses messages of stream.go (errorForFailedEntries):
// https://github.com/grafana/loki/blob/v3.7.8/pkg/ingester/stream.go
func parseIngester(body string) (r rejection, ok bool) {
	lines := strings.Split(body, "\n")
	for _, line := range lines[:len(lines)-1] {
		m := ignored().FindStringSubmatch(strings.TrimSuffix(line, "\r"))
		if m == nil {
			return rejection{}, false
		}
		at, err := time.Parse("2006-01-02 15:04:05.999999999 -0700 MST", m[1])
		if err != nil {
			return rejection{}, false
		}
		n := ingesterRejection{time: at, reason: m[2]}
		if c := oldestAcceptable().FindStringSubmatch(m[2]); c != nil {
			n.cutoff, _ = time.Parse(time.RFC3339, c[1])
		}
		n.rateLimited = strings.HasPrefix(strings.ToLower(m[2]), "per stream rate limit exceeded")
		r.rateLimited = r.rateLimited || n.rateLimited
		r.named = append(r.named, n)
	}
	m := ignoredTotal().FindStringSubmatch(lines[len(lines)-1])
	if m == nil || len(r.named) == 0 {
		return rejection{}, false
	}
	r.total, _ = strconv.Atoi(m[1])
	r.outOf, _ = strconv.Atoi(m[2])
	return r, len(r.named) <= r.total && r.total <= r.outOf
}
