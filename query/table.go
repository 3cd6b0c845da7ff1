package query

import (
	"io"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/duration"

	"github.com/hindsight-events/hindsight/event"
	"github.com/hindsight-events/hindsight/event/format"
)

// table writes records as kubectl events does. Columns are as wide as the first
// rows need, so that any number of rows can be written as they come. From the
// first row on that is older than a day, it writes times instead of ages.
type table struct {
	w      io.Writer
	style  Style
	wide   bool
	held   []format.Record // until the columns are known
	widths []int           // of the columns but the last; nil: not known yet
}

type row struct {
	cells   []string
	warning bool
	heading bool
}

const (
	// sampled is how many rows decide the widths of the columns.
	sampled = 1000

	// longestAge is how old rows may be that have ages: kubectl shows an Event of
	// the last hour, and "3d" would be no answer to when something happened.
	longestAge = 24 * time.Hour
)

func newTable(w io.Writer, s Style, wide bool) *table {
	if s.Zone == nil {
		s.Zone = time.UTC
	}
	return &table{w: w, style: s, wide: wide}
}

// Print implements Printer.
func (t *table) Print(r *format.Record) error {
	if t.old(r) {
		t.style.Times = true
	}
	if t.widths != nil {
		return t.write(t.row(r))
	}
	t.held = append(t.held, *r)
	if len(t.held) < sampled {
		return nil
	}
	return t.Flush()
}

// Flush implements Printer.
func (t *table) Flush() error {
	if len(t.held) > 0 {
		var rows []row
		if !t.style.NoHeaders {
			rows = append(rows, row{cells: t.headings(), heading: true})
		}
		for i := range t.held {
			rows = append(rows, t.row(&t.held[i]))
		}
		t.held = nil
		t.widths = t.measure(rows)
		for _, r := range rows {
			if err := t.write(r); err != nil {
				return err
			}
		}
	}
	if f, ok := t.w.(interface{ Flush() error }); ok {
		return f.Flush()
	}
	return nil
}

// old reports whether the row has a time that is too long ago for an age.
func (t *table) old(r *format.Record) bool {
	oldest := r.Time
	if first := firstSeen(r); t.wide && r.ObservedTime.IsZero() && !first.IsZero() && first.Before(oldest) {
		oldest = first
	}
	return !oldest.IsZero() && t.now().Sub(oldest) > longestAge
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

func (t *table) row(r *format.Record) row {
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
	return row{cells: c, warning: e.Type == corev1.EventTypeWarning}
}

// lastSeen is an age or a time; in brackets, how often the Event has occurred and
// since when, and the time that the reporter gave, where the row has another: "5m
// (x7 over 20m)", "5m (observed 1970-01-01T00:00:07Z)".
func (t *table) lastSeen(r *format.Record) string {
	var notes []string
	if n, _ := strconv.Atoi(r.Value(event.FieldCount)); n > 1 {
		note := "x" + strconv.Itoa(n)
		switch first := firstSeen(r); {
		case first.IsZero():
		case !r.ObservedTime.IsZero(): // of the same clock
			note += " over " + duration.HumanDuration(r.ObservedTime.Sub(first))
		case t.style.Times:
			note += " over " + duration.HumanDuration(r.Time.Sub(first))
		default:
			note += " over " + t.age(first)
		}
		notes = append(notes, note)
	}
	if !r.ObservedTime.IsZero() {
		notes = append(notes, "observed "+t.time(r.ObservedTime))
	}
	s := t.when(r.Time)
	if len(notes) > 0 {
		s += " (" + strings.Join(notes, ", ") + ")"
	}
	return s
}

func firstSeen(r *format.Record) time.Time {
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
	case t.style.Times:
		return t.time(at)
	}
	return t.age(at)
}

// time is RFC 3339, which has the offset of the zone and can be given to --from.
func (t *table) time(at time.Time) string { return at.In(t.style.Zone).Format(time.RFC3339) }

// age is zero for what is ahead of our clock.
func (t *table) age(at time.Time) string {
	return duration.HumanDuration(max(t.now().Sub(at), 0))
}

func (t *table) now() time.Time {
	if t.style.Now.IsZero() {
		return time.Now()
	}
	return t.style.Now
}
