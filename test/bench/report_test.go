package main

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestOfSeveralPairsTheMedianRatioAndTheMostMemory(t *testing.T) {
	got := median([]figures{
		{Ratio: figure{Median: 3}, Used: usage{peakBytes: 50e6, anonBytes: 6e6}, Floor: usage{peakBytes: 30e6}, Allocations: 20, Received: received{Pushes: 7, LagMax: 2, WarningMax: 1}, SinkBytes: figure{Median: 5}},
		{Ratio: figure{Median: 1}, Used: usage{peakBytes: 40e6, anonBytes: 7e6}, Floor: usage{peakBytes: 31e6}, Allocations: 21, Received: received{Pushes: 8, LagMax: 1, Repeated: 4}, SinkBytes: figure{Median: 7}},
		{Ratio: figure{Median: 2}, Used: usage{peakBytes: 60e6, anonBytes: 5e6}, Floor: usage{peakBytes: 29e6}, Allocations: 19, Received: received{Pushes: 9, LagNinetyNine: 3}, Retries: 5, SinkBytes: figure{Median: 6}, PeerRatio: figure{Median: 0.5}},
	})
	want := figures{
		Used: usage{peakBytes: 60e6, anonBytes: 7e6}, Floor: usage{peakBytes: 31e6}, Allocations: 19, Retries: 5,
		Received: received{Pushes: 9, LagNinetyNine: 3, LagMax: 2, WarningMax: 1, Repeated: 4},
		Pairs:    3, Ratio: figure{2, 1, 3}, SinkBytes: figure{6, 5, 7}, PeerRatio: figure{0, 0, 0.5},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("median:\n%+v\nwant\n%+v", got, want)
	}
}

// some are figures of which everything is easy to compute.
var some = median([]figures{{
	Scenario: "firehose", Events: 200_000, Seconds: 4, Ratio: figure{Median: 2}, Allocations: 18.25, First: 0.125,
	Used:  usage{cpu: 2 * time.Second, switches: 400, peakBytes: 48e6, anonBytes: 20e6},
	Floor: usage{cpu: time.Second, peakBytes: 29e6},
	Lease: count{Requests: 2, Bytes: 900, Changes: 1}, Series: 70,
	Received: received{Entries: 200_000, Pushes: 20_000, Bytes: 30_500_000, LagMedian: 1.5, LagNinetyNine: 2.25, LagMax: 3, WarningMedian: 0.5, WarningMax: 2},
}})

func TestTable(t *testing.T) {
	noted := some
	noted.Scenario, noted.Note, noted.Used.peakBytes, noted.Retries, noted.Received.Repeated = "drain", "as it is", 0, 2, 3
	standby := figures{Scenario: "standby", Seconds: 20, Used: usage{cpu: time.Millisecond, switches: 100}, Requests: map[string]count{"GET /lease": {Requests: 9}}}
	sinks := some
	sinks.Scenario, sinks.SinkBytes.Median, sinks.Series, sinks.SenderCPU, sinks.Lease = "sinks", 640e3, 18, 4, count{}
	sinks.PeerRatio = figureOf(1.5, 1, 3)
	sinks.Misses = targets{ratio: 2, peer: 1.4, percent: 50, lag: 2, warning: 0.4, peak: 48, anon: 19, sink: 0.6}.missed(&sinks)
	r := report{Machine: machine{OS: "linux/amd64", Processors: 2, Go: "go1.26"}, BinaryBytes: 25e6, Scenarios: []figures{some, noted, standby, sinks}}
	var out strings.Builder
	r.writeHead(&out)
	for _, f := range r.Scenarios {
		f.write(&out)
	}
	r.writeNotes(&out)
	const want = `linux/amd64, 2 processors (unknown), go1.26; binary 25.0 MB

                   events/s      CPU   floor  ratio  (of pairs)    core wake-ups  peak RSS anonymous  allocs   pushes     sent  first  lag
                            µs/event      µs median     min-max       %       /s        MB        MB  /event   /event  B/event      s  median, p99, max (Warnings: median, max) in s
firehose              50000     10.0     5.0   2.00   2.00-2.00   50.00    100.0      48.0      20.0    18.2    0.100    152.5   0.12  1.500, 2.250, 3.000 (0.500, 2.000)
drain                 50000     10.0     5.0   2.00   2.00-2.00   50.00    100.0                20.0    18.2    0.100    152.5   0.12  1.500, 2.250, 3.000 (0.500, 2.000) (2 retries) (3 repeated entries)
standby                                                            0.01      5.0
sinks                 50000     10.0     5.0   2.00   2.00-2.00   50.00    100.0      48.0      20.0    18.2    0.100    152.5   0.12  1.500, 2.250, 3.000 (0.500, 2.000)

firehose: the Lease was written 2 times (900 bytes in all), 1 times with other positions
drain: as it is
drain: the Lease was written 2 times (900 bytes in all), 1 times with other positions
standby: 9 × GET /lease in 20 s
sinks: 1.50 (1.00-3.00) times the CPU of the peer
sinks: the sender itself used 20.0 µs an event
sinks: one more sink takes 0.64 MB of anonymous memory and 18 series
sinks: missed a target: 1.50 times the CPU of the peer, want at most 1.4
sinks: missed a target: 2.25 s of lag (99th percentile), want at most 2
sinks: missed a target: 0.50 s of lag of Warnings (median), want at most 0.4
sinks: missed a target: 20.00 MB of anonymous memory, want at most 19
sinks: missed a target: 0.64 MB for one more sink, want at most 0.6
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
		"scenario": "firehose", "events": 200_000., "seconds": 4.,
		"allocations": 18.25, "retries": 0., "first_seconds": 0.125, "events_per_second": 50_000.,
		"cpu_microseconds_per_event": 10., "floor_cpu_microseconds_per_event": 5., "cores": 0.5,
		"pairs": 1., "ratio": map[string]any{"median": 2., "min": 2., "max": 2.}, "wakeups_per_second": 100., "pushes_per_event": 0.1, "bytes_per_event": 152.5,
		"lease": map[string]any{"requests": 2., "bytes": 900., "changes": 1.}, "series": 70.,
		"hindsight": map[string]any{"cpu_seconds": 2., "context_switches": 400., "peak_bytes": 48e6, "anonymous_bytes": 20e6},
		"floor":     map[string]any{"cpu_seconds": 1., "peak_bytes": 29e6},
		"received": map[string]any{
			"entries": 200_000., "repeated": 0., "pushes": 20_000., "bytes": 30_500_000.,
			"lag_median_seconds": 1.5, "lag_p99_seconds": 2.25, "lag_max_seconds": 3.,
			"warning_lag_median_seconds": 0.5, "warning_lag_max_seconds": 2.,
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
