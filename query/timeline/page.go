package timeline

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
)

// PageRows is the number of rows of a page that people read.
const PageRows = 48

// Style is how a page is written.
type Style struct {
	Width   int            // of a terminal; 0: long lines are not wrapped
	Color   bool           // ANSI colours
	Zone    *time.Location // nil: UTC
	AllRows bool           // do not fold rows further to keep to a page
}

// page is a Timeline in words. Its texts are not escaped yet.
type page struct {
	title       string
	about       []string
	marks       []pageMark
	lines       []pageLine
	usual       table
	preemptions table
	workloads   table
	nodes       table
	omissions   []string
}

type pageMark struct{ name, when, what, message string }

type pageLine struct {
	when, span, reason, what, message string
	warning, routine, gap             bool
}

// table is a table with notes below it.
type table struct {
	title string
	heads []string
	rows  [][]string
	notes []string
}

// pageMaker makes a page.
type pageMaker struct {
	*Timeline
	style Style
	days  bool // times need a date
}

const (
	clockLayout = "15:04:05"
	dayLayout   = "Jan 02 15:04:05"

	// maxPageMessage is the length of a message on a page.
	maxPageMessage = 140
	// maxReason is the length of a reason; Kubernetes accepts 128 bytes in events.k8s.io.
	maxReason = 128
	// maxTable is the number of rows of a table on a page.
	maxTable = 12
)

func (t *Timeline) page(style Style) page {
	if style.Zone == nil {
		style.Zone = time.UTC
	}
	m := pageMaker{Timeline: t, style: style}
	m.days = m.day(m.begin()) != m.day(t.Last)
	p := page{title: "Timeline of " + t.Title, about: m.about(), marks: m.pageMarks()}
	story, left := t.Story, []int(nil)
	if style.AllRows {
		story, _ = t.story(0)
	} else {
		left = t.untold()
	}
	lines, usual := story, []Line(nil)
	if i := slices.IndexFunc(story, func(l Line) bool { return l.Usual }); i >= 0 {
		lines, usual = story[:i], story[i:]
	}
	for i := range lines {
		p.lines = append(p.lines, m.line(&lines[i]))
	}
	p.usual = m.usualTable(usual)
	p.preemptions, p.workloads, p.nodes = m.preemptionTable().withoutEmpty(), m.workloadTable().withoutEmpty(), m.nodeTable().withoutEmpty()
	shown := 0
	for _, l := range story {
		shown += len(l.Rows)
	}
	if n := len(story); n < shown {
		p.omissions = append(p.omissions, fmt.Sprintf("%s are folded into %s; --all-rows shows each", plural(shown, "row"), plural(n, "line")))
	}
	if len(left) > 0 {
		p.omissions = append(p.omissions, m.leftOut(left))
	}
	for _, o := range t.Omissions {
		text := o.Text
		if o.Count > 0 {
			text = strconv.Itoa(o.Count) + " " + text
		}
		p.omissions = append(p.omissions, text)
	}
	return p
}

func (m *pageMaker) day(t time.Time) string { return t.In(m.style.Zone).Format(time.DateOnly) }

// begin is the begin of the story, without Events that had begun long before.
func (m *pageMaker) begin() time.Time {
	if m.Query.From.After(m.First) {
		return m.Query.From
	}
	return m.First
}

func (m *pageMaker) when(t time.Time) string {
	t = t.In(m.style.Zone)
	if m.days || m.day(t) != m.day(m.begin()) {
		return t.Format(dayLayout)
	}
	return t.Format(clockLayout)
}

func (m *pageMaker) about() []string {
	format := func(t time.Time) string { return t.In(m.style.Zone).Format("Mon 2006-01-02 15:04:05 MST") }
	var lines []string
	if !m.Query.From.IsZero() {
		lines = append(lines, "from "+format(m.Query.From)+" to "+format(m.Query.To))
	}
	q := append([]string{}, m.Query.Filters...)
	if m.Query.Around != "" {
		q = append(q, "around "+m.Query.Around)
	}
	if m.Query.Source != "" {
		q = append(q, "read from "+m.Query.Source+m.fetched())
	}
	if len(q) > 0 {
		lines = append(lines, strings.Join(q, ", "))
	}
	n := &m.Totals
	s := plural(n.Events, "Event")
	if n.Occurrences > n.Events {
		s += " (" + strconv.Itoa(n.Occurrences) + " occurrences)"
	}
	s += ", " + plural(n.Warnings, "Warning") + ", of " + plural(n.Objects, "object") + " in " + plural(n.Workloads, "workload") + " and on " + plural(n.Nodes, "node")
	lines = append(lines, s)
	if s := m.preempted(); s != "" {
		lines = append(lines, s)
	}
	if n := m.Totals.Evicted; n > 0 {
		lines = append(lines, plural(n, "pod")+" evicted")
	}
	return append(lines, m.gaps())
}

// gaps describes the gaps, or their absence.
func (m *pageMaker) gaps() string {
	n := 0
	for i := range m.Rows {
		if m.Rows[i].Gap {
			n++
		}
	}
	if n == 0 {
		return "no gaps are recorded for this time"
	}
	return plural(n, "gap") + ": Events may be missing, see HindsightGap"
}

// fetched describes how much was read from Loki.
func (m *pageMaker) fetched() string {
	if m.Totals.Requests == 0 {
		return ""
	}
	return fmt.Sprintf(" (%s in %s)", humanize.Bytes(uint64(max(m.Totals.Bytes, 0))), plural(m.Totals.Requests, "request"))
}

func (m *pageMaker) pageMarks() (marks []pageMark) {
	for _, k := range m.Marks {
		e := &m.Events[k.Event]
		at := e.Time
		if strings.HasPrefix(k.Text, "first") {
			at = e.begin(m.Query.From)
		}
		marks = append(marks, pageMark{
			name: k.Text, when: m.when(at),
			what: cutTo(e.Reason, maxReason) + " " + m.Name(e.Object), message: m.message(cmp.Or(e.Resolved, e.Message)),
		})
	}
	return marks
}

// message returns a message as a part of a line.
func (m *pageMaker) message(s string) string {
	s = strings.TrimSpace(s)
	if m.style.AllRows {
		return s
	}
	return cutTo(s, maxPageMessage)
}

// cutTo cuts a text if it is longer than n bytes.
func cutTo(s string, n int) string {
	if len(s) > n {
		return cutText(s, n)
	}
	return s
}

func (m *pageMaker) line(l *Line) pageLine {
	p := pageLine{
		when: m.when(l.First), span: span(l.First, l.Last), reason: cutTo(l.Reason, maxReason), what: l.What, message: m.message(l.Message),
		warning: l.Trouble || l.Gap, routine: l.Routine != "", gap: l.Gap,
	}
	if l.First.Before(m.begin()) && l.Routine == "" && !l.Gap {
		p.when, p.what = "earlier", p.what+" since "+m.when(l.First)
	}
	if l.Routine != "" {
		p.reason = "routine"
	}
	return p
}

// steps lists the steps of a routine, without those that the next one implies.
func steps(steps []Step) string {
	count := map[string]int{}
	for _, s := range steps {
		count[s.Reason] = s.Occurrences
	}
	implied := map[string]string{"Starting": "RegisteredNode", "RegisteredNode": reasonNodeReady, "Pulling": "Pulled", "Pulled": "Started", "Created": "Started", "SuccessfulCreate": "Scheduled"}
	var words []string
	for _, s := range steps {
		if by := implied[s.Reason]; by != "" && count[by] >= s.Occurrences {
			continue
		}
		word := s.Reason
		if s.Occurrences > 1 {
			word = strconv.Itoa(s.Occurrences) + " " + word
		}
		words = append(words, word)
	}
	return strings.Join(words, ", ")
}

func (m *pageMaker) leftOut(left []int) string {
	warnings, routines, events := 0, 0, 0
	reasons := map[string]int{}
	for _, i := range left {
		r := &m.Rows[i]
		events += r.EventCount
		switch {
		case r.Routine != "":
			routines++
			continue
		case r.trouble():
			warnings++
		}
		reasons[r.Reason]++
	}
	s := fmt.Sprintf("%s with %s are left out, %d of them Warnings, %d routine", plural(len(left), "row"), plural(events, "Event"), warnings, routines)
	names := make([]string, 0, len(reasons))
	for r := range reasons {
		names = append(names, r)
	}
	slices.SortFunc(names, func(a, b string) int { return cmp.Or(cmp.Compare(reasons[b], reasons[a]), cmp.Compare(a, b)) })
	if len(names) > 0 {
		s += " (" + strings.Join(names[:min(len(names), 5)], ", ")
		if len(names) > 5 {
			s += ", …"
		}
		s += ")"
	}
	return s + "; --all-rows shows them"
}
