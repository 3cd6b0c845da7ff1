package app

import (
	"maps"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/hindsight-events/hindsight/event"
	"github.com/hindsight-events/hindsight/internal/config"
	"github.com/hindsight-events/hindsight/journal"
	"github.com/hindsight-events/hindsight/lease"
)

// standing is how far each sink has been taken: by what the Lease said when this
// process began to lead, and by what was acknowledged to the journal. The
// further of the two counts. It is safe for concurrent use.
type standing struct {
	journal *journal.Journal

	mu    sync.Mutex       // guards the following
	held  lease.Checkpoint // what the Lease said, and the gaps and unlisted sources since
	sinks []config.Sink
	// listed are the sources that are configured; nil before the first
	// configuration.
	listed []string
}

func newStanding(j *journal.Journal, held lease.Checkpoint) *standing {
	s := &standing{journal: j, held: lease.Checkpoint{
		Sinks:          make(map[string]map[string]event.Position, len(held.Sinks)),
		Gaps:           slices.Clone(held.Gaps),
		RemovedSources: make(map[string]time.Time, len(held.RemovedSources)),
	}}
	maps.Copy(s.held.RemovedSources, held.RemovedSources)
	for sink, positions := range held.Sinks {
		s.held.Sinks[sink] = maps.Clone(positions)
	}
	return s
}

// setSinks says which sinks there are from now on. One of which neither the Lease
// nor the journal knows begins at the newest position there is, unless it asks
// for the oldest record. One that is known, and has not accepted anything yet,
// is to get everything.
func (s *standing) setSinks(c *config.Config) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sinks = c.Sinks
	s.setListed(sources(c))
	for _, sink := range c.Sinks {
		if _, known := s.held.Sinks[sink.Name]; known || sink.Start == journal.StartOldest {
			continue
		}
		placed := make(map[string]event.Position)
		for _, source := range sources(c) {
			if newest := s.newest(source); s.tail(source).IsZero() && !newest.IsZero() {
				placed[source] = newest
			}
		}
		if len(placed) > 0 {
			s.held.Sinks[sink.Name] = placed
		}
	}
}

// setListed notes which sources are not configured any more, and since when. Of
// those that only a journal from before this process knows, and the Lease does
// not, nothing is told to the Lease again. s.mu is held.
func (s *standing) setListed(listed []string) {
	before := s.listed
	s.listed = listed
	for _, source := range listed {
		delete(s.held.RemovedSources, source)
	}
	note := func(source string, since time.Time) {
		if _, noted := s.held.RemovedSources[source]; !noted && !slices.Contains(listed, source) {
			s.held.RemovedSources[source] = since
		}
	}
	now := time.Now().UTC().Truncate(time.Second)
	for _, source := range before {
		note(source, now)
	}
	for source := range s.sourcesHeld() {
		note(source, now)
	}
	for _, sink := range s.sinks {
		for source := range s.journal.Positions(sink.Name) {
			if len(s.held.Sinks) == 0 {
				note(source, now)
			} else {
				note(source, time.Time{})
			}
		}
	}
}

// removedSinks returns the sinks of the Lease that a configuration does not have,
// and for each whether it was behind another one.
func (s *standing) removedSinks(c *config.Config) map[string]bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	removed := make(map[string]bool)
	for name, positions := range s.held.Sinks {
		if slices.Contains(sinkNames(c), name) {
			continue
		}
		removed[name] = false
		for source := range s.sourcesHeld() {
			if newest := s.newest(source); at(positions, source) != newest && further(newest, at(positions, source)) == newest {
				removed[name] = true
			}
		}
	}
	return removed
}

// newest is the furthest that any sink was, by the Lease. s.mu is held.
func (s *standing) newest(source string) (p event.Position) {
	for _, positions := range s.held.Sinks {
		p = further(at(positions, source), p)
	}
	return p
}

// sourcesHeld are the sources of which the Lease has a position. s.mu is held.
func (s *standing) sourcesHeld() map[string]bool {
	sources := make(map[string]bool)
	for _, positions := range s.held.Sinks {
		for source := range positions {
			sources[source] = true
		}
	}
	return sources
}

// beginning is where the watch of a source begins; see watch.Options.
type beginning struct {
	start  event.Position
	behind map[string]event.Position
	why    string
}

// from returns where the watch of a source begins. Whatever is in the journal,
// the sinks get from there.
func (s *standing) from(source string) beginning {
	s.mu.Lock()
	defer s.mu.Unlock()
	tail := s.tail(source)
	b := beginning{start: tail, why: "the journal"}
	ends := make(map[string]event.Position, len(s.sinks))
	for _, sink := range s.sinks {
		ends[sink.Name] = further(s.position(sink.Name, source), tail)
		b.start = further(ends[sink.Name], b.start)
	}
	switch {
	case b.start.IsZero():
		b.why = "first start"
	case b.start.Compare(tail) != 0:
		b.why = "the Lease"
	}
	for sink, end := range ends {
		if end.Compare(b.start) == 0 {
			continue
		}
		if b.behind == nil {
			b.behind = make(map[string]event.Position)
		}
		b.behind[sink] = end
	}
	return b
}

// seen returns what a sink has been given already although it lies ahead in the
// journal: states at or before the position in the Lease, except inside of gaps
// that were declared meanwhile, by a replica that could not read them. It is nil
// if there is no such thing. What it returns depends on the record alone.
func (s *standing) seen(sink string) func(*event.Record) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	own := s.journal.Positions(sink)
	ahead := make(map[string]event.Position)
	for source, p := range s.held.Sinks[sink] {
		if further(p, at(own, source)) != at(own, source) {
			ahead[source] = p
		}
	}
	if len(ahead) == 0 {
		return nil
	}
	gaps := slices.Clone(s.held.Gaps)
	return func(r *event.Record) bool {
		to := at(ahead, r.Source)
		version, err := strconv.ParseUint(r.Event.ResourceVersion, 10, 64)
		if err != nil || to.IsZero() || !to.Epoch.SameCluster(r.Position.Epoch) {
			return false
		}
		to.ListVersion = 0 // while a list is taken in, the states before the position have been
		state := event.Position{Epoch: r.Position.Epoch, Version: version}
		return state.Compare(to) <= 0 && !gaps.Contains(sink, r.Source, state)
	}
}

// gaps are those that were declared.
func (s *standing) gaps() []event.Gap {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.held.Gaps)
}

// declare keeps a gap in mind, once, in place of the same one without an end.
func (s *standing) declare(g event.Gap) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if slices.Contains(s.held.Gaps, g) {
		return
	}
	s.held.Gaps = append(slices.DeleteFunc(s.held.Gaps, g.Supersedes), g)
}

// hold returns what the Lease is to say.
func (s *standing) hold() lease.Checkpoint {
	s.mu.Lock()
	defer s.mu.Unlock()
	held := lease.Checkpoint{
		Sinks:          make(map[string]map[string]event.Position, len(s.sinks)),
		Gaps:           slices.Clone(s.held.Gaps),
		RemovedSources: maps.Clone(s.held.RemovedSources),
	}
	for _, sink := range s.sinks {
		positions := s.journal.Positions(sink.Name)
		if positions == nil {
			positions = make(map[string]event.Position)
		}
		for source, p := range s.held.Sinks[sink.Name] {
			positions[source] = further(p, positions[source])
		}
		held.Sinks[sink.Name] = positions
	}
	held.Prune(s.listed, time.Now())
	return held
}

// tail is how far a source has been journaled.
func (s *standing) tail(source string) event.Position {
	if p := s.journal.Tail(source); !p.IsZero() {
		return p
	}
	return s.journal.Tail("")
}

// position is how far a sink has been taken. s.mu is held.
func (s *standing) position(sink, source string) event.Position {
	return further(at(s.held.Sinks[sink], source), at(s.journal.Positions(sink), source))
}

// at returns the position of a source. One namespace inherits that of all of
// them.
func at(positions map[string]event.Position, source string) event.Position {
	if p, ok := positions[source]; ok {
		return p
	}
	return positions[""]
}

// further returns the further of two positions; held, that of the Lease, if they
// cannot be compared: the Lease is kept in the cluster that is being watched.
func further(held, own event.Position) event.Position {
	switch {
	case held.IsZero():
		return own
	case own.IsZero(), !held.Epoch.SameCluster(own.Epoch), held.Compare(own) > 0:
		return held
	default:
		return own
	}
}
