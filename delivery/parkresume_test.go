package delivery_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hindsight-events/hindsight/delivery"
	"github.com/hindsight-events/hindsight/delivery/parked"
	"github.com/hindsight-events/hindsight/event"
	"github.com/hindsight-events/hindsight/sink"
	"github.com/hindsight-events/hindsight/sink/sinktest"
)

// park adds records to a queue.
func park(t *testing.T, q *parked.Queue, records ...event.Record) {
	t.Helper()
	for i := range records {
		b, err := records[i].AppendBinary(nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := q.Append(b, []int{len(b)}, time.Now()); err != nil {
			t.Fatal(err)
		}
	}
}

// Records are parked on disk before they are acknowledged; the next process sends them.
func TestParkedRecordsSurviveARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		in, out := newJournal(), &fakeSink{takes: time.Millisecond, answer: refuseFaulty}
		addAll(in)
		ctx, cancel := context.WithCancel(t.Context())
		_, wait := start(ctx, delivery.Options{Consumer: in, Sink: out, Parked: openParked(t, parked.Options{Dir: dir}), Limits: smallLimits})
		time.Sleep(time.Minute)
		cancel()
		if err := wait(); err != nil {
			t.Fatal(err)
		}
		wantAck(t, in, parkRecords)

		in, out = newJournal(), &fakeSink{takes: time.Millisecond}
		in.add(inNamespaces(parkStreams, sinktest.Records(parkRecords, 100)))
		store := openParked(t, parked.Options{Dir: dir})
		d, wait := start(t.Context(), delivery.Options{Consumer: in, Sink: out, Parked: store, Limits: smallLimits})
		time.Sleep(time.Minute)
		finish(t, d, wait)
		if got, want := ofFaulty(out.messages()), wantFaulty(faultyRecords+5); !slices.Equal(got, want) {
			t.Errorf("%d records of the stream accepted, want %d in order", len(got), len(want))
		}
		if n, _ := store.Size(); n != 0 {
			t.Errorf("%d records are still parked", n)
		}
	})
}

// After a change of the labels, the records of a queue may belong to several streams, one
// of which has the name of the queue.
func TestParkedRecordsAreReassignedToTheirStreams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := parked.NewMemory(0)
		records := inNamespaces(2, sinktest.Records(1, 5))
		park(t, store.Queue("ns-0"), records[1:]...) // the first is in ns-1
		out := &fakeSink{takes: time.Millisecond}
		start(t.Context(), delivery.Options{Consumer: newJournal(), Sink: out, Parked: store})
		time.Sleep(time.Minute)
		synctest.Wait()
		got := out.messages()
		slices.Sort(got)
		if want := numbered(2, 3, 4, 5); !slices.Equal(got, want) {
			t.Errorf("accepted %q, want %q", got, want)
		}
	})
}

func TestRecordsParkedOnDiskTakeNoMemory(t *testing.T) {
	const streams, size = 50, 200 << 10
	store := openParked(t, parked.Options{Dir: t.TempDir()})
	for i := range streams {
		r := inNamespace(fmt.Sprintf("ns-%d", i), i)
		r[0].Event.Message = strings.Repeat("x", size)
		park(t, store.Queue(r[0].Event.Namespace), r...)
	}
	heap := func() uint64 {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := heap()
	synctest.Test(t, func(t *testing.T) {
		in, out := newJournal(), &fakeSink{takes: time.Millisecond}
		out.setAnswer(func(context.Context, *sink.Batch) error { return errors.New("push: 504") })
		start(t.Context(), delivery.Options{Consumer: in, Sink: out, Parked: store})
		time.Sleep(30 * time.Minute)
		synctest.Wait()
		if n := len(out.attempts); n < streams {
			t.Errorf("%d attempts", n)
		}
		if after := heap(); after > before+streams*size/4 {
			t.Errorf("%d KiB more in memory, %d KiB are parked", (after-before)>>10, streams*size>>10)
		}
	})
}
