package resume

import (
	"maps"
	"reflect"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hindsight-events/hindsight/event"
	"github.com/hindsight-events/hindsight/lease"
)

// The checkpoint keeps the positions of removed namespaces for a day, across failovers.
func TestRemovedNamespaces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		wantSources := func(c lease.Checkpoint, want ...string) {
			t.Helper()
			if got := slices.Sorted(maps.Keys(c.Sinks["loki"])); !slices.Equal(got, want) {
				t.Errorf("the checkpoint has positions of %v, want %v", got, want)
			}
		}
		positions := func(sources ...string) lease.Checkpoint {
			c := lease.Checkpoint{Sinks: map[string]map[string]event.Position{"loki": {}}}
			for _, source := range sources {
				c.Sinks["loki"][source] = version(10)
			}
			return c
		}
		sinks := consumers("loki")
		tracker := setup{sinks: sinks, sources: []string{"a", "b"}, checkpoint: positions("a", "b", "c")}.tracker(t)
		time.Sleep(time.Hour)
		wantSources(tracker.Snapshot(), "a", "b", "c")
		tracker.Configure(sinks, []string{"a"})
		time.Sleep(22 * time.Hour)

		// Another replica leads.
		tracker = setup{sinks: sinks, sources: []string{"a"}, checkpoint: tracker.Snapshot()}.tracker(t)
		wantSources(tracker.Snapshot(), "a", "b", "c")
		time.Sleep(time.Hour)
		wantSources(tracker.Snapshot(), "a", "b")
		time.Sleep(time.Hour)
		wantSources(tracker.Snapshot(), "a")
		if removed := tracker.Snapshot().RemovedSources; len(removed) != 0 {
			t.Errorf("the checkpoint still has the removed sources %v", removed)
		}

		// The journal of the next leader still has a position that was pruned.
		tracker = setup{
			sinks: sinks, sources: []string{"a"}, checkpoint: tracker.Snapshot(),
			journaled: []uint64{20}, acked: map[string]uint64{"loki": 20},
		}.tracker(t)
		wantSources(tracker.Snapshot(), "a")

		// A namespace that is configured again in time has its position, and its day starts anew.
		tracker = setup{sinks: sinks, sources: []string{"a"}, checkpoint: positions("a", "b")}.tracker(t)
		time.Sleep(23 * time.Hour)
		tracker.Configure(sinks, []string{"a", "b"})
		if start := tracker.Point("b").Start; start != version(10) {
			t.Errorf("resumes from %s, want its position", start)
		}
		time.Sleep(23 * time.Hour)
		tracker.Configure(sinks, []string{"a"})
		time.Sleep(23 * time.Hour)
		wantSources(tracker.Snapshot(), "a", "b")
	})
}

func TestPrune(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	day, hour := now.Add(-24*time.Hour), now.Add(-time.Hour)
	for name, test := range map[string]struct {
		configured []string
		sinks      map[string][]string
		removed    map[string]time.Time

		want        map[string][]string
		wantRemoved map[string]time.Time
	}{
		"all are configured": {
			configured: []string{"a", "b"}, sinks: map[string][]string{"loki": {"a", "b"}},
			want: map[string][]string{"loki": {"a", "b"}},
		},
		"kept for a day": {
			configured: []string{"a"}, sinks: map[string][]string{"loki": {"a", "b", "c"}, "file": {"a", "c"}},
			removed: map[string]time.Time{"b": hour, "c": day},
			want:    map[string][]string{"loki": {"a", "b"}, "file": {"a"}}, wantRemoved: map[string]time.Time{"b": hour},
		},
		"all namespaces were removed and each configured one has a position": {
			configured: []string{"a"}, sinks: map[string][]string{"loki": {"", "a"}}, removed: map[string]time.Time{"": day},
			want: map[string][]string{"loki": {"a"}},
		},
		"all namespaces were removed and a configured one still inherits": {
			configured: []string{"a", "b"}, sinks: map[string][]string{"loki": {"", "a", "b"}, "file": {"", "a"}}, removed: map[string]time.Time{"": day},
			want: map[string][]string{"loki": {"a", "b"}, "file": {"", "a"}}, wantRemoved: map[string]time.Time{"": day},
		},
		"all namespaces are configured again": {
			configured: []string{""}, sinks: map[string][]string{"loki": {"", "a"}}, removed: map[string]time.Time{"a": day},
			want: map[string][]string{"loki": {""}},
		},
		"no position is left": {
			configured: []string{"b"}, sinks: map[string][]string{"loki": {"a"}}, removed: map[string]time.Time{"a": day},
			want: map[string][]string{"loki": nil},
		},
	} {
		t.Run(name, func(t *testing.T) {
			build := func(sinks map[string][]string, removed map[string]time.Time) lease.Checkpoint {
				c := lease.Checkpoint{Sinks: make(map[string]map[string]event.Position), RemovedSources: make(map[string]time.Time)}
				for sink, sources := range sinks {
					c.Sinks[sink] = make(map[string]event.Position)
					for _, source := range sources {
						c.Sinks[sink][source] = version(1)
					}
				}
				maps.Copy(c.RemovedSources, removed)
				return c
			}
			got := build(test.sinks, test.removed)
			prune(&got, test.configured, now)
			if want := build(test.want, test.wantRemoved); !reflect.DeepEqual(got, want) {
				t.Errorf("got %+v, want %+v", got, want)
			}
		})
	}
}
