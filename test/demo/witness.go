package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"sync"

	"github.com/hindsight-events/hindsight/test/cluster"
)

// state is one state of one Event: its uid and its version.
type state struct{ uid, version string }

// ledger holds the states that kubectl has seen.
type ledger struct {
	states map[state]bool
	reason map[string]string // of each Event, by uid
}

// preempted is the number of Events with that reason.
func (l *ledger) preempted() (n int) {
	for _, reason := range l.reason {
		if reason == "Preempted" {
			n++
		}
	}
	return n
}

// compare returns an error unless each state is among the entries, once.
func (l *ledger) compare(entries []entry) error {
	stored := make(map[state]int, len(entries))
	for _, e := range entries {
		stored[e.state]++
	}
	lacking, again := 0, 0
	for s := range l.states {
		switch n := stored[s]; {
		case n == 0:
			lacking++
		case n > 1:
			again++
		}
	}
	if lacking > 0 || again > 0 {
		return fmt.Errorf("of %d states that kubectl saw, %d are not stored and %d are stored more than once", len(l.states), lacking, again)
	}
	return nil
}

// witness records the Events independently of Hindsight, with "kubectl get events --watch".
type witness struct {
	stop func()

	mu     sync.Mutex // guards the rest
	ledger ledger
	err    error // why it has ended
}

// startWitness does not wait for kubectl, which lists earlier Events.
func startWitness(c *cluster.Cluster) (*witness, error) {
	ctx, cancel := context.WithCancel(context.Background())
	cmd := c.KubectlCommand(ctx, "get", "events", "-A", "--watch", "--output-watch-events", "-o", "json")
	stdout, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		cancel()
		return nil, fmt.Errorf("watch with kubectl: %w", err)
	}
	w := newWitness()
	var reading sync.WaitGroup
	reading.Go(func() {
		err := w.read(stdout)
		cancel()
		w.end(fmt.Errorf("watch with kubectl: %w", errors.Join(err, cmd.Wait())))
	})
	w.stop = func() {
		cancel()
		reading.Wait()
	}
	return w, nil
}

func newWitness() *witness {
	return &witness{ledger: ledger{states: make(map[state]bool), reason: make(map[string]string)}}
}

// read never returns nil.
func (w *witness) read(stdout io.Reader) error {
	for changes := json.NewDecoder(stdout); ; {
		var change struct {
			Type   string
			Object struct {
				Metadata struct{ UID, ResourceVersion string }
				Reason   string
			}
		}
		if err := changes.Decode(&change); err != nil {
			return err
		}
		if change.Type != "ADDED" && change.Type != "MODIFIED" {
			continue // an expiry is no state
		}
		meta := change.Object.Metadata
		w.mu.Lock()
		w.ledger.states[state{meta.UID, meta.ResourceVersion}] = true
		w.ledger.reason[meta.UID] = change.Object.Reason
		w.mu.Unlock()
	}
}

func (w *witness) end(why error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.err = why
}

// seen returns the states so far.
func (w *witness) seen() (*ledger, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err != nil {
		return nil, w.err
	}
	return &ledger{states: maps.Clone(w.ledger.states), reason: maps.Clone(w.ledger.reason)}, nil
}
