package resume

import (
	"maps"
	"slices"
	"strconv"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/hindsight-events/hindsight/event"
	"github.com/hindsight-events/hindsight/journal"
	"github.com/hindsight-events/hindsight/lease"
)

// version is a position in the first epoch of the watched cluster.
func version(v uint64) event.Position {
	return event.Position{Epoch: event.Epoch{Cluster: "uid-a"}, Version: v}
}

func record(v uint64) event.Record {
	return event.Record{
		Position: version(v),
		Event:    &corev1.Event{ObjectMeta: metav1.ObjectMeta{ResourceVersion: strconv.FormatUint(v, 10)}},
	}
}

func consumers(names ...string) (all []journal.ConsumerOptions) {
	for _, name := range names {
		all = append(all, journal.ConsumerOptions{Name: name, Start: journal.StartTail})
	}
	return all
}

// setup describes the state that a leader finds.
type setup struct {
	sinks      []journal.ConsumerOptions
	sources    []string // default: all namespaces
	checkpoint lease.Checkpoint
	journaled  []uint64          // versions
	acked      map[string]uint64 // by sink: up to this version
}

func (s setup) tracker(t *testing.T) *Tracker {
	t.Helper()
	j, err := journal.NewMemory(journal.Options{Consumers: s.sinks})
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close() // a Tracker only reads from it
	for _, v := range s.journaled {
		if err := j.Append(t.Context(), []event.Record{record(v)}); err != nil {
			t.Fatal(err)
		}
	}
	for sink, to := range s.acked {
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
	if s.sources == nil {
		s.sources = []string{""}
	}
	tracker := New(j, s.checkpoint)
	tracker.Configure(s.sinks, s.sources)
	return tracker
}

func checkpoint(versions map[string]uint64, gaps ...event.Gap) lease.Checkpoint {
	c := lease.Checkpoint{Sinks: map[string]map[string]event.Position{}, Gaps: gaps}
	for sink, v := range versions {
		c.Sinks[sink] = map[string]event.Position{"": version(v)}
	}
	return c
}

// withoutPosition adds a sink that has accepted nothing yet.
func withoutPosition(sink string, c lease.Checkpoint) lease.Checkpoint {
	c.Sinks[sink] = map[string]event.Position{}
	return c
}

func versions(positions map[string]event.Position) map[string]uint64 {
	v := map[string]uint64{}
	for sink, p := range positions {
		v[sink] = p.Version
	}
	return v
}

func TestPoint(t *testing.T) {
	oldest := consumers("loki", "new")
	oldest[1].Start = journal.StartOldest
	restored := checkpoint(map[string]uint64{"loki": 50, "file": 50})
	for _, positions := range restored.Sinks {
		positions[""] = event.Position{Epoch: event.Epoch{Cluster: "uid-a", Restores: 1}, Version: 50}
	}
	otherCluster := checkpoint(map[string]uint64{"loki": 50})
	otherCluster.Sinks["loki"][""] = event.Position{Epoch: event.Epoch{Cluster: "uid-b"}, Version: 50}

	for name, test := range map[string]struct {
		setup
		start  uint64
		behind map[string]uint64
		reason string
	}{
		"no checkpoint and an empty journal": {
			setup: setup{sinks: consumers("loki")}, reason: "first start",
		},
		"a restart with the same journal": {
			setup: setup{
				sinks: consumers("loki", "file"), checkpoint: checkpoint(map[string]uint64{"loki": 10, "file": 20}),
				journaled: []uint64{10, 20, 30}, acked: map[string]uint64{"loki": 10, "file": 20},
			},
			start: 30, reason: "the journal",
		},
		"a failover with an empty journal": {
			setup: setup{sinks: consumers("loki", "file"), checkpoint: checkpoint(map[string]uint64{"loki": 30, "file": 30})},
			start: 30, reason: "the Lease",
		},
		"a failover while a sink is behind": {
			setup: setup{sinks: consumers("loki", "file"), checkpoint: checkpoint(map[string]uint64{"loki": 10, "file": 30})},
			start: 30, behind: map[string]uint64{"loki": 10}, reason: "the Lease",
		},
		"an old journal has some of the states that a sink lacks": {
			setup: setup{
				sinks: consumers("loki", "file"), checkpoint: checkpoint(map[string]uint64{"loki": 10, "file": 90}),
				journaled: []uint64{10, 20, 30}, acked: map[string]uint64{"loki": 10, "file": 20},
			},
			start: 90, behind: map[string]uint64{"loki": 30}, reason: "the Lease",
		},
		"a new sink starts at the latest position": {
			setup: setup{sinks: consumers("loki", "file", "new"), checkpoint: checkpoint(map[string]uint64{"loki": 10, "file": 30})},
			start: 30, behind: map[string]uint64{"loki": 10}, reason: "the Lease",
		},
		"a renamed sink is a new sink": {
			setup: setup{sinks: consumers("renamed"), checkpoint: checkpoint(map[string]uint64{"loki": 10})},
			start: 10, reason: "the Lease",
		},
		"a new sink with start: oldest": {
			setup: setup{
				sinks: oldest, checkpoint: checkpoint(map[string]uint64{"loki": 20}),
				journaled: []uint64{10, 20}, acked: map[string]uint64{"loki": 20},
			},
			start: 20, reason: "the journal",
		},
		"a sink that has accepted nothing gets everything": {
			setup: setup{
				sinks: consumers("loki", "file"), checkpoint: withoutPosition("loki", checkpoint(map[string]uint64{"file": 30})),
			},
			start: 30, behind: map[string]uint64{"loki": 0}, reason: "the Lease",
		},
		"a sink that has accepted nothing gets it from the journal": {
			setup: setup{
				sinks: consumers("loki", "file"), checkpoint: withoutPosition("loki", checkpoint(map[string]uint64{"file": 30})),
				journaled: []uint64{10, 20, 30}, acked: map[string]uint64{"file": 30},
			},
			start: 30, reason: "the journal",
		},
		"a sink that has accepted nothing, without leader election": {
			setup: setup{
				sinks:     consumers("loki", "file"),
				journaled: []uint64{10, 20, 30}, acked: map[string]uint64{"file": 30},
			},
			start: 30, reason: "the journal",
		},
		"a checkpoint of a later epoch": {
			setup: setup{sinks: consumers("loki", "file"), checkpoint: restored, journaled: []uint64{10, 900}},
			start: 50, reason: "the Lease",
		},
		"a journal of another cluster": {
			setup: setup{sinks: consumers("loki"), checkpoint: otherCluster, journaled: []uint64{10, 900}},
			start: 50, reason: "the Lease",
		},
	} {
		t.Run(name, func(t *testing.T) {
			tracker := test.tracker(t)
			got := tracker.Point("")
			if got.Start.Version != test.start || !maps.Equal(versions(got.Sinks), test.behind) || got.Reason != test.reason {
				t.Errorf("got version %d, sinks %v, reason %q; want %d, %v, %q",
					got.Start.Version, versions(got.Sinks), got.Reason, test.start, test.behind, test.reason)
			}
			if tracker.AlreadyDelivered("loki") != nil && test.reason == "the journal" {
				t.Error("records of the journal are skipped for a sink that lacks them")
			}
		})
	}
}

// The example in the package's documentation.
func TestExample(t *testing.T) {
	sinks := consumers("loki", "file")
	replicaB := setup{sinks: sinks, checkpoint: checkpoint(map[string]uint64{"loki": 100, "file": 40})}.tracker(t)
	if p := replicaB.Point(""); p.Start != version(100) || !maps.Equal(versions(p.Sinks), map[string]uint64{"file": 40}) {
		t.Errorf("B resumes from %s, sinks %v", p.Start, p.Sinks)
	}

	var journaled []uint64
	for v := range uint64(100) {
		journaled = append(journaled, v+1)
	}
	replicaA := setup{
		sinks:      sinks,
		checkpoint: checkpoint(map[string]uint64{"loki": 150, "file": 120}, event.Gap{Sink: "file", From: version(40), To: version(60)}),
		journaled:  journaled, acked: map[string]uint64{"loki": 100, "file": 40},
	}.tracker(t)
	if p := replicaA.Point(""); p.Start != version(150) || !maps.Equal(versions(p.Sinks), map[string]uint64{"file": 120}) {
		t.Errorf("A resumes from %s, sinks %v", p.Start, p.Sinks)
	}
	skip := replicaA.AlreadyDelivered("file")
	for v := uint64(41); v <= 100; v++ {
		if r := record(v); skip(&r) != (v > 60) {
			t.Errorf("version %d: skipped for file is %t", v, v <= 60)
		}
	}
	for sink, want := range map[string]uint64{"loki": 150, "file": 120} {
		if got := replicaA.Snapshot().Sinks[sink][""]; got != version(want) {
			t.Errorf("A's checkpoint of %s is %s, want version %d", sink, got, want)
		}
	}
}

func TestNamespaceInheritsThePositionOfAllNamespaces(t *testing.T) {
	s := setup{sinks: consumers("loki"), sources: []string{"team-a"}, checkpoint: checkpoint(map[string]uint64{"loki": 10})}
	if got := s.tracker(t).Point("team-a").Start; got.Version != 10 {
		t.Errorf("resumes from %s, want the checkpoint's version 10", got)
	}
	s = setup{sinks: consumers("loki"), sources: []string{"team-a"}, journaled: []uint64{20}}
	if got := s.tracker(t).Point("team-a").Start; got.Version != 20 {
		t.Errorf("resumes from %s, want the journal's version 20", got)
	}
}

func TestAlreadyDelivered(t *testing.T) {
	gap := event.Gap{From: version(20), To: version(50), Cause: event.CauseTooOld}
	gapOfFile := event.Gap{From: version(70), To: version(80), Cause: event.CauseTooOld, Sink: "file"}
	tracker := setup{
		sinks:      consumers("loki", "file"),
		checkpoint: checkpoint(map[string]uint64{"loki": 90, "file": 10}, gap, gapOfFile),
		journaled:  []uint64{10, 20, 30, 40}, acked: map[string]uint64{"loki": 10, "file": 10},
	}.tracker(t)
	if tracker.AlreadyDelivered("file") != nil {
		t.Error("records are skipped for a sink whose checkpoint is at its cursor")
	}
	skip := tracker.AlreadyDelivered("loki")
	if skip == nil {
		t.Fatal("no records are skipped")
	}
	for v, want := range map[uint64]bool{15: true, 20: true, 21: false, 50: false, 51: true, 75: true, 90: true, 91: false} {
		if r := record(v); skip(&r) != want {
			t.Errorf("version %d: skipped is %t, want %t", v, !want, want)
		}
	}
	afterRestore := record(15)
	afterRestore.Position.Epoch.Restores++
	if skip(&afterRestore) {
		t.Error("a state of a later epoch is skipped")
	}
}

func TestRemovedWithBacklog(t *testing.T) {
	tracker := setup{
		sinks:      consumers("loki"),
		checkpoint: withoutPosition("empty", checkpoint(map[string]uint64{"loki": 30, "level": 30, "behind": 10})),
	}.tracker(t)
	if got, want := tracker.RemovedWithBacklog(consumers("loki")), []string{"behind", "empty"}; !slices.Equal(got, want) {
		t.Errorf("removed with a backlog: %v, want %v", got, want)
	}
}

func TestSnapshot(t *testing.T) {
	tracker := setup{
		sinks:      consumers("loki", "file"),
		checkpoint: checkpoint(map[string]uint64{"loki": 10, "file": 30, "removed": 5}, event.Gap{To: version(5)}),
		journaled:  []uint64{10, 20}, acked: map[string]uint64{"loki": 20},
	}.tracker(t)
	tracker.RecordGap(event.Gap{From: version(5), To: version(9)})
	got := tracker.Snapshot()
	if v := got.Sinks["loki"][""].Version; v != 20 {
		t.Errorf("loki is at %d, want its cursor, 20", v)
	}
	if v := got.Sinks["file"][""].Version; v != 30 {
		t.Errorf("file is at %d, want its checkpoint, 30", v)
	}
	if _, present := got.Sinks["removed"]; present {
		t.Error("a removed sink is still present")
	}
	if len(got.Gaps) != 2 {
		t.Errorf("%d gaps, want 2", len(got.Gaps))
	}
}

// A gap replaces the same gap without an end.
func TestRecordGap(t *testing.T) {
	tracker := setup{sinks: consumers("loki")}.tracker(t)
	open := event.Gap{From: version(9), To: event.Position{Time: time.Unix(60, 0).UTC()}, Cause: event.CauseStalled}
	tracker.RecordGap(open)
	if got := tracker.Snapshot().Gaps; len(got) != 1 || !got.Contains("loki", "", version(1000)) {
		t.Errorf("gaps %+v, want one without an end", got)
	}
	open.To = version(12)
	tracker.RecordGap(open)
	tracker.RecordGap(open)
	if got := tracker.Gaps(); len(got) != 1 || got.Contains("loki", "", version(13)) {
		t.Errorf("gaps %+v, want one that ends at 12", got)
	}
}
