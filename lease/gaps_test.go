package lease

import (
	"math/rand/v2"
	"reflect"
	"testing"

	"github.com/hindsight-events/hindsight/event"
)

func TestGapsAreMerged(t *testing.T) {
	// n gaps of a source and a sink, each of ten versions, from first on.
	series := func(n int, first uint64, source, sink string) (gaps []event.Gap) {
		for i := range uint64(n) {
			gaps = append(gaps, event.Gap{
				Source: source, Sink: sink, Namespace: "monitoring", Cause: event.CauseTooOld, MissedAtLeast: 1,
				From: taken(first + 100*i), To: taken(first + 100*i + 10),
			})
		}
		return gaps
	}
	for name, test := range map[string]struct {
		gaps []event.Gap
		want []event.Gap // the first ones, merged; the others stay
	}{
		"eight are kept": {series(8, 0, "", ""), nil},
		"the oldest three of eleven of one kind": {
			series(11, 0, "", ""),
			[]event.Gap{{Namespace: "monitoring", Cause: event.CauseTooOld, MissedAtLeast: 4, From: taken(0), To: taken(310)}},
		},
		"those of one source and sink before others": {
			append(series(1, 0, "a", ""), series(8, 0, "b", "loki")...),
			append(series(1, 0, "a", ""), event.Gap{Source: "b", Sink: "loki", Namespace: "monitoring", Cause: event.CauseTooOld, MissedAtLeast: 2, From: taken(0), To: taken(110)}),
		},
	} {
		t.Run(name, func(t *testing.T) {
			want := append(test.want, test.gaps[len(test.gaps)-maxGaps+len(test.want):]...)
			if got := MergeGaps(test.gaps); !reflect.DeepEqual(got, want) {
				t.Errorf("got\n%+v\nwant\n%+v", got, want)
			}
		})
	}
}

func TestInGap(t *testing.T) {
	listed := taken(20)
	listed.Listed = 40
	other := event.Position{Epoch: event.Epoch{Cluster: "other"}, Version: 5}
	restored := taken(5)
	restored.Epoch.Restores = 1
	for name, test := range map[string]struct {
		gap          event.Gap
		sink, source string
		state        event.Position
		want         bool
	}{
		"at its beginning":               {event.Gap{From: taken(10), To: taken(20)}, "loki", "a", taken(10), false},
		"just after its beginning":       {event.Gap{From: taken(10), To: taken(20)}, "loki", "a", taken(11), true},
		"at its end":                     {event.Gap{From: taken(10), To: taken(20)}, "loki", "a", taken(20), true},
		"after its end":                  {event.Gap{From: taken(10), To: taken(20)}, "loki", "a", taken(21), false},
		"at its end, in a list":          {event.Gap{From: taken(10), To: listed}, "loki", "a", taken(20), true},
		"at its beginning, in a list":    {event.Gap{From: listed, To: taken(30)}, "loki", "a", taken(20), false},
		"of another sink":                {event.Gap{From: taken(10), To: taken(20), Sink: "file"}, "loki", "a", taken(11), false},
		"of another source":              {event.Gap{From: taken(10), To: taken(20), Source: "b"}, "loki", "a", taken(11), false},
		"from the beginning":             {event.Gap{To: taken(20)}, "loki", "a", taken(1), true},
		"without an end":                 {event.Gap{From: taken(10)}, "loki", "a", taken(1000), true},
		"before a restore":               {event.Gap{From: taken(10), To: restored}, "loki", "a", taken(500), true},
		"after a restore, before":        {event.Gap{From: taken(10), To: restored}, "loki", "a", restored, true},
		"the end is of another cluster":  {event.Gap{From: taken(10), To: other}, "loki", "a", taken(11), true},
		"before it, of the one that was": {event.Gap{From: taken(10), To: other}, "loki", "a", taken(9), false},
	} {
		t.Run(name, func(t *testing.T) {
			if got := InGap([]event.Gap{test.gap}, test.sink, test.source, test.state); got != test.want {
				t.Errorf("got %v, want %v", got, test.want)
			}
		})
	}
}

// Merged gaps hold whatever lay in one of them.
func TestMergedGapsAreNeverNarrower(t *testing.T) {
	for seed := range uint64(1000) {
		r := rand.New(rand.NewPCG(seed, 0))
		pick := func(of ...string) string { return of[r.IntN(len(of))] }
		clusters := []string{"a"}
		if seed%3 == 0 {
			clusters = []string{"a", "b", ""}
		}
		position := func() event.Position {
			p := event.Position{Epoch: event.Epoch{Cluster: pick(clusters...), Restores: r.IntN(2)}, Version: 1 + r.Uint64N(30)}
			if r.IntN(5) == 0 {
				p.Listed = p.Version + r.Uint64N(10)
			}
			return p
		}
		var gaps []event.Gap
		for range 9 + r.IntN(10) {
			g := event.Gap{Source: pick("", "x", "y"), Sink: pick("", "loki", "file")}
			if r.IntN(10) > 0 {
				g.From = position()
			}
			if r.IntN(10) > 0 {
				g.To = position()
			}
			gaps = append(gaps, g)
		}
		merged := MergeGaps(gaps)
		if len(merged) > maxGaps {
			t.Fatalf("seed %d: %d gaps, want at most %d", seed, len(merged), maxGaps)
		}
		for range 100 {
			sink, source, state := pick("loki", "file"), pick("", "x", "y"), position()
			if InGap(gaps, sink, source, state) && !InGap(merged, sink, source, state) {
				t.Fatalf("seed %d: %v of source %q was missed by %s, which is forgotten: gaps\n%+v\nmerged\n%+v", seed, state, source, sink, gaps, merged)
			}
		}
	}
}
