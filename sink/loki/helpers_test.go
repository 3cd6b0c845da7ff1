package loki_test

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/hindsight-events/hindsight/sink"
	"github.com/hindsight-events/hindsight/sink/loki"
	"github.com/hindsight-events/hindsight/sink/sinktest"
	"github.com/hindsight-events/hindsight/test/fakeloki"
)

var accept = fakeloki.Respond(http.StatusNoContent, "")

// startLoki starts a fake Loki that accepts all pushes, although the records of sinktest are old.
func startLoki(t *testing.T) *fakeloki.Server {
	l := fakeloki.Start(t, fakeloki.Options{})
	l.ScriptPushes(accept)
	return l
}

// storedLines returns the lines of all accepted pushes, in the order of their arrival.
func storedLines(l *fakeloki.Server) (lines []string) {
	for _, p := range l.Pushes() {
		if p.Status == http.StatusOK || p.Status == http.StatusNoContent {
			for _, e := range p.Entries() {
				lines = append(lines, e.Line)
			}
		}
	}
	return lines
}

func distinctLines(l *fakeloki.Server) map[string]bool {
	distinct := map[string]bool{}
	for _, line := range storedLines(l) {
		distinct[line] = true
	}
	return distinct
}

// newSink returns a sink that pushes to a URL.
func newSink(t *testing.T, url string, change func(*loki.Config, *loki.Options)) *loki.Sink {
	t.Helper()
	c := loki.DefaultConfig()
	c.URL = loki.URL(url)
	o := loki.Options{Name: "loki", Cluster: "prod", Logger: slog.New(slog.DiscardHandler)}
	if change != nil {
		change(&c, &o)
	}
	s, err := loki.New(c, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// send repeats Send until the batch is complete. It returns the errors of the failed attempts and,
// if records were rejected, the error of the last one.
func send(t *testing.T, s *loki.Sink, b *sink.Batch, attempts int) (failed []*sink.Error, rejected *sink.Error) {
	t.Helper()
	for range attempts {
		err := s.Send(t.Context(), b)
		if err == nil {
			return failed, nil
		}
		sinkErr := asError(t, err)
		if len(sinkErr.Rejected) > 0 {
			return failed, sinkErr
		}
		failed = append(failed, sinkErr)
	}
	t.Fatalf("not complete after %d attempts; the last error: %v", attempts, failed[len(failed)-1])
	return nil, nil
}

func asError(t *testing.T, err error) *sink.Error {
	t.Helper()
	var sinkErr *sink.Error
	if !errors.As(err, &sinkErr) {
		t.Fatalf("got %v, want a *sink.Error", err)
	}
	return sinkErr
}

// oneRecord returns a batch of one record.
func oneRecord(s sink.Sink) *sink.Batch { return sinktest.Batch(s, sinktest.Records(0, 1)) }

// recentBatch returns a batch of n records of the last hour, a second apart.
func recentBatch(s sink.Sink, n int) *sink.Batch {
	records := sinktest.Records(0, n)
	start := time.Now().Add(-time.Hour).Truncate(time.Second)
	for i := range records {
		records[i].Time = start.Add(time.Duration(i)*time.Second + time.Duration(i))
	}
	return sinktest.Batch(s, records)
}

// number returns the number of the record in a line, as sinktest.Records counts.
func number(t *testing.T, line string) (n int) {
	t.Helper()
	at := strings.Index(line, "record-")
	if at < 0 {
		t.Fatalf("no record in %q", line)
	}
	fmt.Sscanf(line[at:], "record-%d.", &n)
	return n
}
