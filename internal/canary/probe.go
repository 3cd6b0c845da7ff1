package canary

import (
	"log/slog"
	"slices"
	"sync"
	"time"
)

// maxPending bounds the memory of a probe during a long outage.
const maxPending = 100

// probe follows the states of the canary Event to one place: the watch, or Loki. It is safe for
// concurrent use.
type probe struct {
	name string
	log  *slog.Logger

	mu      sync.Mutex // guards the following
	pending []state    // written and not found yet, oldest first
	early   []state    // observed while the response to the write is outstanding
	last    time.Duration
	overdue bool      // the warning was logged
	failing time.Time // when queries began to fail; zero: they succeed
}

// state is one state of the canary Event.
type state struct {
	begun   time.Time // before the write
	version string    // empty: the write is in flight or failed

	found time.Time // of an early state; zero: not yet

	// The log query that finds the state; empty: not known yet.
	query string
	time  time.Time
}

func newProbe(name string, log *slog.Logger) *probe {
	return &probe{name: name, log: log.With("probe", name)}
}

// begin adds a pending state before it is written. It remains pending if the write fails, because
// an Event that cannot be written does not arrive.
func (p *probe) begin() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.early = nil
	if n := len(p.pending); n > 0 && p.pending[n-1].version == "" {
		return // the previous write failed
	}
	p.pending = append(p.pending, state{begun: time.Now()})
	if len(p.pending) > maxPending {
		p.pending = slices.Delete(p.pending, 1, 2) // the oldest determines the age
	}
}

// written sets the version of the state that begin added. The state may have been observed already.
func (p *probe) written(version string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := len(p.pending) - 1
	if n < 0 || p.pending[n].version != "" {
		return
	}
	p.pending[n].version = version
	for _, e := range p.early {
		if e.version != version {
			continue
		}
		p.pending[n].query, p.pending[n].time = e.query, e.time
		if !e.found.IsZero() {
			p.complete(n, e.found)
		}
		break
	}
	p.early = nil
}

// found completes the state of a version.
func (p *probe) found(version string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if i := p.index(version); i >= 0 {
		p.complete(i, time.Now())
	} else if p.writing() {
		p.early = append(p.early, state{version: version, found: time.Now()})
	}
}

// locate sets the query and the time by which a state can be found.
func (p *probe) locate(version, query string, at time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if i := p.index(version); i >= 0 {
		p.pending[i].query, p.pending[i].time = query, at
	} else if p.writing() {
		p.early = append(p.early, state{version: version, query: query, time: at})
	}
}

// candidates returns the states to query for: the newest, because it completes all, and the oldest,
// which arrives first if all are late.
func (p *probe) candidates() (states []state) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, s := range p.pending {
		if s.query != "" {
			states = append(states, s)
		}
	}
	if n := len(states); n > 1 {
		states = []state{states[n-1], states[0]}
	}
	return states
}

// index returns the index of a pending state, or -1. p.mu is held.
func (p *probe) index(version string) int {
	return slices.IndexFunc(p.pending, func(s state) bool { return s.version == version })
}

// writing reports whether a write is in flight. p.mu is held.
func (p *probe) writing() bool {
	n := len(p.pending)
	return n > 0 && p.pending[n-1].version == "" && len(p.early) < maxPending
}

// complete removes a pending state and all older ones. p.mu is held.
func (p *probe) complete(i int, found time.Time) {
	oldest := p.pending[0].begun
	p.last = found.Sub(p.pending[i].begun)
	p.pending = slices.Delete(p.pending, 0, i+1)
	if p.overdue && len(p.pending) == 0 {
		p.overdue = false
		p.log.Info("canary Event arrived again", "after", found.Sub(oldest).Round(time.Second))
	}
}

// queried handles the result of a query: the first failure and the recovery are logged.
func (p *probe) queried(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case err == nil && !p.failing.IsZero():
		p.log.Info("canary query succeeded again", "after", time.Since(p.failing).Round(time.Second))
		p.failing = time.Time{}
	case err != nil && p.failing.IsZero():
		p.log.Warn("canary query failed, retrying", "err", err)
		p.failing = time.Now()
	case err != nil:
		p.log.Debug("canary query failed", "err", err)
	}
}

// warnOverdue logs once that a state is overdue.
func (p *probe) warnOverdue() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.overdue || len(p.pending) == 0 {
		return
	}
	oldest := p.pending[0]
	if age := time.Since(oldest.begun); age > overdueAfter {
		p.overdue = true
		p.log.Warn("canary Event is overdue", "age", age.Round(time.Second), "version", oldest.version)
	}
}

// seconds returns the latency of the last state or the age of the oldest pending one, the larger.
func (p *probe) seconds() float64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	longest := p.last
	if len(p.pending) > 0 {
		longest = max(longest, time.Since(p.pending[0].begun))
	}
	return longest.Seconds()
}

// reset forgets all states.
func (p *probe) reset() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.pending, p.early, p.last, p.overdue = nil, nil, 0, false
}
