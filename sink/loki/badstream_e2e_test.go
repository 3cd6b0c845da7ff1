//go:build e2e

package loki_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hindsight-events/hindsight/delivery"
	"github.com/hindsight-events/hindsight/delivery/parked"
	"github.com/hindsight-events/hindsight/journal"
	"github.com/hindsight-events/hindsight/sink/loki"
)

// One stream of twenty is refused, in ways that say nothing about whose fault it is,
// or not at all: all others arrive, and it does once it is accepted.
func TestOneBadStreamOfTwenty(t *testing.T) {
	const records, bad = 250_000, `namespace="team-7"`
	for _, test := range []struct {
		name   string
		onDisk bool // the journal and the parked records
		answer http.HandlerFunc
	}{
		{"403, in memory", false, status(403, "forbidden")},
		{"403, on disk", true, status(403, "forbidden")},
		{"429", true, status(429, "Maximum active stream limit exceeded, reduce the number of active streams (reduce labels or reduce label values)")},
		{"504", false, status(504, "upstream timed out")},
		{"400", true, status(400, "no")},
		{"500", false, status(500, "at least 2 live replicas required, could only find 1")},
		{"no answer", true, func(_ http.ResponseWriter, r *http.Request) {
			io.Copy(io.Discard, r.Body) // else the end of the connection goes unnoticed
			<-r.Context().Done()
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			var mended atomic.Bool
			var mu sync.Mutex
			arrived := map[bool]map[string]bool{true: {}, false: {}} // good or not
			counts := func() (good, other int) {
				mu.Lock()
				defer mu.Unlock()
				return len(arrived[true]), len(arrived[false])
			}
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				body, err := io.ReadAll(r.Body)
				if err != nil {
					return
				}
				labels, entries, err := decodePush(body)
				if err != nil {
					t.Error(err)
				}
				good := !strings.Contains(labels, bad)
				if !good && !mended.Load() {
					test.answer(w, r)
					return
				}
				mu.Lock()
				defer mu.Unlock()
				for _, e := range entries {
					arrived[good][fmt.Sprint(e.at.UnixNano(), e.metadata)] = true
				}
				w.WriteHeader(http.StatusNoContent)
			}))
			t.Cleanup(server.Close)

			c := loki.DefaultConfig()
			c.URL = loki.URL(server.URL)
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

			began := time.Now()
			go func() {
				start := began.Add(-30 * time.Minute)
				for i := 0; i < records; i += 500 {
					all := recent(0)
					for n := i; n < i+500; n++ {
						all = append(all, makeRecord(n, start.Add(time.Duration(n)*time.Millisecond), nil))
					}
					if j.Append(ctx, all) != nil {
						return
					}
				}
			}()
			const good = records / 20 * 19
			waitFor := func(what string, done func() bool) time.Duration {
				for !done() {
					if time.Since(began) > 5*time.Minute {
						n, other := counts()
						t.Fatalf("%s: not within 5 minutes: %d good records and %d others arrived", what, n, other)
					}
					time.Sleep(20 * time.Millisecond) // polling
				}
				return time.Since(began)
			}
			took := waitFor("good records", func() bool { n, _ := counts(); return n == good })
			inJournal := waitFor("acknowledgement", func() bool { return j.Stats().Consumers["loki"].Behind == 0 })
			n, bytes := store.Size()
			mended.Store(true)
			all := waitFor("the refused stream", func() bool { _, other := counts(); return other == records-good })
			t.Logf("%d good records after %v, all acknowledged after %v, with %d parked in %d bytes; the refused stream %v after it was mended",
				good, took.Round(time.Millisecond), inJournal.Round(time.Millisecond), n, bytes, (all - max(inJournal, took)).Round(time.Millisecond))
		})
	}
}

func status(code int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(code)
		io.WriteString(w, body)
	}
}
