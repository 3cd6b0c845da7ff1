package storage

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/hindsight-events/hindsight/event"
)

// lookupLog returns a log of three segments, a Lookup in which they are pinned, and its records,
// some larger than lookupBytes.
func lookupLog(t *testing.T) (*Memory, *Recovered, *Lookup, []found) {
	m := NewMemory()
	r := mustRecover(t, m)
	for v := uint64(1); v <= 300; v++ {
		size := 1000
		if v%50 == 0 {
			size = 3 * lookupBytes
		}
		if v == 100 || v == 200 {
			r.startSegment(t)
		}
		r.write(t, record(v, size))
	}
	l := NewLookup(m)
	for _, s := range r.Log.Segments {
		must(t, l.Pin(s))
	}
	return m, r, l, readAll(t, m, r.Log)
}

func lookUp(l *Lookup, records []found) (versions []uint64, err error) {
	var locations []Location
	for _, f := range records {
		locations = append(locations, f.location)
	}
	err = l.Read(locations, func(r *event.Record) { versions = append(versions, r.Position.Version) })
	return versions, err
}

func TestLookup(t *testing.T) {
	t.Parallel()
	m, r, l, all := lookupLog(t)
	check := func(records []found) {
		t.Helper()
		got, err := lookUp(l, records)
		var want []uint64
		for _, f := range records {
			want = append(want, f.version)
		}
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("found %v, %v, want %v", got, err, want)
		}
	}
	check(all)
	check(nil)
	var some []found
	for i := 0; i < len(all); i += 1 + i%7 {
		some = append(some, all[i])
	}
	check(some)
	rand.New(rand.NewPCG(1, 2)).Shuffle(len(some), func(i, j int) { some[i], some[j] = some[j], some[i] })
	check(some)

	for _, s := range r.Log.Segments {
		must(t, m.Remove(s.Name())) // pinned segments stay readable
	}
	check(all)
	l.Unpin(150)
	check(all[99:])
	if _, err := lookUp(l, all[:1]); err == nil {
		t.Error("found a record in a segment that is not pinned")
	}
	l.UnpinAll()
	if len(l.pinned) > 0 {
		t.Errorf("%d segments are pinned", len(l.pinned))
	}
}

func TestLookupOfDamagedRecords(t *testing.T) {
	t.Parallel()
	for name, at := range map[string]uint32{"head": 9, "length": 4, "payload": frameHead + 20} {
		t.Run(name, func(t *testing.T) {
			m, _, l, all := lookupLog(t)
			damaged := all[6].location
			f := m.files[segmentName(1)]
			_, err := f.WriteAt([]byte{0xff}, int64(damaged.Start+at))
			must(t, err)
			got, err := lookUp(l, all[3:10])
			if !errors.Is(err, ErrDamaged) || fmt.Sprint(got) != "[4 5 6]" {
				t.Errorf("found %v, %v, want 4 to 6 and an error", got, err)
			}
			if err != nil && !strings.Contains(err.Error(), fmt.Sprint(damaged.Start)) {
				t.Errorf("error %q does not name the location", err)
			}
			if _, err := lookUp(l, all[7:]); err != nil {
				t.Errorf("records after the damaged one: %v", err)
			}
		})
	}
}
