package query

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hindsight-events/hindsight/event/format"
	"github.com/hindsight-events/hindsight/test/nightly"
)

// stored is a Source in memory, in order of time. If it is read only from its
// beginning, it hides Newest behind Source.
type stored struct {
	entries []format.Entry
	read    int // entries that were visited
}

func (s *stored) visit(all []format.Entry, from, to time.Time, f func(format.Entry) error) error {
	for _, e := range all {
		if e.Time.Before(from) || !e.Time.Before(to) {
			continue
		}
		s.read++
		if err := f(e); err != nil {
			return err
		}
	}
	return nil
}

func (s *stored) Range(_ context.Context, from, to time.Time, f func(format.Entry) error) error {
	return s.visit(s.entries, from, to, f)
}

func (s *stored) States(_ context.Context, uids []string, from, to time.Time, f func(format.Entry) error) error {
	return s.visit(s.entries, from, to, func(e format.Entry) error {
		if uid := e.Metadata["event_uid"]; len(uids) > 0 && !slices.Contains(uids, uid) {
			return nil
		}
		e.Line = ""
		return f(e)
	})
}

func (s *stored) Follow(context.Context, time.Time, func(format.Entry) error) error { return nil }

type storedBackwards struct{ *stored }

func (s storedBackwards) Newest(_ context.Context, from, to time.Time, f func(format.Entry) error) error {
	all := slices.Clone(s.entries)
	slices.Reverse(all)
	return s.visit(all, from, to, f)
}

// state is an entry of an Event's state.
func state(at time.Time, uid string, version int, count, message string) format.Entry {
	return format.Entry{
		Time: at, Line: "msg=" + message,
		Metadata: map[string]string{"event_uid": uid, "event_version": fmt.Sprint(version), "count": count, "kind": "Pod", "name": "x"},
	}
}

// rows returns the messages that a query shows.
func rows(t *testing.T, source Source, limit int, states bool) []string {
	t.Helper()
	selection, err := NewSelection(Filter{})
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	p, err := NewPrinter("logfmt", &b, Style{})
	if err != nil {
		t.Fatal(err)
	}
	_, err = Run(t.Context(), Request{
		Source: source, Selection: selection, Printer: p, Limit: limit, States: states,
		From: noon.Add(-24 * time.Hour), To: noon,
	})
	if err != nil {
		t.Fatal(err)
	}
	var messages []string
	for l := range strings.Lines(b.String()) {
		messages = append(messages, record(t, strings.TrimSpace(l)).Event.Message)
	}
	return messages
}

// An Event is one row, of its highest version, whatever it counts and whatever
// time a state is of.
func TestOneRowForEachEvent(t *testing.T) {
	at := func(minute int) time.Time { return noon.Add(time.Duration(minute-120) * time.Minute) }
	source := &stored{entries: []format.Entry{
		state(at(0), "annotated", 10, "1", "annotated-10"),
		state(at(0).Add(1), "annotated", 11, "1", "annotated-11"),
		state(at(1), "restarted", 20, "7", "restarted-20"),
		state(at(2), "no-count", 30, "", "no-count-30"),
		state(at(3), "no-count", 31, "", "no-count-31"),
		state(at(10), "written-late", 46, "2", "written-late-46"), // its time was kept
		state(at(11), "restarted", 21, "1", "restarted-21"),
		state(at(30), "written-late", 45, "3", "written-late-45"),
		state(at(31), "single", 47, "1", "single-47"),
	}}
	want := []string{"annotated-11", "no-count-31", "written-late-46", "restarted-21", "single-47"}
	for limit := range len(want) + 2 {
		expected := want
		if limit > 0 {
			expected = want[max(0, len(want)-limit):]
		}
		if got := rows(t, source, limit, false); !slices.Equal(got, expected) {
			t.Errorf("forward, limit %d: %v, want %v", limit, got, expected)
		}
		if got := rows(t, storedBackwards{source}, limit, false); !slices.Equal(got, expected) {
			t.Errorf("backward, limit %d: %v, want %v", limit, got, expected)
		}
	}
	if got := rows(t, source, 0, true); len(got) != len(source.entries) {
		t.Errorf("--states: %v", got)
	}
}

// Events that were saved without their versions have states as well.
func TestStatesWithoutVersions(t *testing.T) {
	source := &stored{}
	for _, count := range []string{"1", "4", "4"} { // one of them twice
		e := state(noon.Add(-time.Minute), "a", 0, count, "again")
		delete(e.Metadata, "event_version")
		source.entries = append(source.entries, e)
	}
	if got := rows(t, source, 0, true); len(got) != 2 {
		t.Errorf("--states: %v", got)
	}
	if got := rows(t, source, 0, false); len(got) != 1 {
		t.Errorf("%v", got)
	}
}

// Read from either end, and with any limit, the rows are the same.
func TestLimitCountsEvents(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for round := range nightly.Size(5, 30) {
		source := &stored{}
		events := 1 + random.IntN(300)
		for version := range 3000 {
			written := noon.Add(-20*time.Hour + time.Duration(version)*20*time.Second)
			filed := written.Add(-time.Duration(random.Int64N(int64(30 * time.Minute)))).Add(time.Duration(version))
			uid := fmt.Sprint(random.IntN(events))
			source.entries = append(source.entries, state(filed, uid, version+1, fmt.Sprint(random.IntN(3)), uid))
		}
		slices.SortStableFunc(source.entries, func(a, b format.Entry) int { return a.Time.Compare(b.Time) })
		all := rows(t, source, 0, false)
		sorted := slices.Clone(all)
		slices.Sort(sorted)
		if len(slices.Compact(sorted)) != len(all) {
			t.Fatalf("round %d: an Event has several rows", round)
		}
		for _, limit := range []int{1, 2, 20, 100, 1000} {
			want := all[max(0, len(all)-limit):]
			if got := rows(t, storedBackwards{source}, limit, false); !slices.Equal(got, want) {
				t.Fatalf("round %d, %d Events, limit %d:\n%v\nwant\n%v", round, events, limit, got, want)
			}
		}
	}
}

// The newest rows are found without reading all that is older.
func TestLimitReadsNoMoreThanNeeded(t *testing.T) {
	source := &stored{}
	for i := range 50_000 {
		at := noon.Add(-23*time.Hour + time.Duration(i)*time.Second)
		source.entries = append(source.entries, state(at, fmt.Sprint("e", i), i+1, "1", fmt.Sprint(i)))
	}
	if got := rows(t, storedBackwards{source}, 20, false); len(got) != 20 || got[19] != "49999" {
		t.Errorf("%v", got)
	}
	// The rows, and what one query of their uids looks through.
	if most := 20 + int(lookback/time.Second) + 10; source.read > most {
		t.Errorf("%d entries were read, want at most %d", source.read, most)
	}
}
