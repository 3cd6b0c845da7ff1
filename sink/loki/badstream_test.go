package loki_test

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hindsight-events/hindsight/internal/quantity"
	"github.com/hindsight-events/hindsight/sink"
	"github.com/hindsight-events/hindsight/sink/loki"
	"github.com/hindsight-events/hindsight/sink/sinktest"
	"github.com/hindsight-events/hindsight/test/fakeloki"
)

// If Loki accepts other streams, the cause is a record, whatever the response: a rule of a gateway,
// a closed connection, a timeout of a proxy.
func TestBadRecordIsIsolatedIfOtherStreamsAreAccepted(t *testing.T) {
	t.Parallel()
	for name, status := range map[string]int{"403": 403, "429": 429, "502": 502, "504": 504, "no response": 0} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := startLoki(t)
			dir := t.TempDir()
			s := newSink(t, l.URL, func(_ *loki.Config, o *loki.Options) { o.DeadLetterDir = dir })
			l.ScriptPushes(rejectPushesWith(t, status, "no", 137))
			b := sinktest.Batch(s, sinktest.Records(0, 300))
			var rejected *sink.Error
			for range 60 {
				err := s.Send(t.Context(), b)
				if rejected = asError(t, err); len(rejected.Rejected) > 0 {
					break
				}
				b.Isolate = true // as the delivery does after the first failure
			}
			if len(rejected.Rejected) != 1 || rejected.Rejected[0].Index != 137 {
				t.Fatalf("got %v, want record 137 rejected", rejected)
			}
			if n := len(distinctLines(l)); n != 299 {
				t.Errorf("%d records stored, want 299", n)
			}
			if letters := readDeadLetters(t, filepath.Join(dir, "loki.jsonl")); len(letters) != 1 || number(t, letters[0].Entry.Line) != 137 {
				t.Errorf("dead letters are %+v", letters)
			}
		})
	}
}

func TestPushThatTimesOutIsHalved(t *testing.T) {
	t.Parallel()
	l := startLoki(t)
	l.ScriptPushes(func(p *fakeloki.Push) fakeloki.Response {
		if p.Request.ContentLength > 2000 {
			return l.Hang(p)
		}
		return accept(p)
	})
	s := newSink(t, l.URL, func(c *loki.Config, _ *loki.Options) { c.Timeout = quantity.Duration(300 * time.Millisecond) })
	failed, rejected := send(t, s, sinktest.Batch(s, sinktest.Records(0, 200)), 60)
	if rejected != nil {
		t.Fatalf("records rejected: %v", rejected)
	}
	for _, err := range failed {
		if err.Reason != sink.ReasonTimeout {
			t.Errorf("failed with %v, want a timeout", err)
		}
	}
	if n := len(distinctLines(l)); n != 200 {
		t.Errorf("%d records stored, want 200", n)
	}
}

// A batch that does not begin with the records of the unfinished one does not inherit its state.
func TestStateBelongsToItsRecords(t *testing.T) {
	t.Parallel()
	l := startLoki(t)
	s := newSink(t, l.URL, nil)
	n := 0
	l.ScriptPushes(func(p *fakeloki.Push) fakeloki.Response {
		switch n++; {
		case len(p.Entries()) > 30:
			return fakeloki.Response{Status: 413}
		case n == 4:
			return fakeloki.Response{Status: 503}
		}
		return accept(p)
	})
	err := asError(t, s.Send(t.Context(), sinktest.Batch(s, sinktest.Records(0, 100))))
	if !err.Progress || len(storedLines(l)) == 0 {
		t.Fatalf("got %v with %d stored, want progress", err, len(storedLines(l)))
	}
	l.Clear()
	if failed, _ := send(t, s, sinktest.Batch(s, sinktest.Records(10, 120)), 5); len(failed) > 0 {
		t.Fatal(failed)
	}
	if n := len(storedLines(l)); n != 120 {
		t.Errorf("%d of 120 records stored", n)
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
