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

// state is one that the API server says it has written.
type state struct {
	key
	number  int    // in the ledger
	mark    string // of this write alone
	event   string // which Event, with its count
	at      time.Time
	sent    time.Time
	written time.Time
}

func (s *state) String() string { return fmt.Sprintf("%s %s %s", s.mark, s.key, s.event) }

// ledger holds what was written. It is safe for concurrent use.
type ledger struct {
	mu      sync.Mutex // guards the rest
	states  []*state   // in the order of the API server's answers
	unknown map[string]error
}

func newLedger() *ledger { return &ledger{unknown: map[string]error{}} }

// wrote notes a state that the API server has answered with.
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

// failed notes a write that came to no answer: nobody knows whether it was done.
func (l *ledger) failed(mark string, why error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.unknown[mark] = why
}

// failure returns why a write failed, nil if it did not.
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

// all returns the states so far, not to be changed by anybody.
func (l *ledger) all() []*state {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.states[:len(l.states):len(l.states)]
}
