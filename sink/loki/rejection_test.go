package loki_test

import (
	"fmt"
	"path/filepath"
	"slices"
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

func TestMessagesOfLokiVersions(t *testing.T) {
	t.Parallel()
	const labels = `{cluster="prod", job="hindsight", namespace="team-a", reason="Pulled"}`
	at := sinktest.Records(0, 1)[0].Time.UTC()
	second := at.Format(time.RFC3339)
	for name, c := range map[string]struct {
		status   int
		body     string
		rejected bool // the first of three entries is rejected; else all are pending
		stream   bool // the error concerns the stream only
	}{
		"3.7 too old":           {400, "entry for stream '" + labels + "' has timestamp too old: " + second + ", oldest acceptable timestamp is: 2026-01-01T00:00:00Z\n", true, false},
		"3.6 line too long":     {400, "max entry size '10' bytes exceeded for stream '" + labels + "' while adding an entry with length '%d' bytes\n", true, false},
		"2.9 line too long":     {400, "Max entry size '10' bytes exceeded for stream '" + labels + "' while adding an entry with length '%d' bytes\n", true, false},
		"3.0 metadata":          {400, "stream '" + labels + "' has structured metadata too large: '%m' bytes, limit: '1' bytes. Please see `limits_config.structured_metadata_max_size` or contact your Loki administrator to increase it.\n", true, false},
		"2.9 too far behind":    {400, "entry with timestamp " + at.String() + " ignored, reason: 'entry too far behind, oldest acceptable timestamp is: 2026-01-01T00:00:00Z',\nuser 'fake', total ignored: 1 out of 3 for stream: " + labels + "\n", true, false},
		"3.7 too far behind":    {400, "entry with timestamp " + at.String() + " ignored, reason: 'entry too far behind, entry timestamp is: " + second + ", oldest acceptable timestamp is: 2026-01-01T00:00:00Z',\nuser 'fake', total ignored: 1 out of 3 for stream: " + labels + "\n", true, false},
		"2.9 streams":           {429, "Maximum active stream limit exceeded, reduce the number of active streams (reduce labels or reduce label values), or contact your Loki administrator to see if the limit can be increased, user: 'fake'\n", false, true},
		"3.5 streams":           {429, "Maximum active stream limit exceeded when trying to create stream " + labels + ", reduce the number of active streams (reduce labels or reduce label values), or contact your Loki administrator to see if the limit can be increased, user: 'fake'\n", false, true},
		"3.7 streams":           {429, "maximum active stream limit exceeded when trying to create stream " + labels + ", reduce the number of active streams (reduce labels or reduce label values), or contact your Loki administrator to see if the limit can be increased, user: 'fake'\n", false, true},
		"2.9 labels":            {400, "Error parsing labels '" + labels + "' with error: 1:2: parse error\n", false, true},
		"3.7 labels":            {400, "error parsing labels '" + labels + "' with error: 1:2: parse error\n", false, true},
		"3.4 required labels":   {400, "missing required labels team for user fake\n", false, true},
		"3.7 required labels":   {400, "missing required labels 'team' for user 'fake' for stream '" + labels + "' (policy: '')\n", false, true},
		"2.9 tenant's rate":     {429, "Ingestion rate limit exceeded for user fake (limit: 1 bytes/sec) while attempting to ingest '3' lines totaling '9' bytes, reduce log volume or contact your Loki administrator to see if the limit can be increased\n", false, false},
		"a ring without enough": {500, "at least 2 live replicas required, could only find 1\n", false, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := startLoki(t)
			s := newSink(t, l.URL, nil)
			l.ScriptPushes(func(p *fakeloki.Push) fakeloki.Response {
				first := p.Entries()[0]
				size := 0
				for name, value := range first.Metadata {
					size += len(name) + len(value)
				}
				body := strings.NewReplacer("%d", fmt.Sprint(len(first.Line)), "%m", fmt.Sprint(size)).Replace(c.body)
				return fakeloki.Response{Status: c.status, Body: body}
			})
			records := sinktest.Records(0, 3)
			records[0].Event.Message += " which is longer"
			records[0].Event.InvolvedObject.Name += "-longer"
			err := asError(t, s.Send(t.Context(), sinktest.Batch(s, records)))
			var rejected []int
			for _, r := range err.Rejected {
				rejected = append(rejected, r.Index)
			}
			if c.rejected != slices.Equal(rejected, []int{0}) || !c.rejected && rejected != nil {
				t.Errorf("records %v are rejected: %v", rejected, err)
			}
			if err.StreamOnly != c.stream {
				t.Errorf("StreamOnly is %v, want %v: %v", err.StreamOnly, c.stream, err)
			}
		})
	}
}
