package query

import (
	"io"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/duration"

	"github.com/hindsight-events/hindsight/event"
	"github.com/hindsight-events/hindsight/query/line"
)

// table writes records as kubectl events does. Columns are as wide as the first
// rows need, so that any number of rows can be written as they come.
type table struct {
	w      io.Writer
	style  Style
	wide   bool
	held   []row // until the columns are known
	widths []int // of the columns but the last; nil: not known yet
}

type row struct {
	cells   []string
	warning bool
	heading bool
}

// sampled is how many rows decide the widths of the columns.
const sampled = 200

func newTable(w io.Writer, s Style, wide bool) *table { return &table{w: w, style: s, wide: wide} }

// Print implements Printer.
func (t *table) Print(r *line.Record) error {
	if t.widths == nil && len(t.held) == 0 && !t.style.NoHeaders {
		t.held = append(t.held, row{cells: t.headings(), heading: true})
	}
	next := row{cells: t.cells(r), warning: r.Event.Type == corev1.EventTypeWarning}
	if t.widths != nil {
		return t.write(next)
	}
	t.held = append(t.held, next)
	if len(t.held) < sampled {
		return nil
	}
	return t.Flush()
}

// Flush implements Printer.
func (t *table) Flush() error {
	if len(t.held) > 0 {
		t.widths = t.measure(t.held)
	}
	for _, r := range t.held {
		if err := t.write(r); err != nil {
			return err
		}
	}
	t.held = nil
	if f, ok := t.w.(interface{ Flush() error }); ok {
		return f.Flush()
	}
	return nil
}

func (t *table) headings() []string {
	var h []string
	if t.style.AllNamespaces {
		h = append(h, "NAMESPACE")
	}
	h = append(h, "LAST SEEN", "TYPE", "REASON", "OBJECT")
	if t.wide {
		h = append(h, "SOURCE", "NODE", "COUNT", "FIRST SEEN")
	}
	return append(h, "MESSAGE")
}

func (t *table) cells(r *line.Record) []string {
	e := r.Event
	var c []string
	if t.style.AllNamespaces {
		c = append(c, e.Namespace)
	}
	c = append(c, t.lastSeen(r), e.Type, e.Reason, e.InvolvedObject.Kind+"/"+e.InvolvedObject.Name)
	if t.wide {
		count := r.Value(event.FieldCount)
		if count == "" {
			count = "1"
		}
		c = append(c, r.Value(event.FieldComponent), r.Value(event.FieldNode), count, t.when(firstSeen(r)))
	}
	c = append(c, strings.TrimSpace(e.Message))
	for i := range c {
		c[i] = printable(c[i])
	}
	return c
}

// lastSeen is an age or a time, and where the Event was repeated how often, as
// in "5m (x7 over 20m)".
func (t *table) lastSeen(r *line.Record) string {
	s := t.when(r.Time)
	n, _ := strconv.Atoi(r.Value(event.FieldCount))
	if n <= 1 {
		return s
	}
	s += " (x" + strconv.Itoa(n)
	if first := firstSeen(r); !first.IsZero() {
		if t.style.Times != nil {
			s += " over " + duration.HumanDuration(r.Time.Sub(first))
		} else {
			s += " over " + t.age(first)
		}
	}
	return s + ")"
}

func firstSeen(r *line.Record) time.Time {
	switch e := r.Event; {
	case !e.FirstTimestamp.IsZero():
		return e.FirstTimestamp.Time
	case !e.EventTime.IsZero():
		return e.EventTime.Time
	case r.Value(event.FieldCount) == "":
		return r.Time
	}
	return time.Time{}
}

func (t *table) when(at time.Time) string {
	switch {
	case at.IsZero():
		return "<unknown>"
	case t.style.Times != nil:
		return at.In(t.style.Times).Format("2006-01-02 15:04:05")
	}
	return t.age(at)
}

func (t *table) age(at time.Time) string {
	now := t.style.Now
	if now.IsZero() {
		now = time.Now()
	}
	return duration.HumanDuration(now.Sub(at))
}
