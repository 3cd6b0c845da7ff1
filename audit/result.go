package audit

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Kind of a finding.
type Kind string

const (
	Missing   Kind = "missing"   // not stored, without a reason
	Explained Kind = "explained" // not stored, for a known reason
	Repeated  Kind = "repeated"  // stored more than once, visibly to readers
	Mistimed  Kind = "mistimed"  // stored under a wrong time
	Altered   Kind = "altered"   // stored with other content
)

// Reasons why a state is Explained.
const (
	Dropped     = "dropped by rule"
	NotMatched  = "not matched by the sink"
	Undecided   = "perhaps excluded by a rule about fields of enrich"
	NotWatched  = "of a namespace that is not watched"
	InsideGap   = "inside a declared gap"
	BeforeStart = "before the first start"
)

// Result of an audit.
type Result struct {
	Time      time.Time      `json:"time"`     // of the start
	Compared  int            `json:"compared"` // Events in the API server
	Found     int            `json:"found"`    // of these, with a stored latest state
	Missing   int            `json:"missing"`  // not explained
	Repeated  int            `json:"repeated"`
	Mistimed  int            `json:"mistimed"`
	Altered   int            `json:"altered"`
	Explained map[string]int `json:"explained"` // not stored, by reason

	Findings []Finding `json:"findings"` // up to the limit, ordered by Time

	limit  int
	listed map[group]int // including findings beyond the limit
}

// group is the unit of Options.Limit.
type group struct {
	kind Kind
	why  string
}

// Finding is a difference for one state. A state can have several.
type Finding struct {
	Kind        Kind      `json:"finding"`
	Why         string    `json:"why,omitempty"` // one of the reasons, if Explained
	Detail      string    `json:"detail,omitempty"`
	Namespace   string    `json:"namespace"` // of the Event, like all following fields
	Name        string    `json:"name"`
	UID         string    `json:"uid"`
	Version     string    `json:"version"`
	Object      string    `json:"object"` // kind/name
	EventReason string    `json:"reason"`
	Time        time.Time `json:"time"` // under which the state should be stored
}

func (r *Result) add(s *state, kind Kind, why, detail string) {
	g := group{kind, why}
	if r.listed[g]++; r.limit > 0 && r.listed[g] > r.limit {
		return
	}
	r.Findings = append(r.Findings, Finding{
		Kind: kind, Why: why, Detail: detail,
		Namespace: s.namespace, Name: s.name, UID: s.uid, Version: s.version,
		Object: s.kind + "/" + s.object, EventReason: s.eventReason, Time: s.at,
	})
}

// Clean reports whether all differences are explained.
func (r *Result) Clean() bool {
	return r.Missing == 0 && r.Repeated == 0 && r.Mistimed == 0 && r.Altered == 0
}

// Summary returns the result in one line.
func (r *Result) Summary() string {
	s := fmt.Sprintf("%s compared, %d found, %d missing, %d repeated, %d mistimed, %d altered",
		count(r.Compared, "Event", "Events"), r.Found, r.Missing, r.Repeated, r.Mistimed, r.Altered)
	total := 0
	var reasons []string
	for _, reason := range slices.Sorted(maps.Keys(r.Explained)) {
		n := r.Explained[reason]
		total += n
		reasons = append(reasons, fmt.Sprintf("%d %s", n, reason))
	}
	s += fmt.Sprintf(", %d explained", total)
	if total > 0 {
		s += " (" + strings.Join(reasons, ", ") + ")"
	}
	return s
}

// WriteText writes a line for each listed finding, and the summary.
func (r *Result) WriteText(w io.Writer) error {
	for i := range r.Findings {
		if _, err := fmt.Fprintln(w, r.Findings[i].String()); err != nil {
			return err
		}
	}
	groups := slices.SortedFunc(maps.Keys(r.listed), func(a, b group) int {
		return cmp.Or(strings.Compare(string(a.kind), string(b.kind)), strings.Compare(a.why, b.why))
	})
	for _, g := range groups {
		more := r.listed[g] - r.limit
		if r.limit <= 0 || more <= 0 {
			continue
		}
		if _, err := fmt.Fprintln(w, strings.TrimSpace(fmt.Sprintf("%-9s  … and %d more %s", g.kind, more, g.why))); err != nil {
			return err
		}
	}
	_, err := fmt.Fprintf(w, "%s: %s\n", r.Time.Format(time.RFC3339), r.Summary())
	return err
}

// WriteJSON writes the result as one line.
func (r *Result) WriteJSON(w io.Writer) error {
	return json.NewEncoder(w).Encode(r)
}

// String returns the finding in one line.
func (f *Finding) String() string {
	s := fmt.Sprintf("%-9s  %s/%s %s %s, version %s, %s", f.Kind,
		printable(f.Namespace), printable(f.Name), printable(f.EventReason), printable(f.Object), printable(f.Version), timestamp(f.Time))
	for _, more := range []string{f.Why, f.Detail} {
		if more != "" {
			s += ": " + printable(more)
		}
	}
	return s
}

// printable quotes text that is not safe for a terminal.
func printable(s string) string {
	for _, c := range s {
		if !strconv.IsPrint(c) || c == '\uFFFD' {
			return strconv.Quote(s)
		}
	}
	return s
}

func timestamp(t time.Time) string { return t.UTC().Format(time.RFC3339Nano) }

func distance(d time.Duration) string {
	if d < 0 {
		return (-d).String() + " too early"
	}
	return d.String() + " too late"
}

func count(n int, one, several string) string {
	if n == 1 {
		return "1 " + one
	}
	return strconv.Itoa(n) + " " + several
}
