package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"path/filepath"
	"time"

	"github.com/hindsight-events/hindsight/test/cluster"
)

// sim is a running test/sim.
type sim struct {
	*process
	url string
}

// startSim returns when it answers.
func startSim(ctx context.Context, binary, dir string, events int) (*sim, error) {
	port, err := cluster.FreePort()
	if err != nil {
		return nil, err
	}
	address := fmt.Sprintf("127.0.0.1:%d", port)
	p, err := startProcess(binary, filepath.Join(dir, "sim.log"), nil, "-listen", address, "-events", fmt.Sprint(events))
	if err != nil {
		return nil, err
	}
	s := &sim{process: p, url: "http://" + address}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		if _, err = s.received(ctx, 0, 0); err == nil {
			return s, nil
		}
		select {
		case <-tick.C:
		case <-p.done:
			return nil, fmt.Errorf("sim has ended: %v; see %s", p.err, p.log)
		case <-ctx.Done():
			p.kill()
			return nil, fmt.Errorf("start sim: %w", err)
		}
	}
}

// received is what the Loki of a sim says that it has.
type received struct {
	Entries       int       `json:"entries"`
	Repeated      int       `json:"repeated"`
	Pushes        int       `json:"pushes"`
	Bytes         int       `json:"bytes"`
	CountedBytes  int       `json:"counted_bytes"`
	Streams       int       `json:"streams"`
	First         time.Time `json:"first,omitzero"`
	Last          time.Time `json:"last,omitzero"`
	LagMedian     float64   `json:"lag_median_seconds"`
	LagNinetyNine float64   `json:"lag_p99_seconds"`
	LagMax        float64   `json:"lag_max_seconds"`
}

// received returns that once there are so many entries and open watches.
func (s *sim) received(ctx context.Context, entries, watches int) (r received, err error) {
	body, err := get(ctx, fmt.Sprintf("%s/sim/received?entries=%d&watches=%d", s.url, entries, watches))
	if err != nil {
		return r, err
	}
	defer body.Close()
	return r, json.NewDecoder(body).Decode(&r)
}

// write lets Events be written and returns when they are.
func (s *sim) write(ctx context.Context, events, rate int) error {
	return s.post(ctx, fmt.Sprintf("/sim/write?events=%d&rate=%d", events, rate))
}

// behave says how pushes are answered from now on.
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
