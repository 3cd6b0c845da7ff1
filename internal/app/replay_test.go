package app

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// The input waits while a sink is behind, also one that drops its oldest records
// while a cluster is watched.
func TestReplayWaitsForASlowSink(t *testing.T) {
	const events = 3000
	in := &numbered{n: events, line: func(i int) string {
		return fmt.Sprintf(`{"kind":"Event","metadata":{"name":"e-%d","namespace":"team-a","uid":"u-%d","resourceVersion":"%d"},"message":"%s","lastTimestamp":"2019-07-19T11:00:00Z"}`+"\n",
			i, i, i+1, strings.Repeat("x", 1000))
	}}
	out := &slowOutput{wait: func() { // until all has been read, or the input waits
		for read := int64(-1); in.read.Load() != read; time.Sleep(time.Second) {
			read = in.read.Load()
		}
	}}
	o := Options{
		Config: parse(t, "sinks: [{name: out, when_full: drop_oldest, stdout: {format: json}}]"),
		Stdout: out, Log: slog.New(slog.DiscardHandler),
	}
	// A third of the input.
	if err := replayInput(t.Context(), o, Input{Reader: in}, 1<<20); err != nil {
		t.Error(err)
	}
	if out.lines != events {
		t.Errorf("%d lines, want %d", out.lines, events)
	}
}

// numbered reads as n lines.
type numbered struct {
	n, next int
	line    func(i int) string
	rest    string
	read    atomic.Int64 // bytes
}

func (l *numbered) Read(b []byte) (int, error) {
	if l.rest == "" {
		if l.next == l.n {
			return 0, io.EOF
		}
		l.rest = l.line(l.next)
		l.next++
	}
	n := copy(b, l.rest)
	l.rest = l.rest[n:]
	l.read.Add(int64(n))
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
