package watch

import (
	"context"
	"io"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"

	"k8s.io/client-go/rest"

	"github.com/hindsight-events/hindsight/event"
)

// journal is a Handle that keeps the records in memory.
type journal struct {
	mu      sync.Mutex
	records []event.Record
	calls   int
	full    chan struct{} // while not nil, handle blocks
	err     error
}

func (j *journal) handle(ctx context.Context, records []event.Record) error {
	j.mu.Lock()
	full := j.full
	j.mu.Unlock()
	if full != nil {
		select {
		case <-full:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.err != nil {
		return j.err
	}
	j.records = append(j.records, clone(records)...)
	j.calls++
	return nil
}

// clone copies records with their strings, because the watcher reuses the memory.
func clone(records []event.Record) []event.Record {
	cloned := slices.Clone(records)
	for i := range cloned {
		if cloned[i].PositionOnly() {
			continue
		}
		b, err := cloned[i].AppendBinary(nil)
		if err == nil {
			cloned[i] = event.Record{}
			err = cloned[i].UnmarshalBinary(b)
		}
		if err != nil {
			panic(err)
		}
	}
	return cloned
}

// block makes handle block until unblock is called.
func (j *journal) block() {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.full = make(chan struct{})
}

func (j *journal) unblock() {
	j.mu.Lock()
	defer j.mu.Unlock()
	close(j.full)
	j.full = nil
}

// batches returns the number of calls of handle.
func (j *journal) batches() int {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.calls
}

func (j *journal) all() []event.Record {
	j.mu.Lock()
	defer j.mu.Unlock()
	return slices.Clone(j.records)
}

// states returns the Events as "name@version", and the gap records as "gap:cause".
func (j *journal) states() []string { return states(j.all()) }

func states(records []event.Record) []string {
	out := []string{}
	for _, r := range records {
		switch {
		case r.Gap:
			out = append(out, "gap:"+r.Event.Annotations["hindsight/cause"])
		case !r.PositionOnly():
			out = append(out, r.Event.Name+"@"+r.Event.ResourceVersion)
		}
	}
	return out
}

// position returns the position of the last record.
func (j *journal) position() event.Position {
	records := j.all()
	if len(records) == 0 {
		return event.Position{}
	}
	return records[len(records)-1].Position
}

// running is a running Watcher.
type running struct {
	*Watcher
	*journal
	log  *syncWriter
	stop func() error // ends it and returns the result of Run
}

// run starts a Watcher, which stops at the end of the test.
func run(a *api, start event.Position, options ...func(*Options)) *running {
	return follow(a.t, a.client(), start, options...)
}

func follow(t testing.TB, client *rest.RESTClient, start event.Position, options ...func(*Options)) *running {
	r := &running{journal: &journal{}, log: &syncWriter{}}
	o := Options{
		Client: client, Start: start, Handle: r.journal.handle, OwnNamespace: "hindsight",
		Logger: slog.New(slog.NewTextHandler(io.MultiWriter(r.log, t.Output()), &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
	for _, option := range options {
		option(&o)
	}
	r.Watcher = New(o)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	r.stop = sync.OnceValue(func() error {
		cancel()
		return <-done
	})
	t.Cleanup(func() { _ = r.stop() })
	return r
}

// syncWriter keeps the log.
type syncWriter struct {
	mu sync.Mutex
	b  strings.Builder
}

func (w *syncWriter) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.b.Write(p)
}

func (w *syncWriter) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.b.String()
}
