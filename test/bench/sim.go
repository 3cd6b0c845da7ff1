package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/hindsight-events/hindsight/test/cluster"
)

// sim is a running test/sim.
type sim struct {
	*process
	url string
}

// startSim waits until the sim responds.
func startSim(ctx context.Context, binary, dir string, s scenario) (*sim, error) {
	port, err := cluster.FreePort()
	if err != nil {
		return nil, err
	}
	address := fmt.Sprintf("127.0.0.1:%d", port)
	args := []string{"-listen", address, "-events", fmt.Sprint(s.backlog), "-streams", fmt.Sprint(cmp.Or(s.streams, 2000)), "-zipf", fmt.Sprint(s.zipf)}
	p, err := startProcess(binary, filepath.Join(dir, "sim.log"), nil, args...)
	if err != nil {
		return nil, err
	}
	started := &sim{process: p, url: "http://" + address}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		if _, err = started.received(ctx, 0, 0, time.Time{}); err == nil {
			return started, nil
		}
		select {
		case <-tick.C:
		case <-p.Done():
			return nil, fmt.Errorf("sim has ended: %v; see %s", p.Exit(), p.log)
		case <-ctx.Done():
			p.Kill()
			return nil, fmt.Errorf("start sim: %w", err)
		}
	}
}

// received is the content of the simulated Loki; see ../sim.
type received struct {
	Entries       int       `json:"entries"`
	Repeated      int       `json:"repeated"`
	Pushes        int       `json:"pushes"`
	Bytes         int       `json:"bytes"`
	CountedBytes  int       `json:"counted_bytes,omitempty"`
	Streams       int       `json:"streams,omitempty"`
	First         time.Time `json:"first,omitzero"`
	Last          time.Time `json:"last,omitzero"`
	LagMedian     float64   `json:"lag_median_seconds"`
	LagNinetyNine float64   `json:"lag_p99_seconds"`
	LagMax        float64   `json:"lag_max_seconds"`
	WarningMedian float64   `json:"warning_lag_median_seconds,omitempty"`
	WarningMax    float64   `json:"warning_lag_max_seconds,omitempty"`
}

// received waits for entries and open watches, and returns the content. The lags of the
// initial Events count from since; they are excluded if it is zero.
func (s *sim) received(ctx context.Context, entries, watches int, since time.Time) (r received, err error) {
	query := url.Values{"entries": {strconv.Itoa(entries)}, "watches": {strconv.Itoa(watches)}}
	if !since.IsZero() {
		query.Set("since", since.Format(time.RFC3339Nano))
	}
	body, err := get(ctx, s.url+"/sim/received?"+query.Encode())
	if err != nil {
		return r, err
	}
	defer body.Close()
	return r, json.NewDecoder(body).Decode(&r)
}

// count is of requests with one method and path; see ../sim.
type count struct {
	Requests int `json:"requests"`
	Bytes    int `json:"bytes"`
	Changes  int `json:"changes,omitempty"` // of annotations
}

func (c count) since(before count) count {
	return count{c.Requests - before.Requests, c.Bytes - before.Bytes, c.Changes - before.Changes}
}

// requests returns the requests of a client, by method and path.
func (s *sim) requests(ctx context.Context, client string) (map[string]count, error) {
	body, err := get(ctx, s.url+"/sim/requests")
	if err != nil {
		return nil, err
	}
	defer body.Close()
	all, of := make(map[string]count), make(map[string]count)
	if err := json.NewDecoder(body).Decode(&all); err != nil {
		return nil, err
	}
	for key, c := range all {
		method, path, _ := strings.Cut(key, " ")
		if path, ok := strings.CutPrefix(path, client+"/"); ok {
			of[method+" /"+path] = c
		}
	}
	return of, nil
}

// leaseWrites returns the writes of the Lease.
func (s *sim) leaseWrites(ctx context.Context) (sum count, err error) {
	all, err := s.requests(ctx, "")
	for key, c := range all {
		if strings.Contains(key, "/leases") && !strings.HasPrefix(key, http.MethodGet) {
			sum = count{sum.Requests + c.Requests, sum.Bytes + c.Bytes, sum.Changes + c.Changes}
		}
	}
	return sum, err
}

// waitForWatch waits until a process watches.
func (s *sim) waitForWatch(ctx context.Context, p *process, patience time.Duration) error {
	waiting, cancel := p.while(ctx, patience)
	defer cancel()
	if _, err := s.received(waiting, 0, 1, time.Time{}); err != nil {
		if waiting.Err() != nil {
			err = context.Cause(waiting)
		}
		return fmt.Errorf("no watch was opened: %w", err)
	}
	return nil
}

// write writes Events.
func (s *sim) write(ctx context.Context, events, rate int) error {
	return s.post(ctx, fmt.Sprintf("/sim/write?events=%d&rate=%d", events, rate))
}

// behave sets the response to pushes.
func (s *sim) behave(ctx context.Context, how string) error {
	return s.post(ctx, "/sim/loki?"+how)
}

func (s *sim) post(ctx context.Context, path string) error {
	body, err := do(ctx, http.MethodPost, s.url+path)
	if err != nil {
		return err
	}
	return body.Close()
}
