package delivery_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/hindsight-events/hindsight/delivery"
	"github.com/hindsight-events/hindsight/delivery/parked"
	"github.com/hindsight-events/hindsight/event"
	"github.com/hindsight-events/hindsight/sink"
	"github.com/hindsight-events/hindsight/sink/sinktest"
)

func openParked(t *testing.T, o parked.Options) *parked.Store {
	t.Helper()
	store, err := parked.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	return store
}

// refuseBad refuses one stream.
func refuseBad(_ context.Context, b *sink.Batch) error {
	if b.Stream == bad {
		return &sink.Error{Reason: sink.ReasonUnauthorized, Err: errors.New("push: 403")}
	}
	return nil
}

// appendParked parks records in a queue.
func appendParked(t *testing.T, q *parked.Queue, records ...event.Record) {
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

// Of the records of a queue some may belong to a stream of its name after a change of
// the labels, and others to another one.
func TestParkedRecordsAreSortedIntoTheirStreams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := parked.NewMemory(0)
		appendParked(t, store.Queue("ns-0"), inNamespaces(2, sinktest.Records(1, 5))...)
		q := store.Queue("ns-0")
		records, err := q.Peek(100, 0)
		if err != nil || len(records) != 5 {
			t.Fatalf("%d records, %v", len(records), err)
		}
		out := &perStream{}
		// The first is of ns-1, if it is not of ns-0.
		if err := q.Drop(records[:1]); err != nil {
			t.Fatal(err)
		}
		start(t.Context(), delivery.Options{Consumer: newSource(), Sink: out, Parked: store})
		time.Sleep(time.Minute)
		synctest.Wait()
		got := out.messages()
		slices.Sort(got)
		if want := []string{"record-2.", "record-3.", "record-4.", "record-5."}; !slices.Equal(got, want) {
			t.Errorf("accepted %q, want %q", got, want)
		}
	})
}

// Where nothing can be parked, a stream that is mended is delivered from the journal.
func TestAStreamIsTriedWhileItCannotBeParked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "file")
		if err := os.WriteFile(file, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		blocked := parkedBelow(t, file)
		in, out := newSource(), &perStream{}
		out.set(refuseBad)
		addAll(in)
		start(t.Context(), delivery.Options{
			Consumer: in, Sink: out, Parked: blocked,
			Limits: sink.Limits{WindowBytes: parkRecords * recordBytes * 2, BatchBytes: 500, Concurrency: 16},
		})
		for i := range 10 {
			time.Sleep(time.Minute)
			in.add(inNamespaces(parkStreams, sinktest.Records(parkRecords+100*i, 100)))
		}
		out.set(nil)
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		if got := len(of(out.messages(), 7, parkStreams)); got != (parkRecords+1000)/parkStreams {
			t.Errorf("%d records of the stream arrived after it was mended, want %d", got, (parkRecords+1000)/parkStreams)
		}
		if got := in.lastAck(); got != parkRecords+1000 {
			t.Errorf("acknowledged up to %d", got)
		}
	})
}

// parkedBelow returns a store whose directory cannot be made.
func parkedBelow(t *testing.T, file string) *parked.Store {
	t.Helper()
	dir := filepath.Join(filepath.Dir(file), "dir")
	store := openParked(t, parked.Options{Dir: filepath.Join(dir, "loki")})
	if err := os.Rename(file, dir); err != nil {
		t.Fatal(err)
	}
	return store
}

// A damaged file of parked records is counted as lost once, and what is parked
// afterwards is parked once and within the bound.
func TestDamagedParkedRecordsDoNotEndTheBound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		store := openParked(t, parked.Options{Dir: dir})
		in, out := newSource(), &perStream{}
		out.set(refuseBad)
		metrics := prometheus.NewRegistry()
		start(t.Context(), delivery.Options{
			Consumer: in, Sink: out, Parked: store, Metrics: delivery.NewMetrics(metrics),
			Limits: sink.Limits{WindowBytes: 1000, BatchBytes: 500, Concurrency: 16},
		})
		addAll(in)
		time.Sleep(5 * time.Minute)
		synctest.Wait()

		before, bound := store.Size()
		store.SetMaxBytes(bound)
		files, err := filepath.Glob(filepath.Join(dir, "*"))
		if err != nil || len(files) != 1 {
			t.Fatalf("files %v, %v", files, err)
		}
		content, err := os.ReadFile(files[0])
		if err != nil {
			t.Fatal(err)
		}
		content = bytes.ReplaceAll(content, []byte("record-7."), []byte("record-8."))
		if err := os.WriteFile(files[0], content, 0o600); err != nil {
			t.Fatal(err)
		}
		const more = 40
		for i := range more {
			in.add(inNamespaces(parkStreams, sinktest.Records(parkRecords+100*i, 100)))
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if _, size := store.Size(); size > bound {
			t.Errorf("%d bytes are parked, want %d at most", size, bound)
		}
		want := strings.NewReader(fmt.Sprintf(`
# HELP hindsight_sink_parked_total Records parked because the destination refused their stream while it accepted others.
# TYPE hindsight_sink_parked_total counter
hindsight_sink_parked_total{sink="test"} %d
`, (parkRecords+100*more)/parkStreams))
		if err := testutil.GatherAndCompare(metrics, want, "hindsight_sink_parked_total"); err != nil {
			t.Error(err)
		}
		if got := dropped(t, metrics, "damage"); got < float64(before) || got > float64(before)+100*more/parkStreams {
			t.Errorf("%v records are counted as damaged, %d were parked", got, before)
		}
		if got := in.lastAck(); got != parkRecords+100*more {
			t.Errorf("acknowledged up to %d", got)
		}
	})
}

// dropped returns how many records are counted as dropped for a reason.
func dropped(t *testing.T, metrics *prometheus.Registry, reason string) (n float64) {
	t.Helper()
	families, err := metrics.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != "hindsight_sink_dropped_total" {
			continue
		}
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				if l.GetName() == "reason" && l.GetValue() == reason {
					n += m.GetCounter().GetValue()
				}
			}
		}
	}
	return n
}

// What is parked on disk takes no memory, however many streams are refused.
func TestParkedRecordsTakeNoMemory(t *testing.T) {
	const streams, each = 50, 200 << 10
	store := openParked(t, parked.Options{Dir: t.TempDir()})
	for i := range streams {
		r := sinktest.Records(i, 1)[0]
		r.Event.Namespace = fmt.Sprintf("ns-%d", i)
		r.Event.Message = strings.Repeat("x", each)
		appendParked(t, store.Queue(r.Event.Namespace), r)
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
		in, out := newSource(), &perStream{}
		out.set(func(context.Context, *sink.Batch) error { return errors.New("push: 504") })
		start(t.Context(), delivery.Options{Consumer: in, Sink: out, Parked: store})
		time.Sleep(30 * time.Minute)
		synctest.Wait()
		if n := len(out.attempts); n < streams {
			t.Errorf("%d attempts", n)
		}
		if after := heap(); after > before+streams*each/4 {
			t.Errorf("%d KiB more are in memory, %d KiB are parked", (after-before)>>10, streams*each>>10)
		}
	})
}

// What is given up at the end is said with the destination's last answer, also where
// nobody has to mend anything.
func TestParkedRecordsAreAbandonedWithTheAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in, out := newSource(), &perStream{}
		out.set(func(_ context.Context, b *sink.Batch) error {
			if b.Stream == bad {
				return &sink.Error{Reason: sink.ReasonRateLimited, Err: errors.New("push: 429")}
			}
			return nil
		})
		addAll(in)
		var reasons []string
		d, wait := start(t.Context(), delivery.Options{
			Consumer: in, Sink: out, OnRejected: func(reason string) { reasons = append(reasons, reason) },
			Limits: sink.Limits{WindowBytes: 1000, BatchBytes: 500, Concurrency: 16},
		})
		d.Drain()
		if err := wait(); err != nil {
			t.Fatal(err)
		}
		if n := d.DropParked(); n != parkRecords/parkStreams {
			t.Errorf("%d records are given up", n)
		}
		for _, r := range reasons {
			if !strings.HasSuffix(r, "push: 429") {
				t.Errorf("given up because %s", r)
			}
		}
	})
}

// A destination that takes less than is sent refuses no single stream: nothing is
// given up, although the journal waits.
func TestOverloadGivesNothingUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var (
			mu    sync.Mutex // guards taken
			taken time.Time
		)
		in, out := newSource(), &perStream{}
		out.set(func(context.Context, *sink.Batch) error {
			mu.Lock()
			defer mu.Unlock()
			if time.Since(taken) < 100*time.Millisecond {
				return &sink.Error{Reason: sink.ReasonRateLimited, Err: errors.New("push: 429")}
			}
			taken = time.Now()
			return nil
		})
		addAll(in)
		metrics := prometheus.NewRegistry()
		start(t.Context(), delivery.Options{
			Consumer: in, Sink: out, Parked: parked.NewMemory(200_000), Metrics: delivery.NewMetrics(metrics),
			Limits: sink.Limits{WindowBytes: 10_000, BatchBytes: 500, Concurrency: 16},
		})
		time.Sleep(time.Minute)
		out.set(nil)
		time.Sleep(30 * time.Minute)
		synctest.Wait()
		if got := dropped(t, metrics, "parked_overflow"); got > 0 {
			t.Errorf("%v records are given up", got)
		}
		if got := len(out.messages()); got != parkRecords {
			t.Errorf("%d of %d records arrived", got, parkRecords)
		}
	})
}
