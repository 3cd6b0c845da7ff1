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
		scenarios = append(scenarios, s)
	}
	file := filepath.Join(t.TempDir(), "figures.json")
	if err := bench(t.Context(), options{run: regexp.MustCompile("."), pairs: 1, json: file}); err != nil {
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
			Received received
		}
	}
	if err := json.Unmarshal(data, &r); err != nil {
		t.Fatal(err)
	}
	if len(r.Scenarios) != len(scenarios) {
		t.Fatalf("%d scenarios are reported, want %d", len(r.Scenarios), len(scenarios))
	}
	for i, f := range r.Scenarios {
		got, of := f.Received, scenarios[i]
		measured := of.all()
		if of.rate > 0 {
			measured = of.events
		}
		if f.Scenario != of.name || f.Events != measured {
			t.Errorf("%s with %d states is reported as %s with %d", of.name, measured, f.Scenario, f.Events)
		}
		if f.Hindsight.CPU <= 0 || f.Floor.CPU <= 0 || f.Seconds <= 0 || f.Allocations < 1 {
			t.Errorf("%s: not measured: %+v", f.Scenario, f)
		}
		if f.Hindsight.Anon <= 0 || f.Hindsight.Anon > f.Hindsight.Peak || (f.Hindsight.Switches > 0) != (of.rate > 0) {
			t.Errorf("%s: used %+v", f.Scenario, f.Hindsight)
		}
		// At a rate, some states are in Hindsight at the start and at the end of the period.
		if got.Entries != f.Events && of.rate == 0 || got.Entries == 0 || got.Pushes == 0 || got.Bytes == 0 || got.LagMedian > got.LagNinetyNine || got.LagNinetyNine > got.LagMax {
			t.Errorf("%s: received %+v", f.Scenario, got)
		}
		if got.LagMax <= 0 && f.Scenario != "loki" { // which may have been done before it was asked
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
