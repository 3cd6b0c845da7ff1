package app

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
)

// A replay waits for a slow sink instead of dropping records, also with when_full: drop_oldest.
func TestReplayWaitsForASlowSink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const events = 3000 // three times the journal
		in := &numberedLines{n: events, line: func(i int) string {
			return fmt.Sprintf(`{"kind":"Event","metadata":{"name":"e-%d","namespace":"team-a","uid":"u-%d","resourceVersion":"%d"},"message":"%s","lastTimestamp":"2019-07-19T11:00:00Z"}`+"\n",
				i, i, i+1, strings.Repeat("x", 1000))
		}}
		out := &slowOutput{wait: synctest.Wait} // until the replay is blocked
		o := Options{
			Config: parse(t, "sinks: [{name: out, when_full: drop_oldest, stdout: {format: json}}]"),
			Stdout: out, Log: slog.New(slog.DiscardHandler),
		}
		if err := replay(t.Context(), o, Input{Reader: in}, 1<<20); err != nil {
			t.Error(err)
		}
		if out.lines != events {
			t.Errorf("%d lines, want %d", out.lines, events)
		}
	})
}

// numberedLines reads as n lines.
type numberedLines struct {
	n, next int
	line    func(i int) string
	rest    string
}

func (l *numberedLines) Read(b []byte) (int, error) {
	if l.rest == "" {
		if l.next == l.n {
			return 0, io.EOF
		}
		l.rest = l.line(l.next)
		l.next++
	}
	n := copy(b, l.rest)
	l.rest = l.rest[n:]
	return n, nil
}

// slowOutput waits before its first write, and counts lines.
type slowOutput struct {
	once  sync.Once
	wait  func()
	lines int
}

func (o *slowOutput) Write(b []byte) (int, error) {
	o.once.Do(o.wait)
	o.lines += bytes.Count(b, []byte("\n"))
	return len(b), nil
}
