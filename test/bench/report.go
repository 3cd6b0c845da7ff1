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
	"time"
)

// report is everything that was measured.
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

// figures are those of a scenario: of several rounds the least CPU, time and
// lag, and the most memory.
type figures struct {
	Scenario    string  `json:"scenario"`
	Events      int     `json:"events"`
	Seconds     float64 `json:"seconds"`       // from the start (backlog), the write (watch) or the first push (drain) to the last push
	CPU         float64 `json:"cpu_seconds"`   // of the process; for steady and drain, within those seconds
	PeakBytes   int64   `json:"peak_bytes"`    // resident
	Allocations float64 `json:"allocations"`   // an event
	Retries     float64 `json:"retries"`       // pushes that were refused or not answered
	First       float64 `json:"first_seconds"` // until the first push was received
	Floor       usage   `json:"floor,omitzero"`

	Received *received `json:"received,omitempty"` // by the stand-in
}

// merge takes in another round.
func (f *figures) merge(o figures) {
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
	f.Received = cmp.Or(f.Received, o.Received)
}

// MarshalJSON implements json.Marshaler.
func (u usage) MarshalJSON() ([]byte, error) {
	return json.Marshal(struct {
		CPU       float64 `json:"cpu_seconds"`
		PeakBytes int64   `json:"peak_bytes"`
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
	n := float64(f.Events)
	micros := func(seconds float64) float64 { return seconds * float64(time.Second/time.Microsecond) / n }
	floor, ratio := "", ""
	if f.Floor.cpu > 0 {
		floor = fmt.Sprintf("%.1f", micros(f.Floor.cpu.Seconds()))
		ratio = fmt.Sprintf("%.2f", f.CPU/f.Floor.cpu.Seconds())
	}
	pushes, sent, first, lag := "", "", "", ""
	if r := f.Received; r != nil {
		pushes, sent = fmt.Sprint(r.Pushes), fmt.Sprintf("%.1f", float64(r.Bytes)/1e6)
		if f.First > 0 {
			first = fmt.Sprintf("%.2f", f.First)
		}
		if r.LagMax > 0 {
			lag = fmt.Sprintf("%.3f, %.3f, %.3f", r.LagMedian, r.LagNinetyNine, r.LagMax)
		}
	}
	if f.Retries > 0 {
		lag += fmt.Sprintf(" (%.0f retries)", f.Retries)
	}
	fmt.Fprintf(w, row, f.Scenario,
		fmt.Sprintf("%.0f", n/f.Seconds),
		fmt.Sprintf("%.1f", micros(f.CPU)), floor, ratio,
		fmt.Sprintf("%.2f", f.CPU/f.Seconds),
		fmt.Sprintf("%.1f", float64(f.PeakBytes)/1e6),
		fmt.Sprintf("%.1f", f.Allocations),
		pushes, sent, first, lag)
}
