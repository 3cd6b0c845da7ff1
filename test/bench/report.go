package main

import (
	"bufio"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"runtime"
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

// figures are the results of a scenario: of several rounds the least CPU and time, and the
// most memory.
type figures struct {
	Scenario    string  `json:"scenario"`
	Events      int     `json:"events"`
	Seconds     float64 `json:"seconds"`              // from the start (backlog), the write (watch) or the first push (drain) to the last push
	CPU         float64 `json:"cpu_seconds"`          // of the process; for steady and drain, within those seconds
	PeakBytes   int64   `json:"peak_bytes,omitempty"` // resident
	Allocations float64 `json:"allocations"`          // an event, of the same period as CPU
	Retries     float64 `json:"retries"`              // failed pushes
	First       float64 `json:"first_seconds"`        // until the first push was received
	Floor       usage   `json:"floor"`
	Note        string  `json:"note,omitempty"` // on the comparison with the floor

	// Received is the content of Loki in the fastest round. A lag is the time from the
	// availability of a state (its write, the start of Hindsight, or the return of Loki in
	// drain) to its receipt. With a real Loki it is the age of the oldest record behind, at each
	// reading of the metrics.
	Received received `json:"received"`
}

// merge adds another round.
func (f *figures) merge(o figures) {
	repeated := max(f.Received.Repeated, o.Received.Repeated)
	if f.Seconds == 0 || o.Seconds < f.Seconds {
		f.Received = o.Received
	}
	f.Received.Repeated = repeated
	least := func(a *float64, b float64) {
		if *a == 0 || b < *a {
			*a = b
		}
	}
	least(&f.Seconds, o.Seconds)
	least(&f.CPU, o.CPU)
	least(&f.Allocations, o.Allocations)
	least(&f.First, o.First)
	f.Retries = max(f.Retries, o.Retries)
	f.PeakBytes = max(f.PeakBytes, o.PeakBytes)
	if f.Floor.cpu == 0 || o.Floor.cpu < f.Floor.cpu {
		f.Floor.cpu = o.Floor.cpu
	}
	f.Floor.peakBytes = max(f.Floor.peakBytes, o.Floor.peakBytes)
	f.Note = o.Note
}

// rates are derived from figures.
type rates struct {
	EventsPerSecond float64 `json:"events_per_second"`
	CPUMicros       float64 `json:"cpu_microseconds_per_event"`
	FloorMicros     float64 `json:"floor_cpu_microseconds_per_event"`
	Ratio           float64 `json:"ratio"` // of the two
	Cores           float64 `json:"cores"` // that were busy
}

func (f *figures) rates() rates {
	n, floor := float64(f.Events), f.Floor.cpu.Seconds()
	return rates{
		EventsPerSecond: n / f.Seconds,
		CPUMicros:       f.CPU / n * 1e6,
		FloorMicros:     floor / n * 1e6,
		Ratio:           f.CPU / floor,
		Cores:           f.CPU / f.Seconds,
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
		PeakBytes int64   `json:"peak_bytes,omitempty"`
	}{u.cpu.Seconds(), u.peakBytes})
}

const row = "%-20s %8s %9s %7s %6s %6s %8s %7s %8s %8s %8s  %s\n"

func (r *report) writeHead(w io.Writer) {
	m := r.Machine
	fmt.Fprintf(w, "%s, %d processors (%s), %s; binary %.1f MB\n\n", m.OS, m.Processors, cmp.Or(m.Processor, "unknown"), m.Go, float64(r.BinaryBytes)/1e6)
	fmt.Fprintf(w, row, "", "events/s", "CPU", "floor", "ratio", "cores", "peak RSS", "allocs", "pushes", "sent", "first", "lag")
	fmt.Fprintf(w, row, "", "", "µs/event", "µs", "", "", "MB", "/event", "", "MB", "s", "median, p99, max in s")
}

// write writes a row of the table.
func (f *figures) write(w io.Writer) {
	r, in := f.rates(), f.Received
	first, peak := "", ""
	if f.First > 0 {
		first = fmt.Sprintf("%.2f", f.First)
	}
	if f.PeakBytes > 0 {
		peak = fmt.Sprintf("%.1f", float64(f.PeakBytes)/1e6)
	}
	lag := fmt.Sprintf("%.3f, %.3f, %.3f", in.LagMedian, in.LagNinetyNine, in.LagMax)
	if f.Retries > 0 {
		lag += fmt.Sprintf(" (%.0f retries)", f.Retries)
	}
	if in.Repeated > 0 {
		lag += fmt.Sprintf(" (%d repeated entries)", in.Repeated)
	}
	fmt.Fprintf(w, row, f.Scenario,
		fmt.Sprintf("%.0f", r.EventsPerSecond),
		fmt.Sprintf("%.1f", r.CPUMicros), fmt.Sprintf("%.1f", r.FloorMicros), fmt.Sprintf("%.2f", r.Ratio),
		fmt.Sprintf("%.2f", r.Cores), peak, fmt.Sprintf("%.1f", f.Allocations),
		fmt.Sprint(in.Pushes), fmt.Sprintf("%.1f", float64(in.Bytes)/1e6),
		first, lag)
}

// writeNotes writes the notes on the scenarios.
func (r *report) writeNotes(w io.Writer) {
	fmt.Fprintln(w)
	for _, f := range r.Scenarios {
		if f.Note != "" {
			fmt.Fprintf(w, "%s: %s\n", f.Scenario, f.Note)
		}
	}
}
