//go:build e2e

package loki_test

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hindsight-events/hindsight/delivery"
	"github.com/hindsight-events/hindsight/delivery/parked"
	"github.com/hindsight-events/hindsight/event"
	"github.com/hindsight-events/hindsight/journal"
	"github.com/hindsight-events/hindsight/sink/loki"
	"github.com/hindsight-events/hindsight/test/fakeloki"
	"github.com/hindsight-events/hindsight/test/nightly"
	"github.com/hindsight-events/hindsight/test/wait"
)

// One stream of twenty is rejected, or not responded to. All others arrive; that one arrives after
// the outage.
func TestOneBadStreamOfTwenty(t *testing.T) {
	t.Parallel()
	const records, bad = 250_000, `namespace="team-7"`
	tests := []struct {
		name    string
		onDisk  bool            // the journal and the parked records
		respond fakeloki.Script // nil: not
	}{
		{"403, in memory", false, fakeloki.Respond(403, "forbidden")},
		{"no response", true, nil},
		{"403, on disk", true, fakeloki.Respond(403, "forbidden")},
		{"429", true, fakeloki.Respond(429, "Maximum active stream limit exceeded, reduce the number of active streams (reduce labels or reduce label values)")},
		{"504", false, fakeloki.Respond(504, "upstream timed out")},
		{"400", true, fakeloki.Respond(400, "no")},
		{"500", false, fakeloki.Respond(500, "at least 2 live replicas required, could only find 1")},
	}
	for _, test := range tests[:nightly.Size(2, len(tests))] {
		t.Run(test.name, func(t *testing.T) {
			l := startLoki(t)
			if test.respond == nil {
				test.respond = l.Hang
			}
			var recovered atomic.Bool
			var mu sync.Mutex                                        // guards arrived
			arrived := map[bool]map[string]bool{true: {}, false: {}} // of good streams, and of the bad one
			counts := func() (good, other int) {
				mu.Lock()
				defer mu.Unlock()
				return len(arrived[true]), len(arrived[false])
			}
			l.ScriptPushes(func(p *fakeloki.Push) fakeloki.Response {
				entries := p.Entries()
				good := !strings.Contains(p.Streams[0].Labels, bad)
				p.Streams = nil // saves memory
				if !good && !recovered.Load() {
					return test.respond(p)
				}
				mu.Lock()
				defer mu.Unlock()
				for _, e := range entries {
					arrived[good][fmt.Sprint(e.Time.UnixNano(), e.Metadata)] = true
				}
				return accept(p)
			})

			c := loki.DefaultConfig()
			c.URL = loki.URL(l.URL)
			c.MaxRate = 0
			c.Labels = map[string]string{"namespace": "namespace"}
			to, err := loki.New(c, loki.Options{Name: "loki", Cluster: "e2e", DeadLetterDir: t.TempDir(), Logger: slog.New(slog.DiscardHandler)})
			if err != nil {
				t.Fatal(err)
			}
			options := journal.Options{MaxBytes: journal.DefaultMemoryBytes, Consumers: []journal.ConsumerOptions{{Name: "loki"}}}
			var j *journal.Journal
			store := parked.NewMemory(16 << 20)
			if !test.onDisk {
				j, err = journal.NewMemory(options)
			} else {
				dir := t.TempDir()
				options.MaxBytes = journal.DefaultDiskBytes
				if j, err = journal.Open(filepath.Join(dir, "journal"), options); err == nil {
					store, err = parked.Open(parked.Options{Dir: filepath.Join(dir, "parked")})
				}
			}
			if err != nil {
				t.Fatal(err)
			}
			consumer, err := j.Consumer("loki")
			if err != nil {
				t.Fatal(err)
			}
			limits := to.Limits()
			limits.WindowBytes = int(options.MaxBytes) / 4
			loop := delivery.New(delivery.Options{Name: "loki", Consumer: consumer, Sink: to, Limits: limits, Parked: store, Logger: slog.New(slog.DiscardHandler)})
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error, 1)
			go func() { done <- loop.Run(ctx) }()
			t.Cleanup(func() { cancel(); <-done; to.Close(); j.Close() })

			start := time.Now()
			go func() {
				for i := 0; i < records; i += 500 {
					var all []event.Record
					for n := i; n < i+500; n++ {
						at := start.Add(-30*time.Minute + time.Duration(n)*time.Millisecond)
						all = append(all, makeRecord(n, at, nil))
					}
					if j.Append(ctx, all) != nil {
						return
					}
				}
			}()
			const good = records / 20 * 19
			waitFor := func(description string, done func() bool) time.Duration {
				t.Helper()
				if !wait.Within(t.Context(), 5*time.Minute, done) {
					n, other := counts()
					t.Fatalf("not within 5 minutes: %s: %d good records and %d others arrived", description, n, other)
				}
				return time.Since(start).Round(time.Millisecond)
			}
			delivered := waitFor("all good records arrived", func() bool { n, _ := counts(); return n == good })
			acknowledged := waitFor("all records are acknowledged", func() bool { return j.Stats().Consumers["loki"].Behind == 0 })
			n, bytes := store.Size()
			outage := time.Since(start)
			recovered.Store(true)
			all := waitFor("the rejected stream arrived", func() bool { _, other := counts(); return other == records-good })
			t.Logf("%d good records after %v, all acknowledged after %v, with %d parked in %d bytes; the rejected stream %v after the outage",
				good, delivered, acknowledged, n, bytes, (all - outage).Round(time.Millisecond))
		})
	}
}
