//go:build e2e

package chaos

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// A gap excuses only states that were overwritten in it.
func TestMissingStatesAreFound(t *testing.T) {
	// Event a was written at the versions 10, 20 and 30, Event b at 15.
	written := []key{{"a", 10}, {"b", 15}, {"a", 20}, {"a", 30}}
	for _, c := range []struct {
		name string
		has  []key
		gaps []gap
		want []key
	}{
		{"nothing", written, nil, nil},
		{"a state, without a gap", []key{{"a", 10}, {"b", 15}, {"a", 30}}, nil, []key{{"a", 20}}},
		{"a state that was overwritten in a gap", []key{{"a", 10}, {"b", 15}, {"a", 30}}, []gap{{from: 16, to: 30}}, nil},
		{"a state that was overwritten after the gap", []key{{"a", 10}, {"b", 15}, {"a", 30}}, []gap{{from: 16, to: 29}}, []key{{"a", 20}}},
		{"a state before the gap", []key{{"a", 10}, {"b", 15}, {"a", 30}}, []gap{{from: 20, to: 30}}, []key{{"a", 20}}},
		{"a state that was overwritten in a gap that follows", []key{{"a", 10}, {"b", 15}, {"a", 30}}, []gap{{from: 25, to: 40}, {from: 16, to: 25}}, nil},
		{"a state that was overwritten in a gap that does not follow at once", []key{{"a", 10}, {"b", 15}, {"a", 30}}, []gap{{from: 26, to: 40}, {from: 16, to: 25}}, []key{{"a", 20}}},
		{"the only state of an Event, in a gap", []key{{"a", 10}, {"a", 20}, {"a", 30}}, []gap{{from: 5, to: 40}}, []key{{"b", 15}}},
		{"the last state of an Event, in a gap", []key{{"a", 10}, {"b", 15}, {"a", 20}}, []gap{{from: 5, to: 40}}, []key{{"a", 30}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := comparisonOf(t, written, func(_ context.Context, o *output, _ []*state) error {
				for _, k := range c.has {
					o.seen[k] = &delivered{}
				}
				for _, g := range c.gaps {
					o.gaps[key{"gap", g.from}] = g
				}
				return nil
			})
			a.update(t.Context())
			var got []key
			for _, s := range a.missing(len(written))[a.outputs[0]] {
				got = append(got, s.key)
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("missing are %v, want %v", got, c.want)
			}
		})
	}
}

// comparisonOf returns a comparison of the written states with a single output.
func comparisonOf(t *testing.T, written []key, read func(context.Context, *output, []*state) error) *comparison {
	t.Helper()
	l := newLedger()
	for i, k := range written {
		e := &corev1.Event{ObjectMeta: metav1.ObjectMeta{UID: types.UID(k.uid), ResourceVersion: strconv.FormatUint(k.version, 10)}}
		if err := l.wrote(e, "mark-1-"+strconv.Itoa(i), time.Now()); err != nil {
			t.Fatal(err)
		}
	}
	return &comparison{ledger: l, outputs: []*output{newOutput("out", read)}}
}

// A gap without a cause is wrong, and so is a cause without a gap.
func TestWrongGapsAreFound(t *testing.T) {
	for _, c := range []struct {
		name      string
		gaps      []gap
		necessary []compaction
		want      string
	}{
		{"none, and none needed", nil, nil, ""},
		{"one that is needed", []gap{{from: 10, to: 20}}, []compaction{{revision: 15}}, ""},
		{"two in a row, of which one is needed", []gap{{from: 10, to: 20}, {from: 20, to: 30}}, []compaction{{revision: 15}}, ""},
		{"one of a sink that was behind, and the needed one", []gap{{from: 10, to: 12}, {from: 14, to: 20}}, []compaction{{revision: 15}}, ""},
		{"one that is not needed", []gap{{from: 10, to: 20}}, nil, "a gap was declared without a cause"},
		{"one that is missing", nil, []compaction{{revision: 15}}, "no gap was declared"},
		{"one that is behind alone", []gap{{from: 10, to: 12}}, []compaction{{revision: 15}}, "no gap was declared"},
		{"one too late", []gap{{from: 10, to: 20}, {from: 25, to: 30}}, []compaction{{revision: 15}}, "from 25 to 30"},
		{
			"one too early",
			[]gap{{from: 1, to: 5}, {from: 10, to: 20}},
			[]compaction{{revision: 15, before: map[key]bool{{"gap", 1}: true}}},
			"from 1 to 5",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := comparisonOf(t, nil, nil)
			for _, g := range c.gaps {
				a.outputs[0].gaps[key{"gap", g.from}] = g
			}
			got := strings.Join(a.checkGaps(c.necessary), "\n")
			if (got == "") != (c.want == "") || !strings.Contains(got, c.want) {
				t.Errorf("wrong is %q, want %q", got, c.want)
			}
		})
	}
}

func TestForeignStatesAreFound(t *testing.T) {
	a := comparisonOf(t, []key{{"a", 10}}, nil)
	a.ledger.failed("mark-1-1", context.DeadlineExceeded)
	seen := a.outputs[0].seen
	seen[key{"a", 10}] = &delivered{mark: "mark-1-0"}
	seen[key{"b", 11}] = &delivered{mark: "mark-1-1"} // written without a response
	seen[key{"c", 12}] = &delivered{}                 // an Event of the cluster itself
	if wrong := a.checkMarks(); len(wrong) > 0 {
		t.Errorf("wrong is %q, want nothing", wrong)
	}
	seen[key{"a", 10}] = &delivered{mark: "mark-1-1"}
	seen[key{"d", 13}] = &delivered{mark: "mark-1-2"}
	if wrong := a.checkMarks(); len(wrong) != 2 {
		t.Errorf("wrong is %q, want both", wrong)
	}
}

// Repeated lines are counted; a repeat with other bytes is an error.
func TestRepeatsAreFound(t *testing.T) {
	o := newOutput("out", nil)
	const line = `{"verb":"ADDED","event":{"metadata":{"uid":"a","resourceVersion":"1"},"message":"mark-1-1: x"}}` + "\n"
	for _, text := range []string{line, line, strings.Replace(line, "ADDED", "UPDATED", 1)} {
		if err := o.addLine([]byte(text), "file"); err != nil {
			t.Fatal(err)
		}
	}
	if o.repeats != 2 || len(o.wrong) != 1 {
		t.Errorf("%d repeats, wrong is %q, want 2 and one", o.repeats, o.wrong)
	}
	if err := o.addLine([]byte(line[:50]), "file"); err == nil {
		t.Error("a torn line is no error")
	}
}
