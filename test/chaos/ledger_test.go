//go:build e2e

package chaos

import (
	"fmt"
	"strconv"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// key identifies a state.
type key struct {
	uid     string
	version uint64
}

func (k key) String() string { return fmt.Sprintf("%s@%d", k.uid, k.version) }

// state is a state that the API server has confirmed as written.
type state struct {
	key
	number  int    // in the ledger
	mark    string // unique to this write
	event   string // which Event, with its count
	at      time.Time
	sent    time.Time
	written time.Time
}

func (s *state) String() string { return fmt.Sprintf("%s %s %s", s.mark, s.key, s.event) }

// ledger records the writes. It is safe for concurrent use.
type ledger struct {
	mu      sync.Mutex // guards the rest
	states  []*state   // in the order of the responses
	unknown map[string]error
}

func newLedger() *ledger { return &ledger{unknown: map[string]error{}} }

// wrote records a confirmed state.
func (l *ledger) wrote(e *corev1.Event, mark string, sent time.Time) error {
	version, err := strconv.ParseUint(e.ResourceVersion, 10, 64)
	if err != nil {
		return fmt.Errorf("the version of a written Event: %w", err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.states = append(l.states, &state{
		key:     key{string(e.UID), version},
		number:  len(l.states),
		mark:    mark,
		event:   fmt.Sprintf("%s/%s %s count %d", e.Namespace, e.Name, e.Reason, e.Count),
		at:      e.LastTimestamp.Time,
		sent:    sent,
		written: time.Now(),
	})
	return nil
}

// failed records a write without a response: it may have been executed.
func (l *ledger) failed(mark string, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.unknown[mark] = err
}

// failure returns the error of a write, nil if it did not fail.
func (l *ledger) failure(mark string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.unknown[mark]
}

func (l *ledger) failures() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.unknown)
}

// all returns the states so far, which must not be changed.
func (l *ledger) all() []*state {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.states[:len(l.states):len(l.states)]
}
