package app

import (
	"maps"
	"slices"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/hindsight-events/hindsight/event"
	"github.com/hindsight-events/hindsight/internal/config"
	"github.com/hindsight-events/hindsight/journal"
	"github.com/hindsight-events/hindsight/lease"
)

// version is a position in the first epoch of the cluster that is watched.
func version(v uint64) event.Position {
	return event.Position{Epoch: event.Epoch{Cluster: "uid-a"}, Version: v}
}

func record(v uint64) event.Record {
	return event.Record{
		Position: version(v),
		Event:    &corev1.Event{ObjectMeta: metav1.ObjectMeta{ResourceVersion: strconv.FormatUint(v, 10)}},
	}
}

func sinks(names ...string) *config.Config {
	c := config.Default()
	for _, name := range names {
		c.Sinks = append(c.Sinks, config.Sink{Name: name, Start: journal.StartTail})
	}
	return c
}

// standingOf is that of sinks whose journal holds records of the versions given,
// acknowledged by each sink up to a version.
func standingOf(t *testing.T, c *config.Config, held lease.Checkpoint, journaled []uint64, acked map[string]uint64) *standing {
	t.Helper()
	j, err := journal.NewMemory(journal.Options{Consumers: consumers(c)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { j.Close() })
	for _, v := range journaled {
		if err := j.Append(t.Context(), []event.Record{record(v)}); err != nil {
			t.Fatal(err)
		}
	}
	for sink, to := range acked {
		consumer, err := j.Consumer(sink)
		if err != nil {
			t.Fatal(err)
		}
		for read := uint64(0); read < to; {
			var offset uint64
			_, err := consumer.Next(t.Context(), 1, func(e journal.Entry) {
				offset, read = e.Offset, e.Record.Position.Version
			})
			if err != nil {
				t.Fatal(err)
			}
			if err := consumer.Ack(offset); err != nil {
				t.Fatal(err)
			}
		}
	}
	s := newStanding(j, held)
	s.setSinks(c)
	return s
}

func held(positions map[string]uint64, gaps ...event.Gap) lease.Checkpoint {
	h := lease.Checkpoint{Sinks: map[string]map[string]event.Position{}, Gaps: gaps}
	for sink, v := range positions {
		h.Sinks[sink] = map[string]event.Position{"": version(v)}
	}
	return h
}

// known adds a sink that the Lease knows without a position.
func known(sink string, h lease.Checkpoint) lease.Checkpoint {
	h.Sinks[sink] = map[string]event.Position{}
	return h
}

func TestWhereAWatchBegins(t *testing.T) {
	oldest := sinks("loki", "new")
	oldest.Sinks[1].Start = journal.StartOldest
	restored := held(map[string]uint64{"loki": 50, "file": 50})
	for _, positions := range restored.Sinks {
		positions[""] = event.Position{Epoch: event.Epoch{Cluster: "uid-a", Restores: 1}, Version: 50}
	}
	moved := held(map[string]uint64{"loki": 50})
	moved.Sinks["loki"][""] = event.Position{Epoch: event.Epoch{Cluster: "uid-b"}, Version: 50}

	for name, test := range map[string]struct {
		config    *config.Config
		held      lease.Checkpoint
		journaled []uint64
		acked     map[string]uint64

		start  uint64
		behind map[string]uint64
		why    string
	}{
		"nothing is known": {config: sinks("loki"), why: "first start"},
		"the container restarts beside its journal: at the tail, for the journal has the rest": {
			config: sinks("loki", "file"), held: held(map[string]uint64{"loki": 10, "file": 20}),
			journaled: []uint64{10, 20, 30}, acked: map[string]uint64{"loki": 10, "file": 20},
			start: 30, why: "the journal",
		},
		"another pod, in memory: where the sinks were": {
			config: sinks("loki", "file"), held: held(map[string]uint64{"loki": 30, "file": 30}),
			start: 30, why: "the Lease",
		},
		"another pod, and a sink was behind": {
			config: sinks("loki", "file"), held: held(map[string]uint64{"loki": 10, "file": 30}),
			start: 30, behind: map[string]uint64{"loki": 10}, why: "the Lease",
		},
		"back at an old journal: it has what one sink lacks": {
			config: sinks("loki", "file"), held: held(map[string]uint64{"loki": 10, "file": 90}),
			journaled: []uint64{10, 20, 30}, acked: map[string]uint64{"loki": 10, "file": 20},
			start: 90, behind: map[string]uint64{"loki": 30}, why: "the Lease",
		},
		"a new sink beside known ones begins at the newest": {
			config: sinks("loki", "file", "new"), held: held(map[string]uint64{"loki": 10, "file": 30}),
			start: 30, behind: map[string]uint64{"loki": 10}, why: "the Lease",
		},
		"a renamed sink is a new one, although its old name is the only one known": {
			config: sinks("renamed"), held: held(map[string]uint64{"loki": 10}),
			start: 10, why: "the Lease",
		},
		"a new sink that wants the oldest": {
			config: oldest, held: held(map[string]uint64{"loki": 20}), journaled: []uint64{10, 20},
			acked: map[string]uint64{"loki": 20}, start: 20, why: "the journal",
		},
		"a sink that has never accepted anything gets everything": {
			config: sinks("loki", "file"), held: known("loki", held(map[string]uint64{"file": 30})),
			start: 30, behind: map[string]uint64{"loki": 0}, why: "the Lease",
		},
		"the same beside a journal, which has it": {
			config: sinks("loki", "file"), held: known("loki", held(map[string]uint64{"file": 30})),
			journaled: []uint64{10, 20, 30}, acked: map[string]uint64{"file": 30}, start: 30, why: "the journal",
		},
		"the same without a Lease": {
			config:    sinks("loki", "file"),
			journaled: []uint64{10, 20, 30}, acked: map[string]uint64{"file": 30}, start: 30, why: "the journal",
		},
		"the Lease is of a later epoch": {
			config: sinks("loki", "file"), held: restored, journaled: []uint64{10, 900},
			start: 50, why: "the Lease",
		},
		"the journal is of another cluster": {
			config: sinks("loki"), held: moved, journaled: []uint64{10, 900}, start: 50, why: "the Lease",
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := standingOf(t, test.config, test.held, test.journaled, test.acked)
			got := s.from("")
			behind := map[string]uint64{}
			for sink, p := range got.behind {
				behind[sink] = p.Version
			}
			if s.seen("loki") != nil && test.why == "the journal" {
				t.Error("what the journal holds is held back from a sink that lacks it")
			}
			if got.start.Version != test.start || !maps.Equal(behind, test.behind) || got.why != test.why {
				t.Errorf("got version %d, behind %v, from %s; want %d, %v, %s", got.start.Version, behind, got.why, test.start, test.behind, test.why)
			}
		})
	}
}

func TestANamespaceInheritsThePositionOfAll(t *testing.T) {
	c := sinks("loki")
	c.Source.Namespaces = []string{"team-a"}
	s := standingOf(t, c, held(map[string]uint64{"loki": 10}), nil, nil)
	if got := s.from("team-a").start; got.Version != 10 {
		t.Errorf("begins at %s, want version 10", got)
	}
	s = standingOf(t, c, lease.Checkpoint{}, []uint64{20}, nil)
	if got := s.from("team-a").start; got.Version != 20 {
		t.Errorf("begins at %s, want version 20", got)
	}
}

// What a sink was given by another replica is not given to it again, unless that
// replica had declared a gap there.
func TestWhatASinkHasSeen(t *testing.T) {
	gap := event.Gap{From: version(20), To: version(50), Cause: event.CauseTooOld}
	others := event.Gap{From: version(70), To: version(80), Cause: event.CauseTooOld, Sink: "file"}
	s := standingOf(t, sinks("loki", "file"), held(map[string]uint64{"loki": 90, "file": 10}, gap, others),
		[]uint64{10, 20, 30, 40}, map[string]uint64{"loki": 10, "file": 10})
	if s.seen("file") != nil {
		t.Error("something is held back from a sink that stands at its own cursor")
	}
	seen := s.seen("loki")
	if seen == nil {
		t.Fatal("nothing is held back")
	}
	for v, want := range map[uint64]bool{15: true, 20: true, 21: false, 50: false, 51: true, 75: true, 90: true, 91: false} {
		if r := record(v); seen(&r) != want {
			t.Errorf("version %d: seen is %t, want %t", v, !want, want)
		}
	}
	later := record(15)
	later.Position.Epoch.Restores++
	if seen(&later) {
		t.Error("a state of a later epoch is held back")
	}
}

// The positions of namespaces that are not listed any more ride in the Lease for a
// day, whoever leads meanwhile, and are then removed.
func TestPositionsOfNamespacesThatAreNotListed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		list := func(namespaces ...string) *config.Config {
			c := sinks("loki")
			c.Source.Namespaces = namespaces
			return c
		}
		wantSources := func(h lease.Checkpoint, want ...string) {
			t.Helper()
			if got := slices.Sorted(maps.Keys(h.Sinks["loki"])); !slices.Equal(got, want) {
				t.Errorf("the Lease has positions of %v, want %v", got, want)
			}
		}
		at := func(sources ...string) lease.Checkpoint {
			h := lease.Checkpoint{Sinks: map[string]map[string]event.Position{"loki": {}}}
			for _, source := range sources {
				h.Sinks["loki"][source] = version(10)
			}
			return h
		}
		s := standingOf(t, list("a", "b"), at("a", "b", "c"), nil, nil)
		time.Sleep(time.Hour)
		wantSources(s.hold(), "a", "b", "c")
		s.setSinks(list("a"))
		time.Sleep(22 * time.Hour)

		// Another replica leads, then one whose journal knows what the Lease forgot.
		s = standingOf(t, list("a"), s.hold(), nil, nil)
		wantSources(s.hold(), "a", "b", "c")
		time.Sleep(time.Hour)
		wantSources(s.hold(), "a", "b")
		time.Sleep(time.Hour)
		wantSources(s.hold(), "a")
		if unlisted := s.hold().RemovedSources; len(unlisted) != 0 {
			t.Errorf("the Lease still says since when %v are not listed", unlisted)
		}
		s = standingOf(t, list("a"), s.hold(), []uint64{20}, map[string]uint64{"loki": 20})
		wantSources(s.hold(), "a")

		// Listed again in time, it has its position, and the day begins anew.
		s = standingOf(t, list("a"), at("a", "b"), nil, nil)
		time.Sleep(23 * time.Hour)
		s.setSinks(list("a", "b"))
		if start := s.from("b").start; start != version(10) {
			t.Errorf("begins at %s, want its position", start)
		}
		time.Sleep(23 * time.Hour)
		s.setSinks(list("a"))
		time.Sleep(23 * time.Hour)
		wantSources(s.hold(), "a", "b")
	})
}

// A sink that the configuration does not have any more had not got everything if
// another one was further.
func TestSinksThatWereRemoved(t *testing.T) {
	s := standingOf(t, sinks("loki"), known("empty", held(map[string]uint64{"loki": 30, "level": 30, "behind": 10})), nil, nil)
	want := map[string]bool{"level": false, "behind": true, "empty": true}
	if got := s.removedSinks(sinks("loki")); !maps.Equal(got, want) {
		t.Errorf("removed, and behind: %v, want %v", got, want)
	}
}

// Whoever takes over next begins where each sink is, not where it was when this
// replica took over, and learns of all gaps.
func TestWhatTheLeaseIsToldAgain(t *testing.T) {
	s := standingOf(t, sinks("loki", "file"), held(map[string]uint64{"loki": 10, "file": 30, "removed": 5}, event.Gap{To: version(5)}),
		[]uint64{10, 20}, map[string]uint64{"loki": 20})
	s.declare(event.Gap{From: version(5), To: version(9)})
	got := s.hold()
	if v := got.Sinks["loki"][""].Version; v != 20 {
		t.Errorf("loki at %d, want what it acknowledged, 20", v)
	}
	if v := got.Sinks["file"][""].Version; v != 30 {
		t.Errorf("file at %d, want what the Lease said, 30", v)
	}
	if _, there := got.Sinks["removed"]; there {
		t.Error("a sink that is gone is still there")
	}
	if len(got.Gaps) != 2 {
		t.Errorf("%d gaps, want 2", len(got.Gaps))
	}
	// The end of a gap takes the place of the same gap without one.
	open := event.Gap{From: version(9), To: event.Position{Time: time.Unix(60, 0).UTC()}, Cause: event.CauseStalled}
	s.declare(open)
	if got := s.hold(); len(got.Gaps) != 3 || !got.Gaps.Contains("loki", "", version(1000)) {
		t.Errorf("gaps %+v, want one more, without an end", got.Gaps)
	}
	open.To = version(12)
	s.declare(open)
	if got := s.hold(); len(got.Gaps) != 3 || got.Gaps.Contains("loki", "", version(13)) {
		t.Errorf("gaps %+v, want the last one to end", got.Gaps)
	}
}
