package delivery_test

import (
	"context"
	"errors"
	"io"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hindsight-events/hindsight/delivery"
	"github.com/hindsight-events/hindsight/event"
	"github.com/hindsight-events/hindsight/sink"
	"github.com/hindsight-events/hindsight/sink/sinktest"
)

func TestBatchWaitsForMoreRecords(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in, out := newJournal(), &fakeSink{}
		d, wait := start(t.Context(), delivery.Options{Consumer: in, Sink: out, Limits: sink.Limits{BatchWait: time.Second}})
		began := time.Now()
		in.add(sinktest.Records(0, 2))
		time.Sleep(900 * time.Millisecond)
		in.add(sinktest.Records(2, 2))
		time.Sleep(900 * time.Millisecond)
		in.add(sinktest.Records(4, 1))
		time.Sleep(time.Minute)
		finish(t, d, wait)
		if !slices.Equal(out.batches, []int{4, 1}) {
			t.Fatalf("batches of %v records, want 4 and 1", out.batches)
		}
		if got := out.attempts[0].Sub(began); got != time.Second {
			t.Errorf("the first batch was sent after %v, want 1s", got)
		}
		if got := out.attempts[1].Sub(began); got != 2800*time.Millisecond {
			t.Errorf("the second batch was sent after %v, want 1s after its record was added", got)
		}
	})
}

// A retry sends the same bytes, even if the journal cannot be read any more.
func TestRetrySendsTheSameBatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in, out := newJournal(), &fakeSink{errors: []error{errors.New("503"), errors.New("503")}}
		in.add(sinktest.Records(0, 3))
		d, wait := start(t.Context(), delivery.Options{Consumer: in, Sink: out, Limits: sink.Limits{MinBackoff: time.Minute}})
		synctest.Wait() // the first attempt has failed
		for _, m := range numbered(0, 1, 2) {
			in.failReads(m, slices.Repeat([]error{io.ErrUnexpectedEOF}, 10)...)
		}
		finish(t, d, wait)
		wantMessages(t, out, numbered(0, 1, 2)...)
	})
}

// The batch of a faulty stream is read again for each attempt, because there may be
// many.
func TestRetryOfAFaultyStreamReadsTheSameBatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in := newJournal()
		var attempts [][]string
		out := &fakeSink{answer: func(_ context.Context, b *sink.Batch) error {
			if attempts = append(attempts, records(b)); len(attempts) < 5 {
				return &sink.Error{StreamOnly: true, Err: errors.New("too many streams")}
			}
			return nil
		}}
		in.add(sinktest.Records(0, 5))
		d, wait := start(t.Context(), delivery.Options{Consumer: in, Sink: out, Limits: sink.Limits{BatchBytes: 25, MinBackoff: time.Minute, MaxBackoff: time.Minute}})
		synctest.Wait()
		time.Sleep(2 * time.Minute)
		in.failReads("record-0.", io.ErrUnexpectedEOF)
		in.failReads("record-1.", io.ErrUnexpectedEOF)
		finish(t, d, wait)
		for i, got := range attempts[:5] {
			if want := numbered(0, 1, 2); !slices.Equal(got, want) {
				t.Errorf("attempt %d sends %v, want %v", i, got, want)
			}
		}
		wantAck(t, in, 5)
	})
}

func TestFailedReadOfTheJournalIsRetried(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in, out := newJournal(), &fakeSink{}
		in.failReads("record-0.", slices.Repeat([]error{io.ErrUnexpectedEOF}, 4)...)
		in.failReads("record-3.", slices.Repeat([]error{io.ErrUnexpectedEOF}, 2)...)
		in.add(sinktest.Records(0, 5))
		d, wait := start(t.Context(), delivery.Options{Consumer: in, Sink: out})
		synctest.Wait()
		if s := d.State(); s.Err == nil || !errors.Is(s.Err, io.ErrUnexpectedEOF) || s.Since.IsZero() {
			t.Errorf("state is %+v while the journal cannot be read", s)
		}
		finish(t, d, wait)
		wantMessages(t, out, numbered(0, 1, 2, 3, 4)...)
		wantAck(t, in, 5)
	})
}

// A record that cannot be read again ends the delivery. After the restart, the journal
// returns it, or a gap record in its place.
func TestUnreadableRecordEndsTheDelivery(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in, out := newJournal(), &fakeSink{}
		in.failReads("record-2.", slices.Repeat([]error{io.ErrUnexpectedEOF}, 100)...)
		in.add(sinktest.Records(0, 5))
		_, wait := start(t.Context(), delivery.Options{Consumer: in, Sink: out, Limits: sink.Limits{MinBackoff: time.Second}})
		if err := wait(); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("the delivery ended with %v", err)
		}
		wantMessages(t, out, numbered(0, 1)...)
		wantAck(t, in, 2)
	})
}

// A gap record that the journal does not store is kept in memory until it is accepted.
func TestUnstoredGapRecordIsSentInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in, out := newJournal(), &fakeSink{errors: []error{errors.New("503")}}
		gap := event.Gap{Namespace: "ns-0", Cause: event.CauseOverflow, MissedAtLeast: 7}
		in.add(inNamespaces(1, sinktest.Records(0, 2)))
		in.addUnstored(gap)
		in.add(inNamespaces(1, sinktest.Records(2, 2)))
		d, wait := start(t.Context(), delivery.Options{Consumer: in, Sink: out})
		finish(t, d, wait)
		wantMessages(t, out, "record-0.", "record-1.", event.NewGap(gap).Event.Message, "record-2.", "record-3.")
		wantAck(t, in, 5)
	})
}
