package router

import (
	"bytes"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/synctest"

	corev1 "k8s.io/api/core/v1"

	"github.com/hindsight-events/hindsight/event"
)

// leaderElection returns a record with a component of its own, as candidates for leader
// report.
func leaderElection(i int) event.Record {
	r := record(uint64(i), "kube-system", "LeaderElection")
	r.Event.Source.Component = fmt.Sprintf("controller-7d9f_%08x", i)
	return r
}

// stream returns the labels that a sink gives the record: "namespace=a reason=Killing".
func stream(fields event.LabelSet, r *event.Record) string {
	var labels []string
	for _, f := range fields.Fields() {
		labels = append(labels, f.String()+"="+r.Label(f, r.KeptLabels(fields)))
	}
	return strings.Join(labels, " ")
}

const withComponent = event.DefaultLabels | event.LabelComponent

func TestUniqueComponentsAreLimited(t *testing.T) {
	const maxStreams = 100
	in := NewIntake(IntakeOptions{MaxStreams: maxStreams, Labels: []SinkLabels{{Sink: "loki", Fields: withComponent}}})
	streams := map[string]bool{}
	add := func(r event.Record) string {
		s := stream(withComponent, &in.Apply([]event.Record{r})[0])
		streams[s] = true
		return s
	}
	for i := range 5400 {
		add(leaderElection(i))
	}
	if n := len(streams); n > maxStreams {
		t.Errorf("%d streams, want at most %d", n, maxStreams)
	}
	if want := "namespace=kube-system reason=LeaderElection component=other"; !streams[want] {
		t.Errorf("there is no stream %s", want)
	}
	// A quarter is reserved for reasons.
	for i := range maxStreams / 5 {
		want := fmt.Sprintf("namespace=a reason=Reason%d component=other", i)
		if got := add(record(1, "a", fmt.Sprintf("Reason%d", i))); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	for i := range maxStreams {
		add(record(1, "a", fmt.Sprintf("Storm%d", i)))
	}
	if got, want := add(record(1, "b", "BackOff")), "namespace=b reason=other component=other"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if got, want := add(leaderElection(0)), "namespace=kube-system reason=LeaderElection component=controller-7d9f_00000000"; got != want {
		t.Errorf("got %s, want %s, which is in use", got, want)
	}
	if n := len(streams); n > maxStreams+3 {
		t.Errorf("%d streams, want at most %d plus one per namespace", n, maxStreams)
	}
}

func TestEverySetOfLabelsIsLimited(t *testing.T) {
	const (
		maxStreams = 40
		namespaces = 3
	)
	random := rand.New(rand.NewPCG(3, 4))
	for fields := event.LabelSet(1); fields <= event.LabelSetOf(event.LabelFields...); fields++ {
		in := NewIntake(IntakeOptions{MaxStreams: maxStreams, Labels: []SinkLabels{{Sink: "loki", Fields: fields}}})
		streams := map[string]bool{}
		for range 1000 {
			value := func() string { return fmt.Sprintf("Value%d", random.IntN(200)) }
			r := record(1, fmt.Sprintf("ns-%d", random.IntN(namespaces)), value())
			if random.IntN(3) == 0 {
				r.Event.Reason = "not a reason " + value()
			}
			r.Event.InvolvedObject.Kind = value()
			r.Event.Type = value()
			r.Event.Source = corev1.EventSource{Component: value(), Host: value()}
			streams[stream(fields, &in.Apply([]event.Record{r})[0])] = true
		}
		if n := len(streams); n > maxStreams+namespaces {
			t.Errorf("%v: %d streams, want at most %d and one for each of %d namespaces", fields, n, maxStreams, namespaces)
		}
		if n := len(streams); n < maxStreams/2 && len(fields.Fields()) > 1 {
			t.Errorf("%v: only %d streams of %d that were allowed", fields, n, maxStreams)
		}
	}
}

func TestSinksWithOtherLabelsAreNotLimited(t *testing.T) {
	const components, pairs = event.LabelComponent, event.DefaultLabels
	in := NewIntake(IntakeOptions{MaxStreams: 10, Labels: []SinkLabels{
		{Sink: "a", Fields: pairs}, {Sink: "b", Fields: components}, {Sink: "c", Fields: pairs},
	}})
	var records []event.Record
	for i := range 100 {
		records = append(records, leaderElection(i))
	}
	records = in.Apply(append(records, record(1, "a", "Killing")))
	for i := range records {
		want := fmt.Sprintf("namespace=%s reason=%s", records[i].Event.Namespace, records[i].Event.Reason)
		if got := stream(pairs, &records[i]); got != want {
			t.Fatalf("got %s, want %s", got, want)
		}
	}
	if got, want := stream(components, &records[99]), "component=other"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// Decisions from before a reload stay, so that a record that is sent again has the same
// labels. Labels without a decision are other.
func TestReloadKeepsDecisions(t *testing.T) {
	const before, after = event.DefaultLabels, withComponent
	in := NewIntake(IntakeOptions{MaxStreams: 1, Labels: []SinkLabels{{Sink: "loki", Fields: before}}})
	old := in.Apply([]event.Record{leaderElection(1)})[0]
	stored, err := old.AppendBinary(nil)
	if err != nil {
		t.Fatal(err)
	}
	in.SetRules(nil, nil, Levels{}, 2, []SinkLabels{{Sink: "loki", Fields: after}, {Sink: "second", Fields: before}})
	var read event.Record
	if err := read.UnmarshalBinary(stored); err != nil {
		t.Fatal(err)
	}
	if got, want := stream(after, &read), "namespace=kube-system reason=LeaderElection component=other"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	next := in.Apply([]event.Record{leaderElection(2)})[0]
	if got, want := stream(after, &next), "namespace=kube-system reason=LeaderElection component=controller-7d9f_00000002"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	in.SetRules(nil, nil, Levels{}, 1, []SinkLabels{{Sink: "second", Fields: before}})
	if got, want := labelOf(in, "kube-system", "LeaderElection"), "LeaderElection"; got != want {
		t.Errorf("the stream in use has expired: the label is %s", got)
	}
	if got, want := labelOf(in, "a", "Killing"), "other"; got != want {
		t.Errorf("got %s, want %s: the stream in use counts", got, want)
	}
}

func TestMaxStreamsIsLoggedOnceForEachSink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		const components, pairs = event.LabelComponent, event.DefaultLabels
		in := NewIntake(IntakeOptions{MaxStreams: 10, Logger: slog.New(slog.NewTextHandler(&log, nil)), Labels: []SinkLabels{
			{Sink: "a", Fields: components}, {Sink: "b", Fields: pairs}, {Sink: "c", Fields: components},
		}})
		for i := range 1000 {
			in.Apply([]event.Record{leaderElection(i)})
		}
		for _, sink := range []string{"a", "c"} {
			if n := strings.Count(log.String(), "sink="+sink+" fields=component max_streams=10 "); n != 1 {
				t.Errorf("%d lines of sink %s, want 1", n, sink)
			}
		}
		if n := strings.Count(log.String(), "\n"); n != 2 {
			t.Errorf("%d lines, want 2:\n%s", n, &log)
		}
	})
}

func TestDecideDoesNotAllocate(t *testing.T) {
	in := NewIntake(IntakeOptions{MaxStreams: 10, Labels: []SinkLabels{
		{Sink: "a", Fields: event.DefaultLabels}, {Sink: "b", Fields: event.LabelSetOf(event.LabelFields...)},
	}})
	records := []event.Record{preempted()}
	other := []event.Record{leaderElection(100)}
	for i := range 20 {
		in.Apply([]event.Record{leaderElection(i)})
	}
	if n := testing.AllocsPerRun(100, func() { in.Apply(records); in.Apply(other) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
