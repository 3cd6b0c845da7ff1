package app

import (
	"context"
	"io"
	"log/slog"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hindsight-events/hindsight/lease"
	"github.com/hindsight-events/hindsight/test/fakeapi"
)

// A candidate requests nothing but the Lease, and returns the memory that it does not use until it
// leads.
func TestCandidate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		api := fakeapi.New(t)
		leader, err := lease.New(lease.Options{
			Kubernetes: api.Config(), Namespace: "hindsight", Name: "hindsight", Identity: "leader",
			Duration: 15 * time.Second, RenewDeadline: 10 * time.Second, RetryPeriod: 2 * time.Second,
		})
		if err != nil {
			t.Fatal(err)
		}
		leading, stopLeader := context.WithCancel(t.Context())
		leaderEnded := make(chan error, 1)
		go func() {
			leaderEnded <- leader.Run(leading, func(ctx context.Context, _ lease.Checkpoint) error {
				<-ctx.Done()
				return nil
			})
		}()
		synctest.Wait()

		before := runtime.GOMAXPROCS(0)
		defer runtime.GOMAXPROCS(before) // of go test -cpu
		runtime.SetDefaultGOMAXPROCS()
		processors := runtime.GOMAXPROCS(0)
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() {
			ended <- Run(ctx, Options{
				Config:     parse(t, "listen: \"\"\nleader_election: {enabled: true}\n"+stdoutSink),
				Kubernetes: api.Config(), OwnNamespace: "hindsight", Stdout: io.Discard, Log: slog.New(slog.DiscardHandler),
			})
		}()
		collections := func() int {
			var stats runtime.MemStats
			runtime.ReadMemStats(&stats)
			return int(stats.NumForcedGC)
		}
		collected := collections()
		time.Sleep(5*time.Minute + time.Second)
		if n := collections() - collected; n < 20 {
			t.Errorf("unused memory was returned %d times in five minutes, want 20", n)
		}
		if n := runtime.GOMAXPROCS(0); n != 1 {
			t.Errorf("the candidate uses %d processors", n)
		}
		for _, r := range api.Requests() {
			if !strings.Contains(r, "/leases") {
				t.Errorf("the candidate sent %s", r)
			}
		}

		stopLeader()
		if err := <-leaderEnded; err != nil {
			t.Error(err)
		}
		time.Sleep(5 * time.Second)
		collected = collections()
		time.Sleep(time.Minute)
		if n := runtime.GOMAXPROCS(0); n != processors {
			t.Errorf("the leader uses %d processors, want %d", n, processors)
		}
		if n := collections() - collected; n != 0 || api.CountRequests("watch=") == 0 {
			t.Errorf("after it leads, unused memory was returned %d times; its requests: %q", n, api.Requests())
		}
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}
