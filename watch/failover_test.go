package watch

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hindsight-events/hindsight/event"
	"github.com/hindsight-events/hindsight/test/nightly"
)

// sinkModel is what a sink does with the records: it takes those that are for it
// and leaves out what it has.
type sinkModel struct {
	position event.Position
	states   map[uint64]bool // versions
	order    []uint64
	gaps     [][2]uint64 // after the first version, up to the second
}

// take takes one record of a sink of that name.
func (s *sinkModel) take(t *testing.T, name string, r event.Record) {
	t.Helper()
	if r.OnlySink != "" && r.OnlySink != name {
		return
	}
	if r.Position.Version < s.position.Version || r.Position.Version == s.position.Version && !r.Gap && !r.PositionOnly() {
		return
	}
	switch {
	case r.Gap:
		s.gaps = append(s.gaps, [2]uint64{annotation(r, "from_version"), annotation(r, "to_version")})
	case !r.PositionOnly():
		version, err := strconv.ParseUint(r.Event.ResourceVersion, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		if s.states[version] {
			t.Errorf("%s: version %d came twice", name, version)
		}
		s.states[version] = true
		s.order = append(s.order, version)
	}
	s.position = r.Position
}

func annotation(r event.Record, name string) uint64 {
	v, _ := strconv.ParseUint(r.Event.Annotations["hindsight/"+name], 10, 64)
	return v
}

// missing returns a state that neither came nor lies in a gap.
func (s *sinkModel) missing(after uint64, history []change) (uint64, bool) {
next:
	for _, c := range history {
		if c.version <= after || s.states[c.version] || c.kind == "DELETED" {
			continue
		}
		for _, gap := range s.gaps {
			if gap[0] < c.version && c.version <= gap[1] {
				continue next
			}
		}
		return c.version, true
	}
	return 0, false
}

// One process after the other takes over where the sinks of the one before were
// left, each somewhere else, also in the middle of a list, while the cluster
// writes and etcd is compacted. Every state comes once to each sink, in order,
// or lies in a gap that the sink was told of; what the API server still holds
// comes in any case; and a sink from whose position the API server could replay
// is told of no gap.
func TestFailovers(t *testing.T) {
	for seed := range uint64(nightly.Size(10, 40)) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { failovers(t, rand.New(rand.NewPCG(seed, 0))) })
		})
	}
}

func failovers(t *testing.T, random *rand.Rand) {
	a := newAPI(t)
	a.write("first")
	begin := a.version
	names := []string{"loki", "file", "stdout", "dead"}
	sinks := map[string]*sinkModel{}
	for _, name := range names {
		sinks[name] = &sinkModel{position: at(begin), states: map[uint64]bool{}}
	}
	write := func() {
		for range random.IntN(12) {
			name := "e" + strconv.Itoa(random.IntN(6))
			a.mu.Lock()
			exists := a.stateAt(name, a.version) != nil
			a.mu.Unlock()
			if exists && random.IntN(6) == 0 {
				a.remove(name)
			} else {
				a.write(name)
			}
			a.touch(random.Uint64N(3))
		}
	}
	compact := func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		if oldest := max(a.compacted, begin); oldest < a.version {
			a.compacted = oldest + random.Uint64N(a.version-oldest)
		}
	}
	const processes = 12
	for n := range processes {
		write()
		if random.IntN(2) == 0 {
			compact()
		}
		// Sometimes etcd is compacted while the sinks are brought together.
		compactAt := random.IntN(20)
		requests := 0
		a.intercept = func(http.ResponseWriter, *http.Request) bool {
			if requests++; requests == compactAt {
				compact()
			}
			return false
		}
		start, behind := at(0), map[string]event.Position{}
		for _, s := range sinks {
			if s.position.Compare(start) > 0 {
				start = s.position
			}
		}
		gaps := map[string]int{}
		for _, name := range names {
			s := sinks[name]
			if s.position.Compare(start) < 0 {
				behind[name] = s.position
			}
			gaps[name] = -1
			// Of two sinks at one version, one may have been told of a gap that the other,
			// which is taken to be further, has not been told of yet. That one makes a
			// list of its own necessary, for all.
			if again := s.position.Version == start.Version && s.position.ListVersion > start.ListVersion; watchVersion(s.position) >= a.compacted && !again {
				gaps[name] = len(s.gaps)
			}
		}
		r := run(a, start, sinksAt(behind))
		time.Sleep(time.Minute)
		synctest.Wait()
		write()
		time.Sleep(positionFlushInterval)
		synctest.Wait()
		if err := r.stop(); err != nil {
			t.Fatal(err)
		}
		records := r.journal.all()
		for _, name := range names {
			s := sinks[name]
			taken := len(records)
			if n < processes-1 && random.IntN(3) > 0 {
				taken = random.IntN(len(records) + 1)
			}
			if name == "dead" && n%4 != 3 {
				taken = 0
			}
			for _, rec := range records[:taken] {
				s.take(t, name, rec)
			}
			if want := gaps[name]; want >= 0 && len(s.gaps) != want && requests < compactAt {
				t.Errorf("process %d: %s is told of a gap, though it could be replayed from %s to %s", n, name, behind[name], start)
			}
		}
	}
	for _, name := range names {
		s := sinks[name]
		if last := a.history[len(a.history)-1].version; s.position.Version < last || s.position.ListVersion != 0 {
			t.Errorf("%s ends at %s, want %d", name, s.position, last)
		}
		for i, version := range s.order {
			if i > 0 && version <= s.order[i-1] {
				t.Errorf("%s: version %d after %d", name, version, s.order[i-1])
			}
		}
		if version, ok := s.missing(begin, a.history); ok {
			t.Errorf("%s: version %d never came and lies in no gap", name, version)
		}
		for _, c := range a.history {
			if a.stateAt(c.event.Name, a.version) == c.event && c.version > begin && !s.states[c.version] {
				t.Errorf("%s: the API server holds version %d, which never came", name, c.version)
			}
		}
	}
}
