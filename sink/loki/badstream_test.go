package loki_test

import (
	"fmt"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hindsight-events/hindsight/internal/quantity"
	"github.com/hindsight-events/hindsight/sink"
	"github.com/hindsight-events/hindsight/sink/loki"
	"github.com/hindsight-events/hindsight/sink/sinktest"
)

// Where other streams are accepted, a record is to blame whatever the answer to it
// is: a gateway's rule, a connection that is closed, a proxy that gives up.
func TestBadRecordIsFoundByAnyAnswerWhereOtherStreamsAreAccepted(t *testing.T) {
	for name, status := range map[string]int{"403": 403, "429": 429, "502": 502, "504": 504, "no answer": 0} {
		t.Run(name, func(t *testing.T) {
			d := newServer(t)
			dir := t.TempDir()
			s := newSink(t, d.URL, func(_ *loki.Config, o *loki.Options) { o.DeadLetterDir = dir })
			d.answer = poison(t, status, "no", 137)
			b := sinktest.Batch(s, sinktest.Records(0, 300))
			var refused *sink.Error
			for range 60 {
				err := s.Send(t.Context(), b)
				if refused = asError(t, err); len(refused.Rejected) > 0 {
					break
				}
				b.Isolate = true // as the delivery has found out by now
			}
			if len(refused.Rejected) != 1 || refused.Rejected[0].Index != 137 {
				t.Fatalf("got %v, want record 137 refused", refused)
			}
			distinct := map[string]bool{}
			for _, line := range d.stored {
				distinct[line] = true
			}
			if len(distinct) != 299 {
				t.Errorf("%d records stored, want 299", len(distinct))
			}
			if letters := readLetters(t, filepath.Join(dir, "loki.jsonl")); len(letters) != 1 || number(t, letters[0].Entry.Line) != 137 {
				t.Errorf("dead letters are %+v", letters)
			}
		})
	}
}

// A push that takes too long is made smaller, not repeated as it is for ever.
func TestPushThatTimesOutIsHalved(t *testing.T) {
	d := newServer(t)
	inner := d.Config.Handler
	d.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ContentLength > 2000 {
			select {
			case <-r.Context().Done():
			case <-t.Context().Done():
			}
			return
		}
		inner.ServeHTTP(w, r)
	})
	s := newSink(t, d.URL, func(c *loki.Config, _ *loki.Options) { c.Timeout = quantity.Duration(300 * time.Millisecond) })
	b := sinktest.Batch(s, sinktest.Records(0, 200))
	failed, refused := send(t, s, b, 60)
	if refused != nil {
		t.Fatalf("given up: %v", refused)
	}
	for _, err := range failed {
		if err.Reason != sink.ReasonTimeout {
			t.Errorf("failed with %v, want a timeout", err)
		}
	}
	distinct := map[string]bool{}
	for _, line := range d.stored {
		distinct[line] = true
	}
	if len(distinct) != 200 {
		t.Errorf("%d records stored, want 200", len(distinct))
	}
}

// What is offered need not be what was offered before: then nothing is taken for
// stored.
func TestProgressIsThatOfTheSameRecords(t *testing.T) {
	d := newServer(t)
	s := newSink(t, d.URL, nil)
	n := 0
	d.answer = func(_ http.ResponseWriter, _ string, entries []entry) (int, string) {
		switch n++; {
		case len(entries) > 30:
			return 413, ""
		case n == 4:
			return 503, ""
		}
		return http.StatusNoContent, ""
	}
	why := asError(t, s.Send(t.Context(), sinktest.Batch(s, sinktest.Records(0, 100))))
	if !why.Progress || len(d.stored) == 0 {
		t.Fatalf("got %v with %d stored, want progress", why, len(d.stored))
	}
	d.set(func() { d.stored = nil })
	if failed, _ := send(t, s, sinktest.Batch(s, sinktest.Records(10, 120)), 5); len(failed) > 0 {
		t.Fatal(failed)
	}
	if len(d.stored) != 120 {
		t.Errorf("%d of 120 records stored", len(d.stored))
	}
}

// What Loki says of single entries and of streams, in the words of its versions.
func TestWordsOfTheVersions(t *testing.T) {
	const labels = `{cluster="prod", job="hindsight", namespace="team-a", reason="Pulled"}`
	at := sinktest.Records(0, 1)[0].Time.UTC()
	second := at.Format(time.RFC3339)
	for name, c := range map[string]struct {
		status  int
		body    string
		refused bool // the first of three entries; else all have to wait
		stream  bool // the delivery need not find out that it is about the stream
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
			d := newServer(t)
			s := newSink(t, d.URL, nil)
			d.answer = func(_ http.ResponseWriter, _ string, entries []entry) (int, string) {
				body := c.body
				if strings.Contains(body, "%d") {
					body = strings.ReplaceAll(body, "%d", fmt.Sprint(len(entries[0].line)))
				}
				size := 0
				for _, p := range entries[0].metadata {
					size += len(p[0]) + len(p[1])
				}
				return c.status, strings.ReplaceAll(body, "%m", fmt.Sprint(size))
			}
			records := sinktest.Records(0, 3)
			records[0].Event.Message += " which is longer"
			records[0].Event.InvolvedObject.Name += "-longer"
			why := asError(t, s.Send(t.Context(), sinktest.Batch(s, records)))
			var refused []int
			for _, r := range why.Rejected {
				refused = append(refused, r.Index)
			}
			if c.refused != slices.Equal(refused, []int{0}) || !c.refused && refused != nil {
				t.Errorf("refused are %v: %v", refused, why)
			}
			if why.StreamOnly != c.stream {
				t.Errorf("about the stream: %v, want %v: %v", why.StreamOnly, c.stream, why)
			}
		})
	}
}
