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
	"github.com/hindsight-events/hindsight/test/fakeapi"
	"github.com/hindsight-events/hindsight/test/nightly"
)

// sinkModel models a sink: it accepts the records for it and skips those that it has.
type sinkModel struct {
	position event.Position
	states   map[uint64]bool // versions
	order    []uint64
	gaps     [][2]uint64 // from (exclusive), to (inclusive)
}

// apply delivers one record to the sink.
func (s *sinkModel) apply(t *testing.T, name string, r event.Record) {
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
			t.Errorf("%s: version %d was delivered twice", name, version)
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

// missing returns a state that was not delivered and is not in a gap.
func (s *sinkModel) missing(after uint64, history []fakeapi.Change) (uint64, bool) {
next:
	for _, c := range history {
		if c.Version <= after || s.states[c.Version] || c.Type == "DELETED" {
			continue
		}
		for _, gap := range s.gaps {
			if gap[0] < c.Version && c.Version <= gap[1] {
				continue next
			}
		}
		return c.Version, true
	}
	return 0, false
}

// A sequence of processes, each of which resumes from the different positions of its sinks, also
// within lists, while the cluster writes and etcd is compacted. Each sink gets each state once and
// in order, or a gap record that covers it. It gets all states that the API server still holds. A
// sink with a replayable position gets no gap record.
func TestFailovers(t *testing.T) {
	t.Parallel()
	for seed := range uint64(nightly.Size(10, 40)) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) { failovers(t, rand.New(rand.NewPCG(seed, 0))) })
		})
	}
}

func failovers(t *testing.T, random *rand.Rand) {
	a := newAPI(t)
	a.write("first")
	begin := a.Version()
	names := []string{"loki", "file", "stdout", "dead"}
	sinks := map[string]*sinkModel{}
	for _, name := range names {
		sinks[name] = &sinkModel{position: at(begin), states: map[uint64]bool{}}
	}
	write := func() {
		for range random.IntN(12) {
			name := "e" + strconv.Itoa(random.IntN(6))
			if a.state(name) != nil && random.IntN(6) == 0 {
				a.remove(name)
			} else {
				a.write(name)
			}
			a.Advance(random.Uint64N(3))
		}
	}
	compact := func() {
		if oldest := max(a.Compacted(), begin); oldest < a.Version() {
			a.Compact(oldest + random.Uint64N(a.Version()-oldest))
		}
	}
	const processes = 12
	for n := range processes {
		write()
		if random.IntN(2) == 0 {
			compact()
		}
		// Sometimes etcd is compacted while the sinks are aligned.
		compactAt := random.IntN(20)
		requests := 0
		a.Intercept(func(http.ResponseWriter, *http.Request) bool {
			if requests++; requests == compactAt {
				compact()
			}
			return false
		})
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
			// Of two sinks at one version, one may have a gap record that the other one, which
			// counts as further ahead, does not have yet, so that a list for all is necessary.
			if again := s.position.Version == start.Version && s.position.ListVersion > start.ListVersion; watchVersion(s.position) >= a.Compacted() && !again {
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
			accepted := len(records)
			if n < processes-1 && random.IntN(3) > 0 {
				accepted = random.IntN(len(records) + 1)
			}
			if name == "dead" && n%4 != 3 {
				accepted = 0
			}
			for _, rec := range records[:accepted] {
				s.apply(t, name, rec)
			}
			if want := gaps[name]; want >= 0 && len(s.gaps) != want && requests < compactAt {
				t.Errorf("process %d: %s got a gap record, although it could be replayed from %s to %s", n, name, behind[name], start)
			}
		}
	}
	history := a.History()
	for _, name := range names {
		s := sinks[name]
		if last := history[len(history)-1].Version; s.position.Version < last || s.position.ListVersion != 0 {
			t.Errorf("%s ends at %s, want %d", name, s.position, last)
		}
		for i, version := range s.order {
			if i > 0 && version <= s.order[i-1] {
				t.Errorf("%s: version %d after %d", name, version, s.order[i-1])
			}
		}
		if version, ok := s.missing(begin, history); ok {
			t.Errorf("%s: version %d was not delivered and is in no gap", name, version)
		}
		for _, c := range history {
			if a.state(c.Event.Name) == c.Event && c.Version > begin && !s.states[c.Version] {
				t.Errorf("%s: the API server holds version %d, which was not delivered", name, c.Version)
			}
		}
	}
}
