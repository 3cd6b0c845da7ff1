package input

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/hindsight-events/hindsight/event"
	"github.com/hindsight-events/hindsight/event/format"
)

func recordAt(t time.Time, message string) *format.Record {
	return &format.Record{WholeEvent: true, Record: event.Record{
		Event: &corev1.Event{Message: message}, Time: t, ObservedTime: t.Add(-time.Hour),
	}}
}

func TestTimeSorter(t *testing.T) {
	var got []string
	o := TimeSorter{Visit: func(r *format.Record) error {
		got = append(got, r.Event.Message)
		if !r.WholeEvent || !r.ObservedTime.Equal(r.Time.Add(-time.Hour)) {
			t.Errorf("%s is visited as %+v", r.Event.Message, r)
		}
		return nil
	}}
	defer o.Close()
	now := time.Date(2026, 3, 6, 14, 0, 0, 0, time.UTC)
	for message, at := range map[string]time.Time{
		"d": now, "c": now.Add(-1), "e": now.Add(1), "b": time.Unix(-1, 0).UTC(),
		"a": time.Date(1, 1, 2, 0, 0, 0, 0, time.UTC), "f": time.Date(9000, 1, 1, 0, 0, 0, 0, time.UTC),
	} {
		if err := o.Add(recordAt(at, message)); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 3 {
		if err := o.Add(recordAt(now.Add(2), fmt.Sprint("e", i))); err != nil { // equal times
			t.Fatal(err)
		}
	}
	if err := o.Flush(); err != nil {
		t.Fatal(err)
	}
	if want := []string{"a", "b", "c", "d", "e", "e0", "e1", "e2", "f"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// Records beyond the limit are visited in sorted parts, which is reported once. None is lost.
func TestTimeSorterOverflow(t *testing.T) {
	const n = 8000
	seen, descents, overflows := map[string]bool{}, 0, 0
	var last time.Time
	o := TimeSorter{
		Visit: func(r *format.Record) error {
			seen[r.Event.Name] = true
			if r.Time.Before(last) {
				descents++
			}
			last = r.Time
			return nil
		},
		Overflow: func(error) { overflows++ },
		limit:    1,
	}
	text := strings.Repeat("a message of some length ", 40)
	now := time.Date(2026, 3, 6, 14, 0, 0, 0, time.UTC)
	for i := range n {
		r := recordAt(now.Add(-time.Duration(i)*time.Second), text)
		r.Event.Name = fmt.Sprint(i)
		if err := o.Add(r); err != nil {
			t.Fatal(err)
		}
	}
	if err := o.Flush(); err != nil {
		t.Fatal(err)
	}
	if len(seen) != n || overflows != 1 || descents == 0 || descents > 10 {
		t.Errorf("%d of %d records, %d calls of Overflow, %d parts", len(seen), n, overflows, descents+1)
	}

	o.limit, o.Unbounded, descents, last = 1, true, 0, time.Time{}
	for i := range n {
		_ = o.Add(recordAt(now.Add(-time.Duration(i)*time.Second), text))
	}
	if err := o.Flush(); err != nil || descents != 0 {
		t.Errorf("%d parts, %v; want all in order", descents+1, err)
	}
	stop := errors.New("stop")
	o.Visit = func(*format.Record) error { return stop }
	_ = o.Add(recordAt(now, ""))
	if err := o.Flush(); !errors.Is(err, stop) {
		t.Errorf("got %v", err)
	}
}
