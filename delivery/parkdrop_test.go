package delivery_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/hindsight-events/hindsight/delivery"
	"github.com/hindsight-events/hindsight/delivery/parked"
	"github.com/hindsight-events/hindsight/sink"
	"github.com/hindsight-events/hindsight/sink/sinktest"
)

// Beyond the bound, the oldest records become dead letters. They are counted, and this is
// logged once.
func TestOldestParkedRecordsAreDroppedBeyondTheBound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log strings.Builder
		in, out := newJournal(), &fakeSink{takes: time.Millisecond, answer: refuseFaulty}
		addAll(in)
		metrics := prometheus.NewRegistry()
		store := parked.NewMemory(50_000)
		d, wait := start(t.Context(), delivery.Options{
			Consumer: in, Sink: out, Parked: store, Metrics: delivery.NewMetrics(metrics),
			Logger: slog.New(slog.NewTextHandler(&log, nil)), Limits: smallLimits,
		})
		time.Sleep(90 * time.Second)
		synctest.Wait()
		records, bytes := store.Size()
		if bytes > 50_000 || bytes < 40_000 {
			t.Errorf("%d bytes are parked, want at most 50000", bytes)
		}
		if want := wantFaulty(faultyRecords - records); !slices.Equal(out.dead, want) || len(want) == 0 {
			t.Errorf("%d dead letters, want the oldest %d", len(out.dead), len(want))
		}
		if n := strings.Count(log.String(), "exceed their bound"); n != 1 {
			t.Errorf("logged %d times", n)
		}
		if err := d.Ready(); err == nil || !strings.Contains(err.Error(), "push: 403") || !strings.Contains(err.Error(), faulty) {
			t.Errorf("Ready returns %v", err)
		}
		out.setAnswer(nil)
		time.Sleep(10 * time.Minute)
		if err := d.Ready(); err != nil {
			t.Errorf("Ready returns %v after the recovery", err)
		}
		finish(t, d, wait)
		if got := len(ofFaulty(out.messages())); got != records {
			t.Errorf("%d of %d parked records accepted", got, records)
		}
		want := strings.NewReader(fmt.Sprintf(`
# HELP hindsight_sink_dropped_total Records that will never reach the sink, by reason.
# TYPE hindsight_sink_dropped_total counter
hindsight_sink_dropped_total{reason="damage",sink="test"} 0
hindsight_sink_dropped_total{reason="overflow",sink="test"} 0
hindsight_sink_dropped_total{reason="parked_expired",sink="test"} 0
hindsight_sink_dropped_total{reason="parked_lost",sink="test"} 0
hindsight_sink_dropped_total{reason="parked_overflow",sink="test"} %d
hindsight_sink_dropped_total{reason="rejected",sink="test"} 0
hindsight_sink_dropped_total{reason="removed",sink="test"} 0
`, len(out.dead)))
		if err := testutil.GatherAndCompare(metrics, want, "hindsight_sink_dropped_total"); err != nil {
			t.Error(err)
		}
	})
}

// A stream of a single record is parked like any other. Its failure does not make the
// sink unready if it may pass. The record is dropped after a week.
func TestParkedRecordExpiresAfterAWeek(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in, out := newJournal(), &fakeSink{takes: time.Millisecond}
		out.setAnswer(func(_ context.Context, b *sink.Batch) error {
			if strings.HasPrefix(string(b.Data), "record-7.") {
				return errors.New("503")
			}
			return nil
		})
		store := parked.NewMemory(0)
		d, wait := start(t.Context(), delivery.Options{Consumer: in, Sink: out, Parked: store})
		in.add(inNamespaces(10, sinktest.Records(0, 10)))
		for i := range 10 {
			time.Sleep(20 * time.Second)
			in.add(inNamespace("other", 10+i))
		}
		time.Sleep(time.Hour)
		if n, _ := store.Size(); n != 1 {
			t.Errorf("%d records are parked, want 1", n)
		}
		wantAck(t, in, 20)
		if err := d.Ready(); err != nil {
			t.Errorf("Ready returns %v", err)
		}
		time.Sleep(8 * 24 * time.Hour)
		synctest.Wait()
		if n, _ := store.Size(); n != 0 || !slices.Equal(out.dead, numbered(7)) {
			t.Errorf("after 8 days, %d records are parked and %v are dead letters", n, out.dead)
		}
		finish(t, d, wait)
	})
}

// Without a store, a delivery ends although a stream is refused, and drops its records
// with the last error, even if no operator can fix it.
func TestParkedRecordsAreDroppedAtTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in, out := newJournal(), &fakeSink{takes: time.Millisecond}
		out.setAnswer(refuse(faulty, &sink.Error{Reason: sink.ReasonRateLimited, Err: errors.New("push: 429")}))
		addAll(in)
		began := time.Now()
		var reasons []string
		d, wait := start(t.Context(), delivery.Options{
			Consumer: in, Sink: out, OnRejected: func(reason string) { reasons = append(reasons, reason) },
			Limits: sink.Limits{BatchBytes: 500, Concurrency: 16},
		})
		finish(t, d, wait)
		if took := time.Since(began); took > time.Minute {
			t.Errorf("took %v", took)
		}
		if n := d.DropParked(); n != faultyRecords || len(out.dead) != faultyRecords {
			t.Errorf("%d records dropped, %d dead letters; want %d", n, len(out.dead), faultyRecords)
		}
		if len(reasons) == 0 {
			t.Error("no reason")
		}
		for _, r := range reasons {
			if !strings.HasSuffix(r, "push: 429") {
				t.Errorf("the reason is %q", r)
			}
		}
		wantAck(t, in, parkRecords)
		if n := len(out.messages()); n != parkRecords-faultyRecords {
			t.Errorf("%d good records accepted", n)
		}
	})
}

// A damaged file of parked records is counted once. Later records are parked once and
// within the bound.
func TestDamagedParkedRecordsAreDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		store := openParked(t, parked.Options{Dir: dir})
		in, out := newJournal(), &fakeSink{takes: time.Millisecond, answer: refuseFaulty}
		metrics := prometheus.NewRegistry()
		start(t.Context(), delivery.Options{
			Consumer: in, Sink: out, Parked: store, Metrics: delivery.NewMetrics(metrics), Limits: smallLimits,
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
			t.Errorf("%d bytes are parked, want at most %d", size, bound)
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
			t.Errorf("%v records counted as damaged, %d were parked", got, before)
		}
		wantAck(t, in, parkRecords+100*more)
	})
}
