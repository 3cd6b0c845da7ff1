package event

import (
	"math/rand/v2"
	"reflect"
	"testing"
	"time"
)

func positionAt(version uint64) Position {
	return Position{Epoch: Epoch{Cluster: "a"}, Version: version, Time: time.Unix(int64(version), 0)}
}

func TestGapsAreMerged(t *testing.T) {
	// series returns n gaps of ten versions each.
	series := func(n int, first uint64, source, sink string) (gaps []Gap) {
		for i := range uint64(n) {
			gaps = append(gaps, Gap{
				Source: source, Sink: sink, Namespace: "monitoring", Cause: CauseTooOld, MissedAtLeast: 1,
				From: positionAt(first + 100*i), To: positionAt(first + 100*i + 10),
			})
		}
		return gaps
	}
	for name, test := range map[string]struct {
		gaps []Gap
		want []Gap // the first gaps, merged; the others are unchanged
	}{
		"eight are kept": {series(8, 0, "", ""), nil},
		"the oldest of one source and sink": {
			series(11, 0, "", ""),
			[]Gap{{Namespace: "monitoring", Cause: CauseTooOld, MissedAtLeast: 4, From: positionAt(0), To: positionAt(310)}},
		},
		"one source and sink before others": {
			append(series(1, 0, "a", ""), series(8, 0, "b", "loki")...),
			append(series(1, 0, "a", ""), Gap{Source: "b", Sink: "loki", Namespace: "monitoring", Cause: CauseTooOld, MissedAtLeast: 2, From: positionAt(0), To: positionAt(110)}),
		},
	} {
		t.Run(name, func(t *testing.T) {
			want := append(GapSet(test.want), test.gaps[len(test.gaps)-maxGaps+len(test.want):]...)
			if got := GapSet(test.gaps).Merge(); !reflect.DeepEqual(got, want) {
				t.Errorf("got\n%+v\nwant\n%+v", got, want)
			}
		})
	}
}

func TestGapSetContains(t *testing.T) {
	listed := positionAt(20)
	listed.ListVersion = 40
	other := Position{Epoch: Epoch{Cluster: "other"}, Version: 5}
	restored := positionAt(5)
	restored.Epoch.Restores = 1
	for name, test := range map[string]struct {
		gap          Gap
		sink, source string
		state        Position
		want         bool
	}{
		"at its beginning":                        {Gap{From: positionAt(10), To: positionAt(20)}, "loki", "a", positionAt(10), false},
		"just after its beginning":                {Gap{From: positionAt(10), To: positionAt(20)}, "loki", "a", positionAt(11), true},
		"at its end":                              {Gap{From: positionAt(10), To: positionAt(20)}, "loki", "a", positionAt(20), true},
		"after its end":                           {Gap{From: positionAt(10), To: positionAt(20)}, "loki", "a", positionAt(21), false},
		"at its end, in an incomplete list":       {Gap{From: positionAt(10), To: listed}, "loki", "a", positionAt(20), true},
		"at its beginning, in an incomplete list": {Gap{From: listed, To: positionAt(30)}, "loki", "a", positionAt(20), false},
		"of another sink":                         {Gap{From: positionAt(10), To: positionAt(20), Sink: "file"}, "loki", "a", positionAt(11), false},
		"of another source":                       {Gap{From: positionAt(10), To: positionAt(20), Source: "b"}, "loki", "a", positionAt(11), false},
		"from the beginning":                      {Gap{To: positionAt(20)}, "loki", "a", positionAt(1), true},
		"without an end":                          {Gap{From: positionAt(10)}, "loki", "a", positionAt(1000), true},
		"before a restore":                        {Gap{From: positionAt(10), To: restored}, "loki", "a", positionAt(500), true},
		"after a restore, before":                 {Gap{From: positionAt(10), To: restored}, "loki", "a", restored, true},
		"the end is of another cluster":           {Gap{From: positionAt(10), To: other}, "loki", "a", positionAt(11), true},
		"before the gap, in the first cluster":    {Gap{From: positionAt(10), To: other}, "loki", "a", positionAt(9), false},
	} {
		t.Run(name, func(t *testing.T) {
			if got := (GapSet{test.gap}).Contains(test.sink, test.source, test.state); got != test.want {
				t.Errorf("got %v, want %v", got, test.want)
			}
		})
	}
}

// Merged gaps contain every state of the original gaps.
func TestMergedGapsContainAllStates(t *testing.T) {
	for seed := range uint64(1000) {
		r := rand.New(rand.NewPCG(seed, 0))
		pick := func(of ...string) string { return of[r.IntN(len(of))] }
		clusters := []string{"a"}
		if seed%3 == 0 {
			clusters = []string{"a", "b", ""}
		}
		position := func() Position {
			p := Position{Epoch: Epoch{Cluster: pick(clusters...), Restores: r.IntN(2)}, Version: 1 + r.Uint64N(30)}
			if r.IntN(5) == 0 {
				p.ListVersion = p.Version + r.Uint64N(10)
			}
			return p
		}
		var gaps GapSet
		for range 9 + r.IntN(10) {
			g := Gap{Source: pick("", "x", "y"), Sink: pick("", "loki", "file")}
			if r.IntN(10) > 0 {
				g.From = position()
			}
			if r.IntN(10) > 0 {
				g.To = position()
			}
			gaps = append(gaps, g)
		}
		merged := gaps.Merge()
		if len(merged) > maxGaps {
			t.Fatalf("seed %d: %d gaps, want at most %d", seed, len(merged), maxGaps)
		}
		for range 100 {
			sink, source, state := pick("loki", "file"), pick("", "x", "y"), position()
			if gaps.Contains(sink, source, state) && !merged.Contains(sink, source, state) {
				t.Fatalf("seed %d: %v of source %q and sink %s is in no merged gap: gaps\n%+v\nmerged\n%+v", seed, state, source, sink, gaps, merged)
			}
		}
	}
}
