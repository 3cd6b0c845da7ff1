package delivery_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/hindsight-events/hindsight/delivery"
	"github.com/hindsight-events/hindsight/event"
	"github.com/hindsight-events/hindsight/sink"
	"github.com/hindsight-events/hindsight/sink/sinktest"
)

// A batch of Normal Events waits longer than one that has a Warning, also if the Warning comes
// later.
func TestNormalEventsWaitLonger(t *testing.T) {
	const s = time.Second
	limits := sink.Limits{BatchWait: s, NormalBatchWait: 4 * s}
	normal, warning := corev1.EventTypeNormal, corev1.EventTypeWarning
	for name, test := range map[string]struct {
		types []string // of records that are added every 300 ms
		want  time.Duration
	}{
		"Normal":                  {[]string{normal, normal}, 4 * s},
		"Warning":                 {[]string{warning}, s},
		"a Warning, then Normal":  {[]string{warning, normal}, s},
		"a Warning after Normal":  {[]string{normal, warning}, s + 300*time.Millisecond},
		"a Warning that is later": {append(slices.Repeat([]string{normal}, 12), warning), 4 * s},
		"a type that is unknown":  {[]string{"Odd"}, s},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				in, out := newJournal(), &fakeSink{}
				d, wait := start(t.Context(), delivery.Options{Consumer: in, Sink: out, Limits: limits})
				began := time.Now()
				for i, kind := range test.types {
					r := sinktest.Records(i, 1)
					r[0].Event.Type = kind
					in.add(r)
					time.Sleep(300 * time.Millisecond)
				}
				time.Sleep(time.Minute)
				finish(t, d, wait)
				if !slices.Equal(out.batches, []int{len(test.types)}) {
					t.Fatalf("batches of %v records, want one", out.batches)
				}
				if got := out.attempts[0].Sub(began); got != test.want {
					t.Errorf("sent after %v, want %v", got, test.want)
				}
			})
		})
	}
}

// A gap record is urgent.
func TestGapsDoNotWaitLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in, out := newJournal(), &fakeSink{}
		d, wait := start(t.Context(), delivery.Options{
			Consumer: in, Sink: out, Limits: sink.Limits{BatchWait: time.Second, NormalBatchWait: time.Hour},
		})
		in.addUnstored(event.Gap{From: event.Position{Version: 1}, To: event.Position{Version: 2}, Cause: event.CauseTooOld})
		time.Sleep(time.Second)
		synctest.Wait()
		if got := len(out.messages()); got != 1 {
			t.Errorf("%d gap records sent after batch_wait, want 1", got)
		}
		finish(t, d, wait)
	})
}

// In a backlog, Normal Events wait no longer than others: else streams with a Warning would be sent
// first, in small batches, while the others keep the window full.
func TestNormalEventsOfABacklog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in, out := newJournal(), &fakeSink{}
		d, wait := start(t.Context(), delivery.Options{Consumer: in, Sink: out, Limits: sink.Limits{
			BatchWait: time.Second, NormalBatchWait: 4 * time.Second, WindowBytes: 4 * recordBytes,
		}})
		began := time.Now()
		for i := range 3 { // the third finds half of the window in use
			r := sinktest.Records(i, 1)
			r[0].Event.Type = corev1.EventTypeNormal
			in.add(r)
			time.Sleep(300 * time.Millisecond)
		}
		time.Sleep(time.Minute)
		finish(t, d, wait)
		if want := 2*300*time.Millisecond + time.Second; out.attempts[0].Sub(began) != want {
			t.Errorf("sent after %v, want %v", out.attempts[0].Sub(began), want)
		}
	})
}

// Batches of several streams that are due soon leave with the first of them.
func TestBatchesLeaveTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in, out := newJournal(), &fakeSink{}
		d, wait := start(t.Context(), delivery.Options{
			Consumer: in, Sink: out, Limits: sink.Limits{BatchWait: time.Second, NormalBatchWait: 4 * time.Second, Concurrency: 2},
		})
		began := time.Now()
		for i := range 20 { // each in a stream of its own
			in.add(inNamespace(fmt.Sprintf("ns-%d", i), i))
			time.Sleep(100 * time.Millisecond)
		}
		time.Sleep(time.Minute)
		finish(t, d, wait)
		var at []time.Duration
		for _, a := range out.attempts {
			at = append(at, a.Sub(began))
		}
		want := slices.Concat(slices.Repeat([]time.Duration{4 * time.Second}, 10), slices.Repeat([]time.Duration{5 * time.Second}, 10))
		if !slices.Equal(at, want) {
			t.Errorf("sent after %v, want %v", at, want)
		}
	})
}

// While batches are in flight, acknowledgements are collected, but not for long.
func TestAcknowledgementsAreCollected(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in := newJournal()
		release := make(chan struct{})
		out := &fakeSink{takes: 10 * time.Millisecond, answer: func(_ context.Context, b *sink.Batch) error {
			if b.Stream == "ns-39" {
				<-release
			}
			return nil
		}}
		in.add(inNamespaces(40, sinktest.Records(0, 40)))
		d, wait := start(t.Context(), delivery.Options{Consumer: in, Sink: out, Limits: sink.Limits{Concurrency: 4}})
		time.Sleep(250 * time.Millisecond) // 39 batches are accepted after 100 ms
		synctest.Wait()
		wantAck(t, in, 39)
		if n := len(in.acked); n > 3 {
			t.Errorf("the cursor moved %d times for 39 batches", n)
		}
		close(release)
		synctest.Wait()
		wantAck(t, in, 40) // at once: nothing is in flight
		finish(t, d, wait)
	})
}
