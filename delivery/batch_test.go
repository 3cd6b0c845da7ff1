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
	"github.com/hindsight-events/hindsight/journal"
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
			in.failures[fmt.Sprintf("record-%d.", i)] = slices.Repeat([]error{journal.ErrDamaged}, 10)
		}
		in.mu.Unlock()
		d.Drain()
		if err := wait(); err != nil {
			t.Fatal(err)
		}
		if got, want := out.messages(), []string{"record-0.", "record-1.", "record-2."}; !slices.Equal(got, want) {
			t.Errorf("delivered %v, want %v", got, want)
		}
		if len(in.lost) > 0 {
			t.Errorf("%v were given up", in.lost)
		}
	})
}

// A batch of a stream that is refused alone is read again, for there may be many:
// it is the same, and a record that was damaged meanwhile is a gap at its place, by
// which the sink knows it.
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
		in.failures["record-1."] = []error{journal.ErrDamaged}
		in.mu.Unlock()
		d.Drain()
		if err := wait(); err != nil {
			t.Fatal(err)
		}
		whole := []string{"record-0.", "record-1.", "record-2."}
		lost := false
		for i, records := range offered[:5] {
			if len(records) > 1 && records[1] != whole[1] {
				lost = true
			}
			if lost {
				records[1] = whole[1]
			}
			if !slices.Equal(records, whole) {
				t.Errorf("attempt %d offers %v, want %v", i, records, whole)
			}
			if i == 0 && lost || i == 4 && !lost {
				t.Errorf("attempt %d: the gap is there: %v", i, lost)
			}
		}
		if got := in.lastAck(); got != 5 || len(in.lost) != 1 {
			t.Errorf("acknowledged up to %d, lost %v", got, in.lost)
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

// A record that was damaged between being found and being sent is missed, and
// nothing else is: a gap record takes its place, for whose acceptance the
// acknowledgement waits.
func TestDeliveryTellsOfWhatTheJournalLost(t *testing.T) {
	for name, c := range map[string]struct {
		records []event.Record
		damaged []int
		err     error
		limits  sink.Limits
	}{
		"the first of a stream":              {inNamespaces(2, sinktest.Records(0, 8)), []int{0}, journal.ErrDamaged, sink.Limits{}},
		"one in the middle":                  {inNamespaces(2, sinktest.Records(0, 8)), []int{3}, journal.ErrDamaged, sink.Limits{}},
		"the last of a stream":               {inNamespaces(2, sinktest.Records(0, 8)), []int{7}, journal.ErrDamaged, sink.Limits{}},
		"all of a stream":                    {inNamespaces(2, sinktest.Records(0, 8)), []int{1, 3, 5, 7}, journal.ErrDamaged, sink.Limits{}},
		"everything":                         {inNamespaces(2, sinktest.Records(0, 4)), []int{0, 1, 2, 3}, journal.ErrDamaged, sink.Limits{}},
		"what can never be read":             {inNamespaces(2, sinktest.Records(0, 8)), []int{2}, io.ErrUnexpectedEOF, sink.Limits{}},
		"one of the stream gaps are in":      {inGaps(sinktest.Records(0, 5)), []int{1, 2}, journal.ErrDamaged, sink.Limits{}},
		"small batches":                      {inNamespaces(2, sinktest.Records(0, 8)), []int{2, 4, 5}, journal.ErrDamaged, sink.Limits{BatchBytes: 10}},
		"batches smaller than the journal's": {inNamespaces(2, sinktest.Records(0, 8)), []int{2, 4, 5}, journal.ErrDamaged, sink.Limits{BatchBytes: 25}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				in, out := newSource(), &scripted{}
				var want []string
				for i, r := range c.records {
					if slices.Contains(c.damaged, i) {
						in.failures[r.Event.Message] = slices.Repeat([]error{c.err}, 100)
					} else {
						want = append(want, r.Event.Message)
					}
				}
				in.add(c.records)
				d, wait := start(t.Context(), delivery.Options{Consumer: in, Sink: out, Limits: c.limits})
				time.Sleep(time.Hour)
				in.add(inNamespaces(2, sinktest.Records(100, 2)))
				want = append(want, "record-100.", "record-101.")
				d.Drain()
				if err := wait(); err != nil {
					t.Fatal(err)
				}
				var got []string
				gaps := 0
				for _, m := range out.messages() {
					if len(m) < len("record-100.")+1 {
						got = append(got, m)
					} else {
						gaps++
					}
				}
				slices.Sort(got)
				slices.Sort(want)
				if !slices.Equal(got, want) {
					t.Errorf("delivered %v\nwant %v", got, want)
				}
				if gaps != len(c.damaged) {
					t.Errorf("%d gaps were told of, want %d", gaps, len(c.damaged))
				}
				if len(in.lost) != len(c.damaged) {
					t.Errorf("offsets %v were given up, want %d", in.lost, len(c.damaged))
				}
				if got, want := in.lastAck(), uint64(len(c.records)+2); got != want {
					t.Errorf("acknowledged up to %d, want %d", got, want)
				}
			})
		})
	}
}

// inGaps puts records where gap records are.
func inGaps(records []event.Record) []event.Record {
	for i := range records {
		records[i].Event.Namespace = "gaps"
	}
	return records
}

func TestDeliveryAcknowledgesALossOnlyOnceItIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in := newSource()
		out := &scripted{answer: func(b *sink.Batch) error {
			if b.Stream == "gaps" {
				return &sink.Error{StreamOnly: true, Err: errors.New("no")}
			}
			return nil
		}}
		in.failures["record-2."] = []error{journal.ErrDamaged}
		in.add(sinktest.Records(0, 5))
		d, wait := start(t.Context(), delivery.Options{Consumer: in, Sink: out})
		time.Sleep(time.Minute)
		if got := in.lastAck(); got != 2 {
			t.Errorf("acknowledged up to %d before the gap behind 2 was accepted", got)
		}
		out.mu.Lock()
		out.answer = nil
		out.mu.Unlock()
		d.Drain()
		if err := wait(); err != nil {
			t.Fatal(err)
		}
		if got := in.lastAck(); got != 5 {
			t.Errorf("acknowledged up to %d, want 5", got)
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
