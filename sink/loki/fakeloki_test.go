package loki_test

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hindsight-events/hindsight/sink/loki"
	"github.com/hindsight-events/hindsight/sink/sinktest"
	"github.com/hindsight-events/hindsight/test/fakeloki"
)

// Each record of a push that Loki 2 or Loki 3 rejects in part is either stored once or a dead letter.
func TestEachRecordIsStoredOrADeadLetter(t *testing.T) {
	t.Parallel()
	for name, before3 := range map[string]bool{"Loki 2": true, "Loki 3": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := fakeloki.Start(t, fakeloki.Options{Before3: before3, Limits: fakeloki.Limits{MaxLineSize: 1000}})
			dir := t.TempDir()
			s := newSink(t, l.URL, func(_ *loki.Config, o *loki.Options) { o.DeadLetterDir = dir })
			now := time.Now().Truncate(time.Second)
			records := sinktest.Records(0, 100)
			bad := map[int]bool{}
			for i := range records {
				records[i].Time = now.Add(time.Duration(i-100)*time.Second + time.Duration(i))
				age := map[bool]time.Duration{i < 5: 8 * 24 * time.Hour, 20 <= i && i < 40: 3 * time.Hour, i >= 95: -time.Hour}[true]
				records[i].Time = records[i].Time.Add(-age)
				bad[i] = age != 0 || i == 50
			}
			records[50].Event.Message = "record-50. " + strings.Repeat("x", 1000)

			failed, rejected := send(t, s, sinktest.Batch(s, records), 10)
			if rejected == nil || len(failed) > 0 {
				t.Fatalf("the attempts end with %v, want some records rejected: %v", rejected, failed)
			}
			rejections := map[int]int{}
			for _, r := range rejected.Rejected {
				rejections[r.Index]++
			}
			stored := map[int]int{}
			for _, e := range l.Entries() {
				stored[number(t, e.Line)]++
			}
			for i := range records {
				wantRejections, wantStored := 0, 1
				if bad[i] {
					wantRejections, wantStored = 1, 0
				}
				if rejections[i] != wantRejections || stored[i] != wantStored {
					t.Errorf("record %d is rejected %d times and stored %d times, want %d and %d", i, rejections[i], stored[i], wantRejections, wantStored)
				}
			}
			if letters := readDeadLetters(t, filepath.Join(dir, "loki.jsonl")); len(letters) != len(rejections) {
				t.Errorf("%d dead letters, want %d", len(letters), len(rejections))
			}
		})
	}
}

func TestNothingIsRejectedIfLokiAcceptsNothing(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		options fakeloki.Options
		message string
	}{
		"no tenant":              {fakeloki.Options{Auth: true}, "set tenant_id"},
		"ingestion is blocked":   {fakeloki.Options{Limits: fakeloki.Limits{BlockIngestionUntil: time.Now().Add(time.Hour)}}, "ingestion blocked"},
		"no structured metadata": {fakeloki.Options{Limits: fakeloki.Limits{DisallowStructuredMetadata: true}}, "set structured_metadata: false"},
		"few labels":             {fakeloki.Options{Limits: fakeloki.Limits{MaxLabelNames: 2}}, "its labels exceed the limits"},
		"low rate of the tenant": {fakeloki.Options{Limits: fakeloki.Limits{IngestionBurst: 100}}, "ingestion rate limit exceeded"},
		"low rate of streams":    {fakeloki.Options{Limits: fakeloki.Limits{PerStreamBurst: 100}}, "Per stream rate limit exceeded"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := fakeloki.Start(t, c.options)
			s := newSink(t, l.URL, nil)
			for range 3 {
				err := asError(t, s.Send(t.Context(), recentBatch(s, 20)))
				if len(err.Rejected) > 0 || err.Permanent || !strings.Contains(err.Error(), c.message) {
					t.Fatalf("%d records rejected, permanent %v: %v; want %q", len(err.Rejected), err.Permanent, err, c.message)
				}
			}
			if n := len(l.Entries()); n > 0 {
				t.Errorf("%d entries are stored", n)
			}
		})
	}
}
