package delivery_test

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hindsight-events/hindsight/delivery"
	"github.com/hindsight-events/hindsight/sink"
	"github.com/hindsight-events/hindsight/sink/sinktest"
)

func TestRatesAreBounded(t *testing.T) {
	for name, c := range map[string]struct {
		limits  sink.Limits
		streams int
		want    time.Duration
	}{
		// 90 records of 10 bytes: "record-10.", "record-11.", …
		"of a stream":    {sink.Limits{StreamRate: 100, BatchBytes: 10}, 1, 9 * time.Second},
		"of each stream": {sink.Limits{StreamRate: 100, BatchBytes: 10, Concurrency: 10}, 10, 900 * time.Millisecond},
		"of all streams": {sink.Limits{Rate: 100, BatchBytes: 10, Concurrency: 10}, 10, 8 * time.Second},
		"without bounds": {sink.Limits{BatchBytes: 10}, 1, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				in, out := newJournal(), &fakeSink{}
				in.add(inNamespaces(c.streams, sinktest.Records(10, 90)))
				began := time.Now()
				d, wait := start(t.Context(), delivery.Options{Consumer: in, Sink: out, Limits: c.limits})
				finish(t, d, wait)
				// Nothing waits for the rate after the last batch.
				took := out.attempts[len(out.attempts)-1].Sub(began)
				if diff := (took - c.want).Abs(); diff > 200*time.Millisecond {
					t.Errorf("took %v, want about %v", took, c.want)
				}
			})
		})
	}
}

func TestBytesInFlightAreBounded(t *testing.T) {
	for bytes, want := range map[int]int{1000: 16, 300 << 10: 4, 2 << 20: 1} {
		t.Run(fmt.Sprint(bytes), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				in, out := newJournal(), &fakeSink{takes: time.Second}
				records := inNamespaces(20, sinktest.Records(0, 40))
				for i := range records {
					records[i].Event.Message = strings.Repeat("m", bytes)
				}
				in.add(records)
				d, wait := start(t.Context(), delivery.Options{Consumer: in, Sink: out, Limits: sink.Limits{Concurrency: 16, BatchBytes: 500}})
				finish(t, d, wait)
				if out.maxFlight != want {
					t.Errorf("at most %d batches of %d bytes in flight, want %d", out.maxFlight, bytes, want)
				}
				if got := len(out.messages()); got != len(records) {
					t.Errorf("%d records accepted, want %d", got, len(records))
				}
			})
		})
	}
}
