package storage

import (
	"fmt"
	"maps"
	"testing"

	"github.com/hindsight-events/hindsight/event"
)

func TestRecovery(t *testing.T) {
	t.Parallel()
	// Records 1 to 9, in segments of three, and a last group of 10 to 12.
	write := func(t *testing.T) (m *Memory, last string) {
		m = NewMemory()
		r := mustRecover(t, m)
		for v := uint64(1); v <= 9; v++ {
			if v == 4 || v == 7 {
				r.startSegment(t)
			}
			r.write(t, record(v, 100))
		}
		r.write(t, records(10, 12, 100)...)
		return m, r.Log.Last().Name()
	}
	m, last := write(t)
	r := mustRecover(t, m)
	frames := map[uint64]Location{}
	for _, f := range readAll(t, m, r.Log) {
		frames[f.version] = f.location
	}
	start := func(v uint64) int { return int(frames[v].Start) }
	end := func(v uint64) int { return int(frames[v].Start + frames[v].Bytes) }
	size := int(r.Log.Size)

	for _, c := range []struct {
		name      string
		damage    func(b []byte) []byte // of the last segment
		next      uint64
		position  uint64
		truncated int
	}{
		{"intact", func(b []byte) []byte { return b }, 13, 12, 0},
		{"last record incomplete", func(b []byte) []byte { return b[:end(12)-1] }, 12, 11, end(12) - 1 - start(12)},
		{"last head incomplete", func(b []byte) []byte { return b[:start(12)+frameHead-1] }, 12, 11, frameHead - 1},
		{"garbage after the end", func(b []byte) []byte { return append(b, make([]byte, 500)...) }, 13, 12, 500},
		{
			"hole in the last group",
			func(b []byte) []byte { b[start(11)+60]++; return b }, 11, 10, size - start(11),
		},
		{
			"hole at the start of the last group",
			func(b []byte) []byte { b[start(10)+60]++; return b }, 10, 9, size - start(10),
		},
		{
			"hole before the last group",
			func(b []byte) []byte { b[start(9)+60]++; return b }, 13, 12, 0,
		},
		{"damaged header", func(b []byte) []byte { b[5]++; return b }, 13, 12, 0},
		{"empty", func([]byte) []byte { return nil }, 7, 6, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			m, _ := write(t)
			put(t, m, last, c.damage(content(t, m, last)))
			for i := range 2 { // the second recovery finds nothing to do
				r := mustRecover(t, m)
				if r.Next != c.next || r.Positions[""] != positionAt(c.position) {
					t.Errorf("recovered up to %d at %v, want %d at version %d", r.Next, r.Positions[""], c.next, c.position)
				}
				if want := int64(c.truncated * (1 - i)); r.TruncatedBytes != want {
					t.Errorf("truncated %d bytes, want %d", r.TruncatedBytes, want)
				}
			}
			r := mustRecover(t, m)
			r.write(t, record(100, 100))
			if all := readAll(t, m, r.Log); all[len(all)-1].version != 100 || all[len(all)-1].offset != c.next {
				t.Errorf("appended record is %+v", all[len(all)-1])
			}
		})
	}
}

func TestRecoveryOfPositions(t *testing.T) {
	t.Parallel()
	m := NewMemory()
	r := mustRecover(t, m)
	want := map[string]event.Position{}
	for v := uint64(1); v <= 9; v++ {
		rec := record(v, 100)
		rec.Source = []string{"loki", "tempo", "mimir"}[v%3]
		if v == 4 || v == 7 {
			r.startSegment(t)
		}
		r.write(t, rec)
		want[rec.Source] = rec.Position
	}
	r.startSegment(t)
	tempo := event.Record{Source: "tempo", Position: positionAt(20)}
	r.write(t, tempo)
	want["tempo"] = tempo.Position
	for n := range 4 {
		damaged := clone(t, m)
		for _, s := range r.Log.Segments[len(r.Log.Segments)-n:] {
			b := content(t, damaged, s.Name())
			b[3] = 'x'
			put(t, damaged, s.Name(), b)
		}
		if got := mustRecover(t, damaged).Positions; !maps.Equal(got, want) {
			t.Errorf("with %d damaged headers: positions %v, want %v", n, got, want)
		}
	}
}

func TestRecoveryRemovesUnfinishedFiles(t *testing.T) {
	t.Parallel()
	m := NewMemory()
	mustRecover(t, m).write(t, record(1, 10))
	put(t, m, segmentName(2)+tempSuffix, []byte("unfinished"))
	put(t, m, "a.cursor.tmp", []byte("unfinished"))
	put(t, m, "README", []byte("foreign"))
	mustRecover(t, m)
	names, _ := m.List()
	if want := fmt.Sprint([]string{segmentName(1), "README"}); fmt.Sprint(names) != want {
		t.Errorf("files %v, want %s", names, want)
	}
}
