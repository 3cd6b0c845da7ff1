package delivery_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hindsight-events/hindsight/delivery"
	"github.com/hindsight-events/hindsight/event"
	"github.com/hindsight-events/hindsight/sink"
	"github.com/hindsight-events/hindsight/sink/sinktest"
)

func TestDeliveryEnds(t *testing.T) {
	rejected := &sink.Error{Rejected: []sink.Rejection{{Index: 1, Reason: "too old"}}, Err: errors.New("400")}
	for name, c := range map[string]struct {
		err     error
		wantErr string
		wantAck uint64
	}{
		"with an error after a permanent error": {
			&sink.Error{Permanent: true, Err: errors.New("broken pipe")}, "sink test: broken pipe", 0,
		},
		"without an error after a rejection: the other records are accepted": {rejected, "", 3},
	} {
		t.Run(name, func(t *testing.T) {
			in, out := newJournal(), &fakeSink{errors: []error{c.err}}
			in.add(sinktest.Records(0, 3))
			d, wait := start(t.Context(), delivery.Options{Consumer: in, Sink: out})
			d.Drain()
			if err := wait(); fmt.Sprint(err) != c.wantErr && (err != nil || c.wantErr != "") {
				t.Errorf("got error %v, want %q", err, c.wantErr)
			}
			if len(out.attempts) != 1 {
				t.Errorf("%d attempts, want 1", len(out.attempts))
			}
			wantAck(t, in, c.wantAck)
		})
	}
}

func TestUnmatchedRecordsAreAcknowledged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in, out := newJournal(), &fakeSink{}
		records := sinktest.Records(0, 4)
		records[1].Event = nil // a position only
		gap := event.NewGap(event.Gap{Namespace: "monitoring", Cause: event.CauseTooOld})
		in.add(append(records, gap))
		d, wait := start(t.Context(), delivery.Options{
			Consumer: in, Sink: out,
			Match: func(r *event.Record) bool { return r.Event.Message == "record-2." },
		})
		finish(t, d, wait)
		wantMessages(t, out, "record-2.", gap.Event.Message)
		wantAck(t, in, 5)
	})
}

func TestStreamsAreSentConcurrentlyAndInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in, out := newJournal(), &fakeSink{takes: time.Second}
		const records, streams, concurrency = 200, 10, 4
		in.add(inNamespaces(streams, sinktest.Records(0, records)))
		began := time.Now()
		d, wait := start(t.Context(), delivery.Options{Consumer: in, Sink: out, Limits: sink.Limits{Concurrency: concurrency, BatchBytes: 100}})
		finish(t, d, wait)
		if len(out.concurrent) > 0 {
			t.Errorf("two batches of streams %v in flight at the same time", out.concurrent)
		}
		if out.maxFlight != concurrency {
			t.Errorf("at most %d batches in flight, want %d", out.maxFlight, concurrency)
		}
		got := out.messages()
		if len(got) != records {
			t.Fatalf("%d records accepted, want %d", len(got), records)
		}
		last := map[int]int{}
		for _, m := range got {
			var n int
			fmt.Sscanf(m, "record-%d.", &n)
			if before, ok := last[n%streams]; ok && n <= before {
				t.Fatalf("record %d of stream %d was accepted after %d", n, n%streams, before)
			}
			last[n%streams] = n
		}
		wantAck(t, in, records)
		// 20 records for each stream, 10 in a batch: 20 batches, four at a time.
		if took := time.Since(began); took != 5*time.Second {
			t.Errorf("took %v, want 5s", took)
		}
	})
}

func TestRecordsAreAcknowledgedInJournalOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in := newJournal()
		first := true
		out := &fakeSink{answer: func(_ context.Context, b *sink.Batch) error {
			if b.Stream == "ns-0" && first {
				first = false
				return &sink.Error{StreamOnly: true, RetryAfter: time.Minute, Err: errors.New("stream rate limit")}
			}
			return nil
		}}
		in.add(inNamespaces(2, sinktest.Records(0, 4))) // the first is in ns-0
		d, wait := start(t.Context(), delivery.Options{Consumer: in, Sink: out, Limits: sink.Limits{Concurrency: 2}})
		time.Sleep(30 * time.Second)
		wantMessages(t, out, numbered(1, 3)...)
		wantAck(t, in, 0)
		finish(t, d, wait)
		wantMessages(t, out, numbered(1, 3, 0, 2)...)
		wantAck(t, in, 4)
	})
}

// A stream without records is removed once its rate limit permits the next batch. Its
// later records are sent in order.
func TestOrderOfAStreamThatWasRemoved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in := newJournal()
		failed := false
		out := &fakeSink{answer: func(_ context.Context, b *sink.Batch) error {
			if string(b.Data) == "third....." && !failed {
				failed = true
				return &sink.Error{StreamOnly: true, RetryAfter: time.Hour, Err: errors.New("429")}
			}
			return nil
		}}
		d, wait := start(t.Context(), delivery.Options{Consumer: in, Sink: out, Limits: sink.Limits{StreamRate: 10}})
		send := func(namespace, message string) {
			records := inNamespace(namespace, 0)
			records[0].Event.Message = message
			in.add(records)
			synctest.Wait()
		}
		send("a", "first.....")              // delays the stream for a second
		send("b", string(make([]byte, 1e3))) // for 100 seconds
		send("a", "second....")
		time.Sleep(10 * time.Second)
		send("c", "c") // removes a
		send("a", "third.....")
		time.Sleep(200 * time.Second)
		send("d", "d") // removes b
		send("a", "fourth....")
		finish(t, d, wait)
		got := slices.DeleteFunc(out.messages(), func(m string) bool { return len(m) != len("first.....") })
		if want := []string{"first.....", "second....", "third.....", "fourth...."}; !slices.Equal(got, want) {
			t.Errorf("accepted %v, want %v", got, want)
		}
	})
}

func TestWindowIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in, out := newJournal(), &fakeSink{errors: slices.Repeat([]error{errors.New("down")}, 1000)}
		for i := range 50 {
			in.add(sinktest.Records(i*10, 10))
		}
		ctx, cancel := context.WithCancel(t.Context())
		_, wait := start(ctx, delivery.Options{Consumer: in, Sink: out, Limits: sink.Limits{WindowBytes: 500}})
		time.Sleep(time.Hour)
		if read := 50 - len(in.entries); read > 7 {
			t.Errorf("%d groups of 10 records were read while none was accepted, want no more than 500 bytes", read)
		}
		cancel()
		if err := wait(); err != nil {
			t.Fatal(err)
		}
	})
}
