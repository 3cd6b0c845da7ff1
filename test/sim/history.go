package main

import (
	"context"
	"slices"
	"sync"
	"time"
)

// firstVersion is the resourceVersion before the first state. All versions have
// as many digits, so that all states of a template have the same length.
const firstVersion = 1_000_000_000

// bumpDistance is after how many states an Event is written again: at 500 a second, ten seconds.
const bumpDistance = 5001

// history holds the written states, counted from 1, each one version above the one before.
// The first ones up to backlog exist from the start, each of another Event. Of the later ones,
// three of ten increase the count of an existing Event.
type history struct {
	backlog int
	began   time.Time

	mu      sync.Mutex    // guards the following
	written []int64       // when the states after the backlog were written, in ns since 1970; it only grows
	changed chan struct{} // closed when it grows
}

func newHistory(backlog int, now time.Time) *history {
	return &history{backlog: backlog, began: now, changed: make(chan struct{})}
}

// snapshot is the history up to some state.
type snapshot struct {
	*history
	written []int64
}

// now returns a snapshot, and a channel that is closed when the history grows.
func (h *history) now() (snapshot, <-chan struct{}) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return snapshot{h, h.written}, h.changed
}

// write adds n states, rate of them a second; 0: all at once. It returns when
// all are there.
func (h *history) write(ctx context.Context, n int, rate float64) {
	began := time.Now()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for done := 0; done < n; {
		due := n
		if rate > 0 {
			due = min(n, int(time.Since(began).Seconds()*rate))
		}
		if due > done {
			h.add(due - done)
			done = due
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

func (h *history) add(n int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	now := time.Now().UnixNano()
	h.written = slices.Grow(h.written, n)
	for range n {
		h.written = append(h.written, now)
	}
	close(h.changed)
	h.changed = make(chan struct{})
}

// len is the number of states.
func (s snapshot) len() int { return s.backlog + len(s.written) }

// state is one version of an Event, with all that differs from its template.
type state struct {
	version int // of all states
	event   int // the state with which it began
	bumped  bool
	created int64 // seconds since 1970
	written int64
}

// state returns the i-th state of the snapshot, always the same.
func (s snapshot) state(i int) state {
	st := state{version: i, event: i, written: s.at(i)}
	st.created = st.written
	switch {
	case i <= s.backlog:
		if st.bumped = isBump(i); st.bumped {
			st.created -= 300
		}
	case isBump(i-s.backlog) && i-s.backlog > bumpDistance:
		st.bumped = true
		st.event = i - bumpDistance
		st.created = s.at(st.event)
	}
	return st
}

// at is when a state was written, in seconds since 1970. The backlog was written
// at an even rate in the hour before.
func (s snapshot) at(i int) int64 {
	if i <= s.backlog {
		return s.began.Unix() - 3600 + int64(3600*float64(i)/float64(s.backlog))
	}
	return s.written[i-s.backlog-1] / int64(time.Second)
}

// gone reports whether a later state of the same Event exists.
func (s snapshot) gone(i int) bool {
	return i > s.backlog && isBump(i-s.backlog+bumpDistance) && i+bumpDistance <= s.len()
}

// isBump is true for 30% of all numbers, and never for two that are bumpDistance apart.
func isBump(i int) bool {
	switch i % 10 {
	case 3, 6, 9:
		return true
	}
	return false
}
