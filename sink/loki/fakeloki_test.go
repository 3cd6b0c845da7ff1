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

// Of a push that Loki refuses in part, in the words of Loki 2 and of Loki 3, each record is either
// stored, once, or a dead letter.
func TestEachRecordIsStoredOrADeadLetter(t *testing.T) {
	for name, before3 := range map[string]bool{"Loki 2": true, "Loki 3": false} {
		t.Run(name, func(t *testing.T) {
			l := fakeloki.Start(t, fakeloki.Options{Before3: before3, Limits: fakeloki.Limits{MaxLineSize: 1000}})
			dir := t.TempDir()
			s := newSink(t, l.URL, func(_ *loki.Config, o *loki.Options) { o.DeadLetterDir = dir })
			now := time.Now().Truncate(time.Second)
			records := sinktest.Records(0, 100)
			want := map[int]bool{} // refused
			for i := range records {
				records[i].Time = now.Add(time.Duration(i-100)*time.Second + time.Duration(i))
				age := map[bool]time.Duration{i < 5: 8 * 24 * time.Hour, 20 <= i && i < 40: 3 * time.Hour, i >= 95: -time.Hour}[true]
				records[i].Time = records[i].Time.Add(-age)
				want[i] = age != 0 || i == 50
			}
			records[50].Event.Message = "record-50. " + strings.Repeat("x", 1000)

			failed, refused := send(t, s, sinktest.Batch(s, records), 10)
			if refused == nil || len(failed) > 0 {
				t.Fatalf("the attempts end with %v, want some records refused: %v", refused, failed)
			}
			got := map[int]int{} // refused
			for _, r := range refused.Rejected {
				got[r.Index]++
			}
			stored := map[int]int{}
			for _, e := range l.Entries() {
				stored[number(t, e.Line)]++
			}
			for i := range records {
				refusals, copies := 0, 1
				if want[i] {
					refusals, copies = 1, 0
				}
				if got[i] != refusals || stored[i] != copies {
					t.Errorf("record %d is refused %d times and stored %d times, want %d and %d", i, got[i], stored[i], refusals, copies)
				}
			}
			if letters := readLetters(t, filepath.Join(dir, "loki.jsonl")); len(letters) != len(got) {
				t.Errorf("%d dead letters, want %d", len(letters), len(got))
			}
		})
	}
}

// Where Loki takes nothing, nothing is given up, and the error says what to do.
func TestNothingIsGivenUpWhereNothingIsTaken(t *testing.T) {
	for name, c := range map[string]struct {
		options fakeloki.Options
		says    string
	}{
		"no tenant":              {fakeloki.Options{Auth: true}, "set tenant_id"},
		"ingestion is blocked":   {fakeloki.Options{Limits: fakeloki.Limits{BlockIngestionUntil: time.Now().Add(time.Hour)}}, "ingestion blocked"},
		"no structured metadata": {fakeloki.Options{Limits: fakeloki.Limits{DisallowStructuredMetadata: true}}, "set structured_metadata: false"},
		"few labels":             {fakeloki.Options{Limits: fakeloki.Limits{MaxLabelNames: 2}}, "its labels are against the limits"},
		"low rate of the tenant": {fakeloki.Options{Limits: fakeloki.Limits{IngestionBurst: 100}}, "ingestion rate limit exceeded"},
		"low rate of streams":    {fakeloki.Options{Limits: fakeloki.Limits{PerStreamBurst: 100}}, "Per stream rate limit exceeded"},
	} {
		t.Run(name, func(t *testing.T) {
			l := fakeloki.Start(t, c.options)
			s := newSink(t, l.URL, nil)
			for range 3 {
				why := asError(t, s.Send(t.Context(), todays(s, 20)))
				if len(why.Rejected) > 0 || why.Permanent || !strings.Contains(why.Error(), c.says) {
					t.Fatalf("%d records refused, permanent %v: %v; want %q", len(why.Rejected), why.Permanent, why, c.says)
				}
			}
			if n := len(l.Entries()); n > 0 {
				t.Errorf("%d entries are stored", n)
			}
		})
	}
}
