package stdout_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/hindsight-events/hindsight/event/format"
	"github.com/hindsight-events/hindsight/sink"
	"github.com/hindsight-events/hindsight/sink/sinktest"
	"github.com/hindsight-events/hindsight/sink/stdout"
)

func TestContract(t *testing.T) {
	t.Parallel()
	sinktest.Run(t, func(t *testing.T) (sink.Sink, sinktest.Destination) {
		d := &stream{test: t}
		return stdout.New(stdout.DefaultConfig(), d), d
	})
}

// stream is a writer that can fail.
type stream struct {
	test *testing.T

	mu       sync.Mutex // guards the fields below
	received bytes.Buffer
	fail     int
	torn     int // bytes that a failing write writes
	hang     bool
	broken   bool
}

func (d *stream) Write(b []byte) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case d.hang:
		d.mu.Unlock()
		<-d.test.Context().Done()
		d.mu.Lock()
		return 0, errors.New("the test has ended")
	case d.broken:
		return 0, syscall.EPIPE
	case d.fail > 0:
		d.fail--
		n, _ := d.received.Write(b[:min(d.torn, len(b))])
		return n, syscall.ENOSPC
	}
	return d.received.Write(b)
}

func (d *stream) Received() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.received.String()
}

func (d *stream) Fail(n int) { d.set(func() { d.fail = n }) }
func (d *stream) Hang()      { d.set(func() { d.hang = true }) }

func (d *stream) Break() bool {
	d.set(func() { d.broken = true })
	return true
}

func (d *stream) set(f func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	f()
}

func TestLineTornByAFullDiskIsCompleted(t *testing.T) {
	t.Parallel()
	for _, torn := range []int{1, 100, 70_000} {
		t.Run(fmt.Sprintf("after %d bytes", torn), func(t *testing.T) {
			d := &stream{test: t, fail: 3, torn: torn}
			s := stdout.New(stdout.DefaultConfig(), d)
			records := sinktest.Records(0, 400)
			batch := sinktest.Batch(s, records)
			failures := 0
			for err := s.Send(t.Context(), batch); err != nil; err = s.Send(t.Context(), batch) {
				failures++
				var sinkErr *sink.Error
				if !errors.As(err, &sinkErr) || sinkErr.Reason != sink.ReasonNoSpace || !errors.Is(err, syscall.ENOSPC) {
					t.Fatalf("got %v, want the reason no_space", err)
				}
			}
			if failures != 3 {
				t.Errorf("%d failed attempts, want 3", failures)
			}
			lines := strings.Split(strings.TrimSuffix(d.Received(), "\n"), "\n")
			if len(lines) != len(records) {
				t.Fatalf("%d lines, want %d", len(lines), len(records))
			}
			for i, line := range lines {
				var got struct {
					Verb  string
					Event struct{ Message string }
				}
				if err := json.Unmarshal([]byte(line), &got); err != nil {
					t.Fatalf("line %d: %v", i, err)
				}
				if want := records[i].Event.Message; got.Event.Message != want || got.Verb != "ADDED" {
					t.Fatalf("line %d has the message %q (%s), want %q", i, got.Event.Message, got.Verb, want)
				}
			}
		})
	}
}

func TestClosedPipe(t *testing.T) {
	t.Parallel()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	r.Close()
	s := stdout.New(stdout.DefaultConfig(), w)
	err = s.Send(t.Context(), sinktest.Batch(s, sinktest.Records(0, 1)))
	var sinkErr *sink.Error
	if !errors.As(err, &sinkErr) || !sinkErr.Permanent || !errors.Is(err, syscall.EPIPE) {
		t.Errorf("got %v, want a permanent broken pipe", err)
	}
}

func TestUnreadPipe(t *testing.T) {
	t.Parallel()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	s := stdout.New(stdout.DefaultConfig(), w)
	ctx, cancel := context.WithCancel(t.Context())
	sent := make(chan error)
	batch := sinktest.Batch(s, sinktest.Records(0, 1000)) // more than a pipe holds
	want := string(batch.Data)
	go func() { sent <- s.Send(ctx, batch) }()
	first := make([]byte, 1)
	if _, err := io.ReadFull(r, first); err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := <-sent; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want context.Canceled", err)
	}

	// When the pipe is read again, the write completes, and nothing is written twice. The
	// batch may be in other memory.
	again := &sink.Batch{Stream: batch.Stream, Data: bytes.Clone(batch.Data), Ends: batch.Ends}
	clear(batch.Data)
	got := make(chan string)
	go func() {
		rest, _ := io.ReadAll(r)
		got <- string(first) + string(rest)
	}()
	if err := s.Send(t.Context(), again); err != nil {
		t.Errorf("after reading resumed: %v", err)
	}
	w.Close()
	if text := <-got; text != want {
		t.Errorf("%d bytes arrived, want the %d that were sent, once", len(text), len(want))
	}
}

func TestFormats(t *testing.T) {
	t.Parallel()
	for format, want := range map[format.Format]string{
		format.EventRouter: `{"verb":"ADDED","event":{"metadata":{"name":"web-0.7","namespace":"team-a"`,
		format.JSON:        `{"time":"2019-07-19T11:00:07.000001007Z","namespace":"team-a"`,
		format.Logfmt:      `time=2019-07-19T11:00:07.000001007Z namespace=team-a reason=Pulled kind=Pod name=web-0`,
		format.Text:        `2019-07-19T11:00:07.000001007Z team-a Pulled Pod/web-0: record-7.`,
	} {
		t.Run(string(format), func(t *testing.T) {
			d := &stream{test: t}
			s := stdout.New(stdout.Config{Format: format}, d)
			if err := s.Send(t.Context(), sinktest.Batch(s, sinktest.Records(7, 1))); err != nil {
				t.Fatal(err)
			}
			if !strings.HasPrefix(d.Received(), want) {
				t.Errorf("got  %s\nwant %s…", d.Received(), want)
			}
		})
	}
}
