package delivery_test

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hindsight-events/hindsight/delivery"
	"github.com/hindsight-events/hindsight/event"
	"github.com/hindsight-events/hindsight/sink"
	"github.com/hindsight-events/hindsight/sink/sinktest"
)

// What a destination has been offered comes again as it was, whatever has become
// of the journal since.
func TestDeliveryRepeatsABatchFromMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in, out := newSource(), &scripted{answers: []error{errors.New("503"), errors.New("503")}}
		in.add(sinktest.Records(0, 3))
		d, wait := start(t.Context(), delivery.Options{Consumer: in, Sink: out, Limits: sink.Limits{MinBackoff: time.Minute}})
		synctest.Wait() // it has been tried
		in.mu.Lock()
		for i := range 3 {
			in.failures[fmt.Sprintf("record-%d.", i)] = slices.Repeat([]error{io.ErrUnexpectedEOF}, 10)
		}
		in.mu.Unlock()
		d.Drain()
		if err := wait(); err != nil {
			t.Fatal(err)
		}
		if got, want := out.messages(), []string{"record-0.", "record-1.", "record-2."}; !slices.Equal(got, want) {
			t.Errorf("delivered %v, want %v", got, want)
		}
	})
}

// The batch of a stream that alone is refused is not kept in memory, but read again.
func TestDeliveryReadsABatchAgainThatFailsAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in := newSource()
		var offered [][]string
		out := &scripted{answer: func(b *sink.Batch) error {
			var records []string
			for i := range b.Len() {
				records = append(records, string(b.Record(i)))
			}
			if offered = append(offered, records); len(offered) < 5 {
				return &sink.Error{StreamOnly: true, Err: errors.New("too many streams")}
			}
			return nil
		}}
		in.add(sinktest.Records(0, 5))
		d, wait := start(t.Context(), delivery.Options{Consumer: in, Sink: out, Limits: sink.Limits{BatchBytes: 25, MinBackoff: time.Minute, MaxBackoff: time.Minute}})
		synctest.Wait()
		time.Sleep(2 * time.Minute)
		in.mu.Lock()
		in.failures["record-0."] = []error{io.ErrUnexpectedEOF}
		in.failures["record-1."] = []error{io.ErrUnexpectedEOF}
		in.mu.Unlock()
		d.Drain()
		if err := wait(); err != nil {
			t.Fatal(err)
		}
		whole := []string{"record-0.", "record-1.", "record-2."}
		for i, records := range offered[:5] {
			if !slices.Equal(records, whole) {
				t.Errorf("attempt %d offers %v, want %v", i, records, whole)
			}
		}
		if got := in.lastAck(); got != 5 {
			t.Errorf("acknowledged up to %d, want 5", got)
		}
	})
}

// The journal's disk may answer again.
func TestDeliveryReadsTheJournalAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in, out := newSource(), &scripted{}
		in.failures["record-0."] = slices.Repeat([]error{io.ErrUnexpectedEOF}, 4)
		in.failures["record-3."] = slices.Repeat([]error{io.ErrUnexpectedEOF}, 2)
		in.add(sinktest.Records(0, 5))
		d, wait := start(t.Context(), delivery.Options{Consumer: in, Sink: out})
		synctest.Wait()
		if s := d.State(); s.Err == nil || !errors.Is(s.Err, io.ErrUnexpectedEOF) || s.Since.IsZero() {
			t.Errorf("while the journal cannot be read the state is %+v", s)
		}
		d.Drain()
		if err := wait(); err != nil {
			t.Fatal(err)
		}
		if got, want := out.messages(), []string{"record-0.", "record-1.", "record-2.", "record-3.", "record-4."}; !slices.Equal(got, want) {
			t.Errorf("delivered %v, want %v", got, want)
		}
		if got := in.lastAck(); got != 5 {
			t.Errorf("acknowledged up to %d, want 5", got)
		}
	})
}

// A record that cannot be read again ends the delivery, and is not acknowledged: after a restart
// the journal declares a gap or delivers it.
func TestDeliveryEndsIfARecordCannotBeReadAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in, out := newSource(), &scripted{}
		in.failures["record-2."] = slices.Repeat([]error{io.ErrUnexpectedEOF}, 100)
		in.add(sinktest.Records(0, 5))
		_, wait := start(t.Context(), delivery.Options{Consumer: in, Sink: out, Limits: sink.Limits{MinBackoff: time.Second}})
		if err := wait(); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("delivery ended with %v", err)
		}
		if got, want := out.messages(), []string{"record-0.", "record-1."}; !slices.Equal(got, want) {
			t.Errorf("delivered %v, want %v", got, want)
		}
		if got := in.lastAck(); got != 2 {
			t.Errorf("acknowledged up to %d, want 2", got)
		}
	})
}

// A gap record that is not in the log is kept until it is accepted, in its order.
func TestDeliveryKeepsWhatIsNotInTheLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in, out := newSource(), &scripted{answers: []error{errors.New("503")}}
		gap := event.Gap{Namespace: "default", Cause: event.CauseOverflow, MissedAtLeast: 7}
		message := event.NewGap(gap).Event.Message
		in.add(inNamespaces(1, sinktest.Records(0, 2)))
		gap.Namespace = "ns-0"
		in.declare(gap)
		in.add(inNamespaces(1, sinktest.Records(2, 2)))
		d, wait := start(t.Context(), delivery.Options{Consumer: in, Sink: out, Logger: slog.New(slog.DiscardHandler)})
		d.Drain()
		if err := wait(); err != nil {
			t.Fatal(err)
		}
		if got, want := out.messages(), []string{"record-0.", "record-1.", message, "record-2.", "record-3."}; !slices.Equal(got, want) {
			t.Errorf("delivered %q\nwant %q", got, want)
		}
		if got := in.lastAck(); got != 5 {
			t.Errorf("acknowledged up to %d, want 5", got)
		}
	})
}
