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

// table prints records as kubectl events does. The first rows determine the widths of the columns,
// so that any number of rows can be printed as they arrive. From the first row older than a day on,
// it prints times instead of ages.
type table struct {
	w        io.Writer
	style    Style
	wide     bool
	buffered []format.Record // until the widths are known
	widths   []int           // of all columns but the last; nil: not known yet
}

type row struct {
	cells   []string
	warning bool
	heading bool
}

const (
	// sampleRows is the number of rows that determine the widths of the columns.
	sampleRows = 1000

	// maxAge is the age from which on rows have times: kubectl shows Events of the last hour, but
	// "3d" is too vague.
	maxAge = 24 * time.Hour
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
	t.buffered = append(t.buffered, *r)
	if len(t.buffered) < sampleRows {
		return nil
	}
	return t.Flush()
}

// Flush implements Printer.
func (t *table) Flush() error {
	if len(t.buffered) > 0 {
		var rows []row
		if !t.style.NoHeaders {
			rows = append(rows, row{cells: t.headings(), heading: true})
		}
		for i := range t.buffered {
			rows = append(rows, t.row(&t.buffered[i]))
		}
		t.buffered = nil
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

// old reports whether a time of the row exceeds maxAge.
func (t *table) old(r *format.Record) bool {
	oldest := r.Time
	if first := firstSeen(r); t.wide && r.ObservedTime.IsZero() && !first.IsZero() && first.Before(oldest) {
		oldest = first
	}
	return !oldest.IsZero() && t.now().Sub(oldest) > maxAge
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
		c[i] = Printable(c[i])
	}
	return row{cells: c, warning: e.Type == corev1.EventTypeWarning}
}

// lastSeen returns the age or the time of a row, followed in brackets by the number of occurrences
// and their period, and by the reporter's time if it differs from the record's: "5m (x7 over 20m)",
// "5m (observed 1970-01-01T00:00:07Z)".
func (t *table) lastSeen(r *format.Record) string {
	var notes []string
	if n, _ := strconv.Atoi(r.Value(event.FieldCount)); n > 1 {
		note := "x" + strconv.Itoa(n)
		switch first := firstSeen(r); {
		case first.IsZero():
		case !r.ObservedTime.IsZero(): // both times are of the reporter's clock
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

// time formats a time as RFC 3339, which contains the offset of the zone and is accepted by --from.
func (t *table) time(at time.Time) string { return at.In(t.style.Zone).Format(time.RFC3339) }

// age is zero for a time in the future.
func (t *table) age(at time.Time) string {
	return duration.HumanDuration(max(t.now().Sub(at), 0))
}

func (t *table) now() time.Time {
	if t.style.Now.IsZero() {
		return time.Now()
	}
	return t.style.Now
}
