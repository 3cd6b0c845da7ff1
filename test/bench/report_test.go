package main

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestOfSeveralRoundsTheLeastCPUAndTheMostMemory(t *testing.T) {
	var f figures
	for _, round := range []figures{
		{Seconds: 2, CPU: 1, PeakBytes: 50e6, Allocations: 20, First: 0.2, Floor: usage{cpu: time.Second, peakBytes: 30e6}, Received: received{Pushes: 7, LagMax: 2}},
		{Seconds: 1, CPU: 3, PeakBytes: 40e6, Allocations: 21, First: 0.3, Floor: usage{cpu: 2 * time.Second, peakBytes: 31e6}, Received: received{Pushes: 8, LagMax: 1, Repeated: 4}},
		{Seconds: 3, CPU: 2, PeakBytes: 60e6, Allocations: 19, First: 0.1, Floor: usage{cpu: time.Second / 2, peakBytes: 29e6}, Received: received{Pushes: 9, LagMax: 3}, Retries: 5},
	} {
		f.merge(round)
	}
	want := figures{
		Seconds: 1, CPU: 1, PeakBytes: 60e6, Allocations: 19, First: 0.1, Floor: usage{cpu: time.Second / 2, peakBytes: 31e6},
		Received: received{Pushes: 8, LagMax: 1, Repeated: 4}, // the round of a second
		Retries:  5,
	}
	if !reflect.DeepEqual(f, want) {
		t.Errorf("merged:\n%+v\nwant\n%+v", f, want)
	}
}

// some are figures of which everything is easy to compute.
var some = figures{
	Scenario: "firehose", Events: 200_000, Seconds: 4, CPU: 2, PeakBytes: 48e6, Allocations: 18.25, First: 0.125,
	Floor:    usage{cpu: time.Second, peakBytes: 29e6},
	Received: received{Entries: 200_000, Pushes: 20_000, Bytes: 30_500_000, LagMedian: 1.5, LagNinetyNine: 2.25, LagMax: 3},
}

func TestTable(t *testing.T) {
	noted := some
	noted.Scenario, noted.Note, noted.PeakBytes, noted.Retries, noted.Received.Repeated = "drain", "as it is", 0, 2, 3
	r := report{Machine: machine{OS: "linux/amd64", Processors: 2, Go: "go1.26"}, BinaryBytes: 25e6, Scenarios: []figures{some, noted}}
	var out strings.Builder
	r.writeHead(&out)
	for _, f := range r.Scenarios {
		f.write(&out)
	}
	r.writeNotes(&out)
	const want = `linux/amd64, 2 processors (unknown), go1.26; binary 25.0 MB

                     events/s       CPU   floor  ratio  cores peak RSS  allocs   pushes     sent    first  lag
                               µs/event      µs                     MB  /event                MB        s  median, p99, max in s
firehose                50000      10.0     5.0   2.00   0.50     48.0    18.2    20000     30.5     0.12  1.500, 2.250, 3.000
drain                   50000      10.0     5.0   2.00   0.50             18.2    20000     30.5     0.12  1.500, 2.250, 3.000 (2 retries) (3 repeated entries)

drain: as it is
`
	if got := out.String(); got != want {
		t.Errorf("written:\n%s\nwant:\n%s", got, want)
	}
}

func TestJSONHasWhatTheTableHas(t *testing.T) {
	data, err := json.Marshal(report{Scenarios: []figures{some}})
	if err != nil {
		t.Fatal(err)
	}
	var got struct {
		Scenarios []map[string]any `json:"scenarios"`
	}
	if err := json.Unmarshal(data, &got); err != nil {
		t.Fatal(err)
	}
	of := got.Scenarios[0]
	for name, want := range map[string]any{
		"scenario": "firehose", "events": 200_000., "seconds": 4., "cpu_seconds": 2., "peak_bytes": 48e6,
		"allocations": 18.25, "retries": 0., "first_seconds": 0.125, "events_per_second": 50_000.,
		"cpu_microseconds_per_event": 10., "floor_cpu_microseconds_per_event": 5., "ratio": 2., "cores": 0.5,
		"floor": map[string]any{"cpu_seconds": 1., "peak_bytes": 29e6},
		"received": map[string]any{
			"entries": 200_000., "repeated": 0., "pushes": 20_000., "bytes": 30_500_000.,
			"lag_median_seconds": 1.5, "lag_p99_seconds": 2.25, "lag_max_seconds": 3.,
		},
	} {
		if !reflect.DeepEqual(of[name], want) {
			t.Errorf("%s: %v, want %v", name, of[name], want)
		}
		delete(of, name)
	}
	if len(of) > 0 {
		t.Errorf("there is more: %v", of)
	}
}

func TestContainerOfTheManifests(t *testing.T) {
	c, err := readContainer(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if c.memory <= 0 || c.goMemLimit == "" {
		t.Fatalf("read %+v", c)
	}
	if err := c.holds(c.memory); err != nil {
		t.Errorf("a peak within the limit is rejected: %v", err)
	}
	if c.holds(c.memory+1) == nil {
		t.Error("a peak above the limit is accepted")
	}
}

func TestLags(t *testing.T) {
	var r received
	r.addLags(nil)
	lags := make([]float64, 200)
	for i := range lags {
		lags[len(lags)-1-i] = float64(i)
	}
	r.addLags(lags)
	if r.LagMedian != 100 || r.LagNinetyNine != 198 || r.LagMax != 199 {
		t.Errorf("of 0 to 199: %+v", r)
	}
}
