package journal

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/hindsight-events/hindsight/event"
	"github.com/hindsight-events/hindsight/journal/storage"
)

func locations(entries []Entry) []Location {
	var locations []Location
	for _, e := range entries {
		locations = append(locations, e.Location)
	}
	return locations
}

// readAgain returns the versions of the records at the places of entries.
func readAgain(c *Consumer, entries ...Entry) (versions []uint64, err error) {
	err = c.Read(locations(entries), func(r *event.Record) { versions = append(versions, r.Position.Version) })
	return versions, err
}

func mustReadAgain(t testing.TB, c *Consumer, entries ...Entry) {
	t.Helper()
	got, err := readAgain(c, entries...)
	if err != nil {
		t.Errorf("read again after %d of %d: %v", len(got), len(entries), err)
	}
	for i, v := range got {
		if v != version(entries[i]) {
			t.Errorf("read again %d: version %d, want %d", i, v, version(entries[i]))
		}
	}
}

func TestWhatWasReadCanBeReadAgainUntilItIsAcknowledged(t *testing.T) {
	onBoth(t, func(t *testing.T, open func(Options) *Journal) {
		const n = 300 // in several segments
		j := open(Options{MaxBytes: n * 2 * smallRecord, Consumers: consumers("a")})
		for v := uint64(1); v < n; v += 10 {
			mustAppend(t, j, records(v, v+9, smallRecord)...)
		}
		mustAppend(t, j, record(n+1, 200<<10))
		c := mustConsumer(t, j, "a")
		entries := read(t, c, n+1)
		mustReadAgain(t, c, entries...)
		var some []Entry
		for i := 0; i < len(entries); i += 1 + i%7 {
			some = append(some, entries[i])
		}
		mustReadAgain(t, c, some...)
		mustAck(t, c, entries[n/2].Offset)
		random := rand.New(rand.NewPCG(1, 2))
		random.Shuffle(n/2, func(i, j int) { entries[n/2+1+i], entries[n/2+1+j] = entries[n/2+1+j], entries[n/2+1+i] })
		mustReadAgain(t, c, entries[n/2+1:]...)
	})
}

// A sink that lets records be dropped loses those that it has not found yet: what
// it has found can still be sent.
func TestWhatWasReadOutlivesItsSegment(t *testing.T) {
	onBoth(t, func(t *testing.T, open func(Options) *Journal) {
		j := open(Options{MaxBytes: smallBound, Consumers: []ConsumerOptions{{Name: "lazy", WhenFull: DropOldest}}})
		lazy := mustConsumer(t, j, "lazy")
		mustAppend(t, j, records(1, 20, smallRecord)...)
		found := read(t, lazy, 20)
		for v := uint64(21); v <= 300; v++ {
			mustAppend(t, j, record(v, smallRecord))
		}
		mustReadAgain(t, lazy, found...)
		mustAck(t, lazy, found[19].Offset)
		entries := readAll(t, lazy)
		first := version(entries[1])
		wantStory(t, entries, fmt.Sprintf("overflow(20..%d missed %d) %d-300", first-1, first-21, first))
	})
}

// A record that is damaged after Next has visited it fails Read. A gap is declared for it once
// the consumer starts again.
func TestDamageBetweenNextAndRead(t *testing.T) {
	dir := t.TempDir()
	dropped := map[string]int{}
	j := openDir(t, dir, Options{
		Namespace: "monitoring", Consumers: consumers("a"),
		OnDrop: func(consumer string, cause event.Cause, n int) { dropped[consumer+" "+string(cause)] += n },
	})
	c := mustConsumer(t, j, "a")
	mustAppend(t, j, records(1, 10, 100)...)
	mustAppend(t, j, record(11, 100))
	entries := read(t, c, 11)
	mustAck(t, c, entries[2].Offset)
	flip(t, segmentFiles(t, dir)[0], int64(entries[6].Location.Start+frameHead+20), 3)

	got, err := readAgain(c, entries[3:]...)
	if !errors.Is(err, storage.ErrDamaged) || len(got) != 3 || got[2] != 6 {
		t.Fatalf("read %v, %v; want 4 to 6 and an error", got, err)
	}
	again := readAll(t, mustConsumer(t, j, "a"))
	wantStory(t, again, "4-6 damage(6..8 missed 1) 8-11")
	if gap := again[3].Record; gap.OnlySink != "a" || gap.Event.Namespace != "monitoring" {
		t.Errorf("gap record: %+v", gap)
	}
	if len(dropped) != 1 || dropped["a damage"] != 1 {
		t.Errorf("counted as dropped: %v, want 1 for damage", dropped)
	}
	ackAll(t, c, again)
	if p := j.Positions("a")[""]; p != positionAt(11) {
		t.Errorf("acknowledged up to %v, want 11", p)
	}
}

// A mark is smaller than what it stands for, and loses none of it.
func TestCursorsKeepWholePositions(t *testing.T) {
	onBoth(t, func(t *testing.T, open func(Options) *Journal) {
		j := open(Options{Consumers: consumers("a", "b")})
		a := mustConsumer(t, j, "a")
		random := rand.New(rand.NewPCG(1, 2))
		times := []time.Time{{}, time.Unix(1563534000, 0), time.Unix(1<<32-1, 0)}
		want := map[string]event.Position{}
		for v := uint64(1); v <= 500; v++ {
			r := record(v, 10)
			r.Source = []string{"", "team-a", "team-b"}[random.IntN(3)]
			r.Position.Epoch.Restores = random.IntN(2)
			r.Position.ListVersion = v * uint64(random.IntN(2))
			if r.Position.Time = times[random.IntN(len(times))]; !r.Position.Time.IsZero() {
				r.Position.Time = r.Position.Time.UTC()
			}
			switch random.IntN(6) {
			case 0:
				r.OnlySink = "b"
			case 1:
				r.Event = nil
			}
			if r.OnlySink == "" {
				want[r.Source] = r.Position
			}
			mustAppend(t, j, r)
			if v%50 == 0 {
				// So that no position alone is last: it would wait.
				for _, source := range []string{"", "team-a", "team-b"} {
					last := record(v, 10)
					last.Source, last.Position = source, want[source]
					mustAppend(t, j, last)
				}
				entries := readAll(t, a)
				for _, e := range entries {
					mustAck(t, a, e.Offset)
				}
				if got := j.Positions("a"); !maps.Equal(got, want) {
					t.Fatalf("after %d the cursor is\n%v, want\n%v", v, got, want)
				}
				if f := a.inflight; f.steps.Len()+len(f.shared)+len(f.known) > 0 {
					t.Fatalf("%+v is left after all was acknowledged", f)
				}
			}
		}
	})
}
