package canary

import (
	"log/slog"
	"slices"
	"sync"
	"time"
)

// mostPending bounds what is remembered in an outage that does not end.
const mostPending = 100

// stage is a place that each state of the Event has to reach. It is safe for
// concurrent use.
type stage struct {
	name string
	log  *slog.Logger

	mu      sync.Mutex // guards the following
	pending []state    // have not been found yet, in the order of writing
	early   []state    // were found, or may be looked for, before it was known that they are ours
	last    time.Duration
	overdue bool      // and that was said
	failing time.Time // since when it cannot be asked; zero: it can
}

// state is one state of the Event.
type state struct {
	begun   time.Time // when writing it was begun
	version string    // empty: is being written, or could not be

	found time.Time // of an early one; zero: not yet

	// How to look for it; empty: cannot be looked for yet.
	query string
	time  time.Time
}

func newStage(name string, log *slog.Logger) *stage {
	return &stage{name: name, log: log.With("stage", name)}
}

// begin says that a state is being written. It is waited for from now on, also
// if the writing fails: an Event that cannot be written does not arrive.
func (s *stage) begin() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.early = nil
	if n := len(s.pending); n > 0 && s.pending[n-1].version == "" {
		return // the one before could not be written
	}
	s.pending = append(s.pending, state{begun: time.Now()})
	if len(s.pending) > mostPending {
		s.pending = slices.Delete(s.pending, 1, 2) // the oldest says since when
	}
}

// wrote says which version the state that was begun has. It may have arrived
// before that was known.
func (s *stage) wrote(version string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := len(s.pending) - 1
	if n < 0 || s.pending[n].version != "" {
		return
	}
	s.pending[n].version = version
	for _, e := range s.early {
		if e.version != version {
			continue
		}
		s.pending[n].query, s.pending[n].time = e.query, e.time
		if !e.found.IsZero() {
			s.arrive(n, e.found)
		}
		break
	}
	s.early = nil
}

// arrived says that a state is there.
func (s *stage) arrived(version string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if i := s.index(version); i >= 0 {
		s.arrive(i, time.Now())
	} else if s.writing() {
		s.early = append(s.early, state{version: version, found: time.Now()})
	}
}

// look says how a state is to be looked for.
func (s *stage) look(version, query string, at time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if i := s.index(version); i >= 0 {
		s.pending[i].query, s.pending[i].time = query, at
	} else if s.writing() {
		s.early = append(s.early, state{version: version, query: query, time: at})
	}
}

// wanted returns the states to look for: the newest, which makes up for all, and
// the oldest, which is there first if all are late.
func (s *stage) wanted() (wanted []state) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.pending {
		if p.query != "" {
			wanted = append(wanted, p)
		}
	}
	if n := len(wanted); n > 1 {
		wanted = []state{wanted[n-1], wanted[0]}
	}
	return wanted
}

// index of a pending state. s.mu is held.
func (s *stage) index(version string) int {
	return slices.IndexFunc(s.pending, func(p state) bool { return p.version == version })
}

// writing reports whether a version is not known yet. s.mu is held.
func (s *stage) writing() bool {
	n := len(s.pending)
	return n > 0 && s.pending[n-1].version == "" && len(s.early) < mostPending
}

// arrive ends the waiting for a state and for all before it. s.mu is held.
func (s *stage) arrive(i int, found time.Time) {
	since := s.pending[0].begun
	s.last = found.Sub(s.pending[i].begun)
	s.pending = slices.Delete(s.pending, 0, i+1)
	if s.overdue && len(s.pending) == 0 {
		s.overdue = false
		s.log.Info("the canary arrives again", "after", found.Sub(since).Round(time.Second))
	}
}

// asked says whether the stage could be asked. It logs the first failure and the
// recovery.
func (s *stage) asked(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case err == nil && !s.failing.IsZero():
		s.log.Info("the canary can be looked for again", "after", time.Since(s.failing).Round(time.Second))
		s.failing = time.Time{}
	case err != nil && s.failing.IsZero():
		s.log.Warn("the canary cannot be looked for, will be tried again", "err", err)
		s.failing = time.Now()
	case err != nil:
		s.log.Debug("the canary cannot be looked for", "err", err)
	}
}

// check says when something is overdue, once.
func (s *stage) check() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.overdue || len(s.pending) == 0 {
		return
	}
	oldest := s.pending[0]
	if age := time.Since(oldest.begun); age > overdueAfter {
		s.overdue = true
		s.log.Warn("the canary has not arrived", "for", age.Round(time.Second), "version", oldest.version)
	}
}

// seconds is how long the last one took or, if that is more, how long the oldest
// has been awaited.
func (s *stage) seconds() float64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	longest := s.last
	if len(s.pending) > 0 {
		longest = max(longest, time.Since(s.pending[0].begun))
	}
	return longest.Seconds()
}

// stop ends all waiting.
func (s *stage) stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pending, s.early, s.last, s.overdue = nil, nil, 0, false
}
