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

// memory is a Source in memory, in order of time.
type memory struct {
	entries []format.Entry
	read    int // entries visited
}

func (s *memory) visit(all []format.Entry, from, to time.Time, f func(format.Entry) error) error {
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

func (s *memory) Range(_ context.Context, from, to time.Time, f func(format.Entry) error) error {
	return s.visit(s.entries, from, to, f)
}

func (s *memory) States(_ context.Context, uids []string, from, to time.Time, f func(format.Entry) error) error {
	return s.visit(s.entries, from, to, func(e format.Entry) error {
		if uid := e.Metadata["event_uid"]; len(uids) > 0 && !slices.Contains(uids, uid) {
			return nil
		}
		e.Line = ""
		return f(e)
	})
}

func (s *memory) Follow(context.Context, time.Time, func(format.Entry) error) error { return nil }

// memoryNewestFirst is a memory that can be read from its end.
type memoryNewestFirst struct{ *memory }

func (s memoryNewestFirst) Newest(_ context.Context, from, to time.Time, f func(format.Entry) error) error {
	all := slices.Clone(s.entries)
	slices.Reverse(all)
	return s.visit(all, from, to, f)
}

// state returns the entry of a state.
func state(at time.Time, uid string, version int, count, message string) format.Entry {
	return format.Entry{
		Time: at, Line: "msg=" + message,
		Metadata: map[string]string{"event_uid": uid, "event_version": fmt.Sprint(version), "count": count, "kind": "Pod", "name": "x"},
	}
}

// rows returns the messages that a query prints.
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

// TestLatestState checks that an Event is one row, of its highest version, for any counts and times
// of its states.
func TestLatestState(t *testing.T) {
	t.Parallel()
	at := func(minute int) time.Time { return noon.Add(time.Duration(minute-120) * time.Minute) }
	source := &memory{entries: []format.Entry{
		state(at(0), "annotated", 10, "1", "annotated-10"),
		state(at(0).Add(1), "annotated", 11, "1", "annotated-11"),
		state(at(1), "restarted", 20, "7", "restarted-20"),
		state(at(2), "no-count", 30, "", "no-count-30"),
		state(at(3), "no-count", 31, "", "no-count-31"),
		state(at(10), "written-late", 46, "2", "written-late-46"), // its time did not change
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
		if got := rows(t, memoryNewestFirst{source}, limit, false); !slices.Equal(got, expected) {
			t.Errorf("backward, limit %d: %v, want %v", limit, got, expected)
		}
	}
	if got := rows(t, source, 0, true); len(got) != len(source.entries) {
		t.Errorf("--states: %v", got)
	}
}

// TestStatesWithoutVersions checks that states are distinguished also if the version is missing.
func TestStatesWithoutVersions(t *testing.T) {
	t.Parallel()
	source := &memory{}
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

// TestLimitCountsEvents checks that the rows are the same when read from either end and with any
// limit.
func TestLimitCountsEvents(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(1, 2))
	for round := range nightly.Size(5, 30) {
		source := &memory{}
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
			if got := rows(t, memoryNewestFirst{source}, limit, false); !slices.Equal(got, want) {
				t.Fatalf("round %d, %d Events, limit %d:\n%v\nwant\n%v", round, events, limit, got, want)
			}
		}
	}
}

// TestLimitReadsOnlyTheEnd checks that older entries are not read.
func TestLimitReadsOnlyTheEnd(t *testing.T) {
	t.Parallel()
	source := &memory{}
	for i := range 50_000 {
		at := noon.Add(-23*time.Hour + time.Duration(i)*time.Second)
		source.entries = append(source.entries, state(at, fmt.Sprint("e", i), i+1, "1", fmt.Sprint(i)))
	}
	if got := rows(t, memoryNewestFirst{source}, 20, false); len(got) != 20 || got[19] != "49999" {
		t.Errorf("%v", got)
	}
	// The rows, and the entries that one query for their uids reads.
	if limit := 20 + int(lookback/time.Second) + 10; source.read > limit {
		t.Errorf("%d entries were read, want at most %d", source.read, limit)
	}
}
