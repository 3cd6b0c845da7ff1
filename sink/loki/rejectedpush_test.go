package loki_test

import (
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

// rejectPushesWith responds with a failure to each push that contains one of the records.
func rejectPushesWith(t *testing.T, status int, body string, records ...int) fakeloki.Script {
	return func(p *fakeloki.Push) fakeloki.Response {
		for _, e := range p.Entries() {
			if slices.Contains(records, number(t, e.Line)) {
				return fakeloki.Response{Status: status, Body: body}
			}
		}
		return accept(p)
	}
}

// acceptUpTo responds with a failure to pushes of more than n entries.
func acceptUpTo(n, status int, body string) fakeloki.Script {
	return func(p *fakeloki.Push) fakeloki.Response {
		if len(p.Entries()) > n {
			return fakeloki.Response{Status: status, Body: body}
		}
		return accept(p)
	}
}

func TestPushThatIsRejectedAsAWhole(t *testing.T) {
	t.Parallel()
	for name, status := range map[string]int{"400": 400, "422": 422, "500": 500, "413": 413} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := startLoki(t)
			dir := t.TempDir()
			s := newSink(t, l.URL, func(_ *loki.Config, o *loki.Options) { o.DeadLetterDir = dir })
			l.ScriptPushes(rejectPushesWith(t, status, "no", 0, 337, 338, 999))
			failed, rejected := send(t, s, sinktest.Batch(s, sinktest.Records(0, 1000)), 40)
			if rejected == nil || len(rejected.Rejected) != 4 {
				t.Fatalf("got %v, want 4 records rejected", rejected)
			}
			for i, want := range []int{0, 337, 338, 999} {
				if got := rejected.Rejected[i]; got.Index != want || !strings.Contains(got.Reason, ": no") {
					t.Errorf("got %+v, want record %d", got, want)
				}
			}
			// If no other entry of the batch was pending, a stored one was sent again as
			// a probe.
			distinct := len(distinctLines(l))
			if again := len(storedLines(l)) - distinct; distinct != 996 || again > 4 {
				t.Errorf("%d stored and %d of them again, want 996 and at most 4", distinct, again)
			}
			if len(failed) < 8 {
				t.Errorf("records were rejected after only %d attempts", len(failed))
			}
			letters := readDeadLetters(t, filepath.Join(dir, "loki.jsonl"))
			if len(letters) != 4 || letters[1].Status != status || number(t, letters[1].Entry.Line) != 337 ||
				letters[1].Labels != `{cluster="prod", job="hindsight", namespace="team-a", reason="Pulled"}` ||
				letters[1].Entry.Metadata["event_version"] != "1337" ||
				!letters[1].Entry.Timestamp.Equal(sinktest.Records(337, 1)[0].Time) {
				t.Errorf("dead letters are %+v", letters)
			}
		})
	}
}

func TestNothingIsRejectedIfNothingOfTheStreamIsAccepted(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ status, records int }{
		"a proxy responds with 400 to everything": {400, 100},
		"Loki responds with 500 to everything":    {500, 100},
		"a proxy responds with 413 to everything": {413, 100},
		"a single record is always rejected":      {400, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := startLoki(t)
			s := newSink(t, l.URL, nil)
			l.ScriptPushes(fakeloki.Respond(c.status, ""))
			b := sinktest.Batch(s, sinktest.Records(0, c.records))
			var last *sink.Error
			for range 50 {
				last = asError(t, s.Send(t.Context(), b))
				if len(last.Rejected) > 0 || last.Permanent {
					t.Fatalf("records rejected: %v", last)
				}
			}
			if last.StreamOnly {
				t.Error("StreamOnly is set, which only the delivery can know")
			}
			if n := len(l.Pushes()); n > 150 {
				t.Errorf("%d pushes in 50 attempts", n)
			}
			l.ScriptPushes(accept)
			if failed, rejected := send(t, s, b, 10); len(failed) > 0 || rejected != nil {
				t.Errorf("after the outage: %v, %v", failed, rejected)
			}
			if n := len(distinctLines(l)); n != c.records {
				t.Errorf("%d records stored, want %d", n, c.records)
			}
		})
	}
}

func TestOutageRejectsNoRecords(t *testing.T) {
	t.Parallel()
	l := startLoki(t)
	s := newSink(t, l.URL, nil)
	n := 0
	l.ScriptPushes(func(p *fakeloki.Push) fakeloki.Response {
		if n++; n%2 == 1 {
			return fakeloki.Response{Status: 500, Body: "rpc error: code = Unavailable"}
		}
		return accept(p)
	})
	for i := range 20 {
		if _, rejected := send(t, s, sinktest.Batch(s, sinktest.Records(i*100, 100)), 100); rejected != nil {
			t.Fatalf("records rejected: %v", rejected)
		}
	}
}

func TestOutageInTheMiddleOfABatchRejectsNoRecords(t *testing.T) {
	t.Parallel()
	l := startLoki(t)
	s := newSink(t, l.URL, nil)
	accepted := 0
	l.ScriptPushes(func(p *fakeloki.Push) fakeloki.Response {
		if n := len(p.Entries()); n <= 60 && accepted <= 40 {
			accepted += n
			return accept(p)
		}
		return fakeloki.Response{Status: 500, Body: "empty ring"}
	})
	b := sinktest.Batch(s, sinktest.Records(0, 100))
	for range 100 {
		if err := asError(t, s.Send(t.Context(), b)); len(err.Rejected) > 0 {
			t.Fatalf("records rejected: %v", err)
		}
	}
	if len(storedLines(l)) == 0 {
		t.Fatal("nothing was accepted before the outage")
	}
	l.ScriptPushes(accept)
	if _, rejected := send(t, s, b, 10); rejected != nil {
		t.Errorf("records rejected: %v", rejected)
	}
	if n := len(storedLines(l)); n != 100 {
		t.Errorf("%d stored, want 100", n)
	}
}

func TestPushThatIsTooLarge(t *testing.T) {
	t.Parallel()
	for name, script := range map[string]fakeloki.Script{
		"for a proxy": acceptUpTo(30, 413, "<html>413 Request Entity Too Large"),
		"for Loki":    acceptUpTo(30, 500, "rpc error: code = ResourceExhausted desc = grpc: received message larger than max (5242891 vs. 4194304)\n"),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := startLoki(t)
			s := newSink(t, l.URL, nil)
			l.ScriptPushes(script)
			if failed, rejected := send(t, s, sinktest.Batch(s, sinktest.Records(0, 100)), 10); len(failed) > 0 || rejected != nil {
				t.Errorf("got %v, %v; want it to be split in the first attempt", failed, rejected)
			}
			if n := len(storedLines(l)); n != 100 {
				t.Errorf("%d stored, want 100", n)
			}
		})
	}
}

func TestBurstLimitBelowTheBatchSize(t *testing.T) {
	t.Parallel()
	l := startLoki(t)
	s := newSink(t, l.URL, nil)
	l.ScriptPushes(acceptUpTo(10, 429, "ingestion rate limit exceeded for user fake (limit: 1000 bytes/sec) while attempting to ingest"))
	if _, rejected := send(t, s, sinktest.Batch(s, sinktest.Records(0, 100)), 100); rejected != nil {
		t.Errorf("records rejected: %v", rejected)
	}
	if n := len(storedLines(l)); n != 100 {
		t.Errorf("%d stored, want 100", n)
	}
}

func TestStoredEntriesAreNotSentAgain(t *testing.T) {
	t.Parallel()
	l := startLoki(t)
	s := newSink(t, l.URL, nil)
	n := 0
	l.ScriptPushes(func(p *fakeloki.Push) fakeloki.Response {
		if n++; n == 5 && len(p.Entries()) <= 30 {
			return fakeloki.Response{Status: 503}
		}
		return acceptUpTo(30, 413, "")(p)
	})
	failed, _ := send(t, s, sinktest.Batch(s, sinktest.Records(0, 100)), 10)
	if stored := len(storedLines(l)); len(failed) != 1 || stored != 100 {
		t.Errorf("%d attempts failed, %d entries stored; want 1 and 100", len(failed), stored)
	}
	// The next batch of the stream starts without that state.
	if err := s.Send(t.Context(), sinktest.Batch(s, sinktest.Records(100, 20))); err != nil {
		t.Fatal(err)
	}
	pushes := l.Pushes()
	if got := len(pushes[len(pushes)-1].Entries()); got != 20 {
		t.Errorf("the next batch is a push of %d entries, want 20", got)
	}
}

func TestSingleBadRecordIsIsolatedOnceOthersFollow(t *testing.T) {
	t.Parallel()
	l := startLoki(t)
	s := newSink(t, l.URL, nil)
	l.ScriptPushes(rejectPushesWith(t, 500, "no", 0))
	for range 20 {
		if err := asError(t, s.Send(t.Context(), sinktest.Batch(s, sinktest.Records(0, 1)))); err.Permanent {
			t.Fatalf("got %v, want an error that may be retried", err)
		}
	}
	_, rejected := send(t, s, sinktest.Batch(s, sinktest.Records(0, 3)), 40)
	if rejected == nil || len(rejected.Rejected) != 1 || rejected.Rejected[0].Index != 0 {
		t.Fatalf("got %v, want the first record rejected", rejected)
	}
	stored := strings.Join(storedLines(l), "\n")
	for _, message := range []string{"record-1.", "record-2."} {
		if !strings.Contains(stored, message) {
			t.Errorf("%s was not stored", message)
		}
	}
}

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
