package loki_test

import (
	"errors"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/hindsight-events/hindsight/sink"
	"github.com/hindsight-events/hindsight/sink/loki"
	"github.com/hindsight-events/hindsight/sink/sinktest"
)

// poison answers badly to each push that holds one of the records.
func poison(t *testing.T, status int, body string, records ...int) func(http.ResponseWriter, string, []entry) (int, string) {
	return func(_ http.ResponseWriter, _ string, entries []entry) (int, string) {
		for _, e := range entries {
			if slices.Contains(records, number(t, e.line)) {
				return status, body
			}
		}
		return http.StatusNoContent, ""
	}
}

func TestPushThatIsRefusedAsAWhole(t *testing.T) {
	for name, status := range map[string]int{"400": 400, "422": 422, "500": 500, "413": 413} {
		t.Run(name, func(t *testing.T) {
			d := newServer(t)
			dir := t.TempDir()
			s := newSink(t, d.URL, func(_ *loki.Config, o *loki.Options) { o.DeadLetterDir = dir })
			d.answer = poison(t, status, "no", 0, 337, 338, 999)
			failed, refused := send(t, s, sinktest.Batch(s, sinktest.Records(0, 1000)), 40)
			if refused == nil || len(refused.Rejected) != 4 {
				t.Fatalf("got %v, want 4 records refused", refused)
			}
			for i, want := range []int{0, 337, 338, 999} {
				if got := refused.Rejected[i]; got.Index != want || !strings.Contains(got.Reason, ": no") {
					t.Errorf("refused is %+v, want record %d", got, want)
				}
			}
			distinct := map[string]bool{}
			for _, line := range d.stored {
				distinct[line] = true
			}
			// Where nothing else of the batch was left, a stored one was sent again
			// to see whether it is the record or Loki.
			if again := len(d.stored) - len(distinct); len(distinct) != 996 || again > 4 {
				t.Errorf("%d stored and %d of them again, want 996 and at most 4", len(distinct), again)
			}
			if len(failed) < 8 {
				t.Errorf("only %d attempts until they were given up", len(failed))
			}
			letters := readLetters(t, filepath.Join(dir, "loki.jsonl"))
			if len(letters) != 4 || letters[1].Status != status || number(t, letters[1].Entry.Line) != 337 ||
				letters[1].Labels != `{cluster="prod", job="hindsight", namespace="team-a", reason="Pulled"}` ||
				letters[1].Entry.Metadata["event_version"] != "1337" ||
				!letters[1].Entry.Timestamp.Equal(sinktest.Records(337, 1)[0].Time) {
				t.Errorf("dead letters are %+v", letters)
			}
		})
	}
}

func TestNothingIsGivenUpWhileNothingOfTheStreamIsAccepted(t *testing.T) {
	for name, c := range map[string]struct{ status, records int }{
		"a proxy that answers everything with 400": {400, 100},
		"a Loki that answers everything with 500":  {500, 100},
		"a proxy that takes nothing at all":        {413, 100},
		"a single record that is always refused":   {400, 1},
	} {
		t.Run(name, func(t *testing.T) {
			d := newServer(t)
			s := newSink(t, d.URL, nil)
			d.answer = func(http.ResponseWriter, string, []entry) (int, string) { return c.status, "" }
			b := sinktest.Batch(s, sinktest.Records(0, c.records))
			var last *sink.Error
			for range 50 {
				last = asError(t, s.Send(t.Context(), b))
				if len(last.Rejected) > 0 || last.Permanent {
					t.Fatalf("given up: %v", last)
				}
			}
			if last.StreamOnly {
				t.Error("it is called the fault of one stream, which only other streams can show")
			}
			if len(d.requests) > 150 {
				t.Errorf("%d pushes in 50 attempts", len(d.requests))
			}
			d.set(func() { d.answer = nil })
			if failed, refused := send(t, s, b, 10); len(failed) > 0 || refused != nil {
				t.Errorf("after it was mended: %v, %v", failed, refused)
			}
			seen := map[string]bool{}
			for _, line := range d.stored {
				seen[line] = true
			}
			if len(seen) != c.records {
				t.Errorf("%d records stored, want %d", len(seen), c.records)
			}
		})
	}
}

func TestOutageIsNotMistakenForBadRecords(t *testing.T) {
	d := newServer(t)
	s := newSink(t, d.URL, nil)
	n := 0
	d.answer = func(http.ResponseWriter, string, []entry) (int, string) {
		if n++; n%2 == 1 {
			return 500, "rpc error: code = Unavailable"
		}
		return http.StatusNoContent, ""
	}
	for i := range 20 {
		if _, refused := send(t, s, sinktest.Batch(s, sinktest.Records(i*100, 100)), 100); refused != nil {
			t.Fatalf("given up: %v", refused)
		}
	}
}

func TestOutageInTheMiddleOfABatchIsNotMistakenForBadRecords(t *testing.T) {
	d := newServer(t)
	s := newSink(t, d.URL, nil)
	accepted := 0
	d.answer = func(_ http.ResponseWriter, _ string, entries []entry) (int, string) {
		if len(entries) > 60 || accepted > 40 {
			return 500, "empty ring"
		}
		accepted += len(entries)
		return http.StatusNoContent, ""
	}
	b := sinktest.Batch(s, sinktest.Records(0, 100))
	for range 100 {
		if why := asError(t, s.Send(t.Context(), b)); len(why.Rejected) > 0 {
			t.Fatalf("given up: %v", why)
		}
	}
	if accepted == 0 {
		t.Fatal("nothing was accepted before the outage")
	}
	d.set(func() { d.answer = nil })
	if _, refused := send(t, s, b, 10); refused != nil {
		t.Errorf("given up: %v", refused)
	}
	if len(d.stored) != 100 {
		t.Errorf("%d stored, want 100", len(d.stored))
	}
}

func TestPushThatIsTooLarge(t *testing.T) {
	for name, answer := range map[string]struct {
		status int
		body   string
	}{
		"a proxy's bound":     {413, "<html>413 Request Entity Too Large"},
		"a bound inside Loki": {500, "rpc error: code = ResourceExhausted desc = grpc: received message larger than max (5242891 vs. 4194304)\n"},
	} {
		t.Run(name, func(t *testing.T) {
			d := newServer(t)
			s := newSink(t, d.URL, nil)
			d.answer = func(_ http.ResponseWriter, _ string, entries []entry) (int, string) {
				if len(entries) > 30 {
					return answer.status, answer.body
				}
				return http.StatusNoContent, ""
			}
			if failed, refused := send(t, s, sinktest.Batch(s, sinktest.Records(0, 100)), 10); len(failed) > 0 || refused != nil {
				t.Errorf("got %v, %v; want it to be split at once", failed, refused)
			}
			if len(d.stored) != 100 {
				t.Errorf("%d stored, want 100", len(d.stored))
			}
		})
	}
}

func TestBurstBelowTheSizeOfABatch(t *testing.T) {
	d := newServer(t)
	s := newSink(t, d.URL, nil)
	d.answer = func(_ http.ResponseWriter, _ string, entries []entry) (int, string) {
		if len(entries) > 10 {
			return 429, "ingestion rate limit exceeded for user fake (limit: 1000 bytes/sec) while attempting to ingest"
		}
		return http.StatusNoContent, ""
	}
	if _, refused := send(t, s, sinktest.Batch(s, sinktest.Records(0, 100)), 100); refused != nil {
		t.Errorf("given up: %v", refused)
	}
	if len(d.stored) != 100 {
		t.Errorf("%d stored, want 100", len(d.stored))
	}
}

func TestWhatIsStoredIsNotSentAgain(t *testing.T) {
	d := newServer(t)
	s := newSink(t, d.URL, nil)
	n := 0
	d.answer = func(_ http.ResponseWriter, _ string, entries []entry) (int, string) {
		switch n++; {
		case len(entries) > 30:
			return 413, ""
		case n == 5:
			return 503, ""
		}
		return http.StatusNoContent, ""
	}
	b := sinktest.Batch(s, sinktest.Records(0, 100))
	failed, _ := send(t, s, b, 10)
	if len(failed) != 1 || len(d.stored) != 100 {
		t.Errorf("%d attempts failed, %d entries stored; want 1 and 100", len(failed), len(d.stored))
	}
	// The next batch of the stream begins afresh.
	if err := s.Send(t.Context(), sinktest.Batch(s, sinktest.Records(100, 20))); err != nil {
		t.Fatal(err)
	}
	if got := d.sizes[len(d.sizes)-1]; got != 20 {
		t.Errorf("the next batch went out with %d entries, want 20", got)
	}
}

// A record that is refused alone is found out once others of its stream join it.
func TestBadRecordIsFoundOutByWhatComesLater(t *testing.T) {
	d := newServer(t)
	s := newSink(t, d.URL, nil)
	d.answer = poison(t, http.StatusInternalServerError, "no", 0)
	for range 20 {
		err := s.Send(t.Context(), sinktest.Batch(s, sinktest.Records(0, 1)))
		var why *sink.Error
		if !errors.As(err, &why) || why.Permanent {
			t.Fatalf("got %v, want an error that may be retried", err)
		}
	}
	longer := sinktest.Batch(s, sinktest.Records(0, 3))
	_, refused := send(t, s, longer, 40)
	if refused == nil || len(refused.Rejected) != 1 || refused.Rejected[0].Index != 0 {
		t.Fatalf("got %v, want the first record refused", refused)
	}
	for _, m := range []string{"record-1.", "record-2."} {
		if !strings.Contains(d.Received(), m) {
			t.Errorf("%s was not stored", m)
		}
	}
}
