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

// journal stands for what takes the records over.
type journal struct {
	mu      sync.Mutex
	records []event.Record
	calls   int
	full    chan struct{} // while not nil, records are not taken
	err     error
}

func (j *journal) take(ctx context.Context, records []event.Record) error {
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

// clone copies records with all their text, which is the watcher's.
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

// fill lets every take wait, until free is called.
func (j *journal) fill() {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.full = make(chan struct{})
}

func (j *journal) free() {
	j.mu.Lock()
	defer j.mu.Unlock()
	close(j.full)
	j.full = nil
}

// groups is how often records were taken over.
func (j *journal) groups() int {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.calls
}

func (j *journal) all() []event.Record {
	j.mu.Lock()
	defer j.mu.Unlock()
	return slices.Clone(j.records)
}

// states are the Events taken over, as "name@version", and "gap:cause".
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

// position is that of the last record.
func (j *journal) position() event.Position {
	records := j.all()
	if len(records) == 0 {
		return event.Position{}
	}
	return records[len(records)-1].Position
}

// running is a Watcher at work.
type running struct {
	*Watcher
	*journal
	log  *syncWriter
	stop func() error // ends it and returns what Run did
}

// run starts a Watcher that ends with the test.
func run(a *api, start event.Position, options ...func(*Options)) *running {
	return follow(a.t, a.client(), start, options...)
}

func follow(t testing.TB, client *rest.RESTClient, start event.Position, options ...func(*Options)) *running {
	r := &running{journal: &journal{}, log: &syncWriter{}}
	o := Options{
		Client: client, Start: start, Handle: r.journal.take, OwnNamespace: "hindsight",
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

// syncWriter keeps what is logged.
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
