//go:build e2e

package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/hindsight-events/hindsight/test/cluster"
	"github.com/hindsight-events/hindsight/test/program"
)

// TestEveryScenario runs all of them with few Events: nothing is measured, but
// that everything is measured.
func TestEveryScenario(t *testing.T) {
	all := scenarios
	t.Cleanup(func() { scenarios = all })
	scenarios = nil
	have := cluster.HaveLoki(t)
	for _, s := range all {
		if s.loki && !have {
			continue
		}
		s.backlog, s.events, s.warmup = min(s.backlog, 5000), min(s.events, 1000), min(s.warmup, 100)
		if s.rate > 0 {
			s.events, s.rate = min(s.events, 600), max(s.rate, 100)
		}
		s.standby = min(s.standby, 5*time.Second)
		scenarios = append(scenarios, s)
	}
	file, peer := filepath.Join(t.TempDir(), "figures.json"), filepath.Join(t.TempDir(), "peer")
	if err := program.Build(t.Context(), peer, "cmd/hindsight"); err != nil {
		t.Fatal(err)
	}
	o := options{run: regexp.MustCompile("."), pairs: 1, json: file, peer: []string{"sh", "-c", `
		printf 'cluster: peer\nsinks: [{name: loki, loki: {url: "%s"}}]\n' $BENCH_LOKI > $BENCH_DIR/peer.yaml
		exec ` + peer + ` run --server $BENCH_SERVER --listen $BENCH_LISTEN --config $BENCH_DIR/peer.yaml`}}
	if err := bench(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var r struct {
		Scenarios []struct {
			Scenario    string
			Events      int
			Seconds     float64
			Allocations float64
			Hindsight   struct {
				CPU      float64 `json:"cpu_seconds"`
				Switches int     `json:"context_switches"`
				Peak     int64   `json:"peak_bytes"`
				Anon     int64   `json:"anonymous_bytes"`
			}
			Floor struct {
				CPU float64 `json:"cpu_seconds"`
			}
			Lease     count
			Requests  map[string]count
			Series    int
			SenderCPU float64 `json:"sender_cpu_seconds"`
			Received  received
		}
	}
	if err := json.Unmarshal(data, &r); err != nil {
		t.Fatal(err)
	}
	var want []scenario // of each row
	for _, s := range scenarios {
		want = append(want, s)
		if s.rate > 0 && s.sinks == 0 {
			s.name += " (peer)"
			want = append(want, s)
		}
	}
	if len(r.Scenarios) != len(want) {
		t.Fatalf("%d rows are reported, want %d", len(r.Scenarios), len(want))
	}
	for i, f := range r.Scenarios {
		got, of := f.Received, want[i]
		peer := strings.HasSuffix(of.name, "(peer)")
		measured := of.all()
		if of.rate > 0 {
			measured = of.events
		}
		if f.Scenario != of.name || f.Events != measured {
			t.Errorf("%s with %d states is reported as %s with %d", of.name, measured, f.Scenario, f.Events)
		}
		if f.Hindsight.CPU <= 0 || f.Seconds <= 0 || f.Hindsight.Anon <= 0 || f.Hindsight.Anon > f.Hindsight.Peak {
			t.Errorf("%s: not measured: %+v", f.Scenario, f)
		}
		if (f.Hindsight.Switches > 0) != (of.rate > 0 || of.standby > 0) || (f.SenderCPU > 0) != (of.loki && of.rate > 0) {
			t.Errorf("%s: used %+v, the sender %v s", f.Scenario, f.Hindsight, f.SenderCPU)
		}
		if !peer && (f.Lease.Requests == 0 && of.rate == 0 || f.Series < 10) { // it is written every two seconds
			t.Errorf("%s: %d writes of the Lease, %d series", f.Scenario, f.Lease.Requests, f.Series)
		}
		if of.standby > 0 {
			if f.Requests["GET /apis/coordination.k8s.io/v1/namespaces/bench/leases/hindsight"].Requests == 0 || len(f.Requests) != 1 {
				t.Errorf("%s: requests %+v", f.Scenario, f.Requests)
			}
			continue
		}
		if f.Floor.CPU <= 0 || !peer && f.Allocations < 1 {
			t.Errorf("%s: not measured: %+v", f.Scenario, f)
		}
		// At a rate, some states are in Hindsight at the start and at the end of the period.
		if got.Entries != f.Events && of.rate == 0 || got.Entries == 0 || got.Pushes == 0 || got.Bytes == 0 || got.LagMedian > got.LagNinetyNine || got.LagNinetyNine > got.LagMax {
			t.Errorf("%s: received %+v", f.Scenario, got)
		}
		if got.LagMax <= 0 && !of.loki { // which may have been done before it was asked
			t.Errorf("%s: no lag", f.Scenario)
		}
	}
}

func TestWhatIsNotReceivedFails(t *testing.T) {
	b := &bencher{dir: t.TempDir()}
	if err := b.build(t.Context()); err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	b.hindsight = self
	for _, test := range []struct {
		name      string
		env, exec []string
		patience  time.Duration
		want      string
	}{
		{"a program that says it has sent all", list{testProgram + "=liar"}, nil, time.Second, "1000 of 1000 Events did not arrive: waited for 1s"},
		{"a program that ends", nil, list{"env", testProgram + "=fails"}, time.Minute, "1000 of 1000 Events did not arrive: the process has ended: exit status 3"},
	} {
		t.Run(test.name, func(t *testing.T) {
			b.env, b.exec, b.patience = test.env, test.exec, test.patience
			_, err := b.measure(t.Context(), scenario{name: "backlog", backlog: 1000, long: true})
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error %v, want %s", err, test.want)
			}
		})
	}
}
