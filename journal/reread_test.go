package journal

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/hindsight-events/hindsight/event"
)

func places(entries []Entry) []Location {
	var places []Location
	for _, e := range entries {
		places = append(places, e.Location)
	}
	return places
}

// readAgain returns the versions of the records at the places of entries.
func readAgain(c Consumer, entries ...Entry) (versions []uint64, err error) {
	err = c.Read(places(entries), func(r *event.Record) { versions = append(versions, r.Position.Version) })
	return versions, err
}

func mustReadAgain(t testing.TB, c Consumer, entries ...Entry) {
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
		mustAppend(t, j, record(n+1, 3*rereadBytes))
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

// Segments are kept open for no longer than something in them may be read again.
func TestSegmentsAreNotKeptOpen(t *testing.T) {
	onBoth(t, func(t *testing.T, open func(Options) *Journal) {
		j := open(Options{MaxBytes: smallBound, Consumers: consumers("a")})
		c := mustConsumer(t, j, "a")
		for v := uint64(1); v <= 300; v++ {
			mustAppend(t, j, record(v, smallRecord))
			if v%10 == 0 {
				ackAll(t, c, read(t, c, 10))
			}
		}
		if n := len(c.(*consumer).again.held); n > 1 {
			t.Errorf("%d segments are open after all was acknowledged", n)
		}
		mustAppend(t, j, records(301, 305, smallRecord)...)
		mustAppend(t, j, records(306, 310, smallRecord)...)
		read(t, c, 10)
		j.Consumer("a")
		if n := len(c.(*consumer).again.held); n > 0 {
			t.Errorf("%d segments are open after the consumer was set back", n)
		}
	})
}

func TestDamageBetweenReadingAndReadingAgain(t *testing.T) {
	for name, harm := range map[string]func(t *testing.T, path string, at int64){
		"to the head of a record": func(t *testing.T, path string, at int64) { flip(t, path, at+9, 3) },
		"to its payload":          func(t *testing.T, path string, at int64) { flip(t, path, at+frameHead+20, 3) },
		"to its length":           func(t *testing.T, path string, at int64) { flip(t, path, at+4, 0) },
	} {
		t.Run(name, func(t *testing.T) {
			dropped := map[string]int{}
			j, err := Open(t.TempDir(), Options{
				Namespace: "monitoring", Consumers: consumers("a"),
				OnDrop: func(consumer string, cause event.Cause, n int) { dropped[consumer+" "+string(cause)] += n },
			})
			if err != nil {
				t.Fatal(err)
			}
			defer j.Close()
			c := mustConsumer(t, j, "a")
			mustAppend(t, j, records(1, 10, 100)...)
			entries := read(t, c, 10)
			mustAck(t, c, entries[2].Offset)
			path, at := segmentWith(t, j.storage.(*directory).path, 7)
			harm(t, path, at)

			got, err := readAgain(c, entries[3:]...)
			if !errors.Is(err, ErrDamaged) || len(got) != 3 || got[2] != 6 {
				t.Fatalf("read again %v, %v; want 4 to 6 and that 7 is damaged", got, err)
			}
			mustReadAgain(t, c, entries[7:]...)
			r := c.ReplaceWithGap(entries[6].Offset)
			gap := entries[6]
			gap.Record = &r
			wantStory(t, []Entry{gap}, "damage(6..7 missed 1)")
			if r.OnlySink != "a" || r.Event.Namespace != "monitoring" {
				t.Errorf("gap record: %+v", r)
			}
			if len(dropped) != 1 || dropped["a damage"] != 1 {
				t.Errorf("counted as dropped: %v, want 1 for damage", dropped)
			}
			ackAll(t, c, entries)
			if p := j.Positions("a")[""]; p != positionAt(10) {
				t.Errorf("acknowledged up to %v, want 10", p)
			}
		})
	}
}

// A mark is smaller than what it stands for, and loses none of it.
func TestCursorsKeepWholePositions(t *testing.T) {
	onBoth(t, func(t *testing.T, open func(Options) *Journal) {
		j := open(Options{Consumers: consumers("a", "b")})
		a := mustConsumer(t, j, "a")
		random := rand.New(rand.NewPCG(1, 2))
		times := []time.Time{
			{}, time.Unix(0, 0), time.Unix(-5, 0), time.Unix(1563534000, 0), time.Unix(1<<32-1, 0), time.Unix(1<<32, 0), time.Unix(1<<40, 0),
		}
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
				if m := a.(*consumer).marks; len(m.extras)+len(m.origins)+len(m.known) > 0 {
					t.Fatalf("%+v is left of what was acknowledged", m)
				}
			}
		}
	})
}
