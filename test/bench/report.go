package main

import (
	"bufio"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"runtime"
	"slices"
	"strings"
)

// report holds all measurements.
type report struct {
	Machine     machine   `json:"machine"`
	BinaryBytes int64     `json:"binary_bytes"`
	Scenarios   []figures `json:"scenarios"`
}

type machine struct {
	OS         string `json:"os"`
	Processor  string `json:"processor,omitempty"`
	Processors int    `json:"processors"`
	Go         string `json:"go"`
}

func describe() machine {
	m := machine{OS: runtime.GOOS + "/" + runtime.GOARCH, Processors: runtime.NumCPU(), Go: runtime.Version()}
	if f, err := os.Open("/proc/cpuinfo"); err == nil {
		defer f.Close()
		for lines := bufio.NewScanner(f); lines.Scan() && m.Processor == ""; {
			if name, ok := strings.CutPrefix(lines.Text(), "model name"); ok {
				m.Processor = strings.TrimLeft(name, "\t :")
			}
		}
	}
	return m
}

// figures are the results of a scenario.
type figures struct {
	Scenario    string  `json:"scenario"`
	Events      int     `json:"events"`  // states of which the cost is measured
	Seconds     float64 `json:"seconds"` // at a rate: in which they were written; else from the start (backlog), the write (watch) or the first push (drain) to the last push
	Used        usage   `json:"hindsight"`
	Floor       usage   `json:"floor"`
	Allocations float64 `json:"allocations"`                  // an event, of the same period as CPU
	Retries     float64 `json:"retries"`                      // failed pushes
	First       float64 `json:"first_seconds"`                // until the first push was received; 0: not measured
	Lease       count   `json:"lease"`                        // its writes
	SenderCPU   float64 `json:"sender_cpu_seconds,omitempty"` // where Loki is measured: of Hindsight or the peer
	Note        string  `json:"note,omitempty"`

	Misses    []string         `json:"missed_targets,omitempty"`
	Requests  map[string]count `json:"requests,omitempty"`                // of a standby to the API server
	Series    int              `json:"series"`                            // lines of metrics; of several sinks, how many one more has
	SinkBytes figure           `json:"anonymous_bytes_per_sink,omitzero"` // that one more sink takes
	PeerRatio figure           `json:"peer_ratio,omitzero"`               // CPU, compared with the peer's

	// Ratio is the CPU compared with the floor's. Of several pairs, the other figures are of the one
	// with the median ratio.
	Ratio figure `json:"ratio"`
	Pairs int    `json:"pairs"`

	// Received is the content of Loki, at a rate: what it received in the measured period. A lag is
	// the time from the availability of a state (its write, the start of Hindsight, or the return
	// of Loki in drain) to its receipt, of all states. With a real Loki it is the age of the oldest
	// record behind, at each reading of the metrics.
	Received received `json:"received"`
}

// figure is of several pairs.
type figure struct {
	Median float64 `json:"median"` // of an even number, the higher one
	Min    float64 `json:"min"`
	Max    float64 `json:"max"`
}

func figureOf(values ...float64) figure {
	slices.Sort(values)
	return figure{values[len(values)/2], values[0], values[len(values)-1]}
}

func (f figure) String() string { return fmt.Sprintf("%.2f (%.2f-%.2f)", f.Median, f.Min, f.Max) }

// quotient is 0 if nothing was measured.
func quotient(a, b float64) float64 {
	if b == 0 {
		return 0
	}
	return a / b
}

// median returns the pair with the median ratio, with the most memory and the longest lags of all.
func median(pairs []figures) figures {
	slices.SortFunc(pairs, func(a, b figures) int { return cmp.Compare(a.Ratio.Median, b.Ratio.Median) })
	f := pairs[len(pairs)/2]
	f.Pairs = len(pairs)
	var ratios, peers, sinks []float64
	for _, o := range pairs {
		ratios, peers, sinks = append(ratios, o.Ratio.Median), append(peers, o.PeerRatio.Median), append(sinks, o.SinkBytes.Median)
		f.Used.peakBytes, f.Used.anonBytes = max(f.Used.peakBytes, o.Used.peakBytes), max(f.Used.anonBytes, o.Used.anonBytes)
		f.Floor.peakBytes, f.Floor.anonBytes = max(f.Floor.peakBytes, o.Floor.peakBytes), max(f.Floor.anonBytes, o.Floor.anonBytes)
		f.Retries = max(f.Retries, o.Retries)
		f.Received.Repeated = max(f.Received.Repeated, o.Received.Repeated)
		f.Received.LagNinetyNine = max(f.Received.LagNinetyNine, o.Received.LagNinetyNine)
		f.Received.LagMax = max(f.Received.LagMax, o.Received.LagMax)
		f.Received.WarningMax = max(f.Received.WarningMax, o.Received.WarningMax)
	}
	f.Ratio, f.PeerRatio, f.SinkBytes = figureOf(ratios...), figureOf(peers...), figureOf(sinks...)
	return f
}

// rates are derived from figures.
type rates struct {
	EventsPerSecond float64 `json:"events_per_second"`
	CPUMicros       float64 `json:"cpu_microseconds_per_event"`
	FloorMicros     float64 `json:"floor_cpu_microseconds_per_event"`
	Cores           float64 `json:"cores"` // that were busy
	WakeUps         float64 `json:"wakeups_per_second"`
	Pushes          float64 `json:"pushes_per_event"`
	Bytes           float64 `json:"bytes_per_event"`
}

func (f *figures) rates() rates {
	n, micros, entries := float64(f.Events), f.Used.cpu.Seconds()*1e6, float64(f.Received.Entries)
	return rates{
		EventsPerSecond: n / f.Seconds,
		CPUMicros:       quotient(micros, n),
		FloorMicros:     quotient(f.Floor.cpu.Seconds()*1e6, n),
		Cores:           micros / 1e6 / f.Seconds,
		WakeUps:         float64(f.Used.switches) / f.Seconds,
		Pushes:          quotient(float64(f.Received.Pushes), entries),
		Bytes:           quotient(float64(f.Received.Bytes), entries),
	}
}

// MarshalJSON implements json.Marshaler.
func (f figures) MarshalJSON() ([]byte, error) {
	type plain figures
	return json.Marshal(struct {
		plain
		rates
	}{plain(f), f.rates()})
}

// MarshalJSON implements json.Marshaler.
func (u usage) MarshalJSON() ([]byte, error) {
	return json.Marshal(struct {
		CPU       float64 `json:"cpu_seconds"`
		Switches  int64   `json:"context_switches,omitempty"`
		PeakBytes int64   `json:"peak_bytes,omitempty"`
		AnonBytes int64   `json:"anonymous_bytes,omitempty"`
	}{u.cpu.Seconds(), u.switches, u.peakBytes, u.anonBytes})
}

const row = "%-18s %8s %8s %7s %6s %11s %7s %8s %9s %9s %7s %8s %8s %6s  %s"

func writeRow(w io.Writer, columns ...any) {
	fmt.Fprintln(w, strings.TrimRight(fmt.Sprintf(row, columns...), " "))
}

func (r *report) writeHead(w io.Writer) {
	m := r.Machine
	fmt.Fprintf(w, "%s, %d processors (%s), %s; binary %.1f MB\n\n", m.OS, m.Processors, cmp.Or(m.Processor, "unknown"), m.Go, float64(r.BinaryBytes)/1e6)
	writeRow(w, "", "events/s", "CPU", "floor", "ratio", "(of pairs)", "core", "wake-ups", "peak RSS", "anonymous", "allocs", "pushes", "sent", "first", "lag")
	writeRow(w, "", "", "µs/event", "µs", "median", "min-max", "%", "/s", "MB", "MB", "/event", "/event", "B/event", "s", "median, p99, max (Warnings: median, max) in s")
}

// write writes a row of the table.
func (f *figures) write(w io.Writer) {
	r, in := f.rates(), f.Received
	known := func(format string, value float64) string {
		if value == 0 {
			return ""
		}
		return fmt.Sprintf(format, value)
	}
	lag := ""
	if in.LagMax > 0 {
		lag = fmt.Sprintf("%.3f, %.3f, %.3f", in.LagMedian, in.LagNinetyNine, in.LagMax)
	}
	if in.WarningMax > 0 {
		lag += fmt.Sprintf(" (%.3f, %.3f)", in.WarningMedian, in.WarningMax)
	}
	if f.Retries > 0 {
		lag += fmt.Sprintf(" (%.0f retries)", f.Retries)
	}
	if in.Repeated > 0 {
		lag += fmt.Sprintf(" (%d repeated entries)", in.Repeated)
	}
	pairs := ""
	if f.Ratio.Median > 0 {
		pairs = fmt.Sprintf("%.2f-%.2f", f.Ratio.Min, f.Ratio.Max)
	}
	writeRow(w, f.Scenario,
		known("%.0f", r.EventsPerSecond),
		known("%.1f", r.CPUMicros), known("%.1f", r.FloorMicros), known("%.2f", f.Ratio.Median), pairs,
		known("%.2f", r.Cores*100), known("%.1f", r.WakeUps),
		known("%.1f", float64(f.Used.peakBytes)/1e6), known("%.1f", float64(f.Used.anonBytes)/1e6),
		known("%.1f", f.Allocations), known("%.3f", r.Pushes), known("%.1f", r.Bytes),
		known("%.2f", f.First), lag)
}

// writeNotes writes the notes on the scenarios.
func (r *report) writeNotes(w io.Writer) {
	fmt.Fprintln(w)
	for _, f := range r.Scenarios {
		if f.Note != "" {
			fmt.Fprintf(w, "%s: %s\n", f.Scenario, f.Note)
		}
		if f.PeerRatio.Median > 0 {
			fmt.Fprintf(w, "%s: %v times the CPU of the peer\n", f.Scenario, f.PeerRatio)
		}
		if f.SenderCPU > 0 {
			fmt.Fprintf(w, "%s: the sender itself used %.1f µs an event\n", f.Scenario, f.SenderCPU/float64(f.Events)*1e6)
		}
		if f.SinkBytes.Median > 0 {
			fmt.Fprintf(w, "%s: one more sink takes %.2f MB of anonymous memory and %d series\n", f.Scenario, f.SinkBytes.Median/1e6, f.Series)
		}
		for _, request := range slices.Sorted(maps.Keys(f.Requests)) {
			fmt.Fprintf(w, "%s: %d × %s in %.0f s\n", f.Scenario, f.Requests[request].Requests, request, f.Seconds)
		}
		if f.Lease.Requests > 0 {
			fmt.Fprintf(w, "%s: the Lease was written %d times (%d bytes in all), %d times with other positions\n", f.Scenario, f.Lease.Requests, f.Lease.Bytes, f.Lease.Changes)
		}
		for _, miss := range f.Misses {
			fmt.Fprintf(w, "%s: missed a target: %s\n", f.Scenario, miss)
		}
	}
}
