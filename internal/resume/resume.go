// Package resume decides where the watches and the sinks continue after a start, a failover or a
// reload.
//
// Two records of progress exist. The checkpoint in the Lease has the position that each sink had
// accepted when the leader last renewed the Lease, and the gaps that former leaders recorded. The
// journal has its tail (how far a source has been journaled) and the position of each sink's
// cursor; it may be empty, as in a new pod, or old, if another replica has led since. The rules:
//
//   - A sink is at the later of its checkpoint and its cursor; at its checkpoint if the two are of
//     different clusters, because the Lease is in the cluster that is being watched.
//   - A watch resumes from the latest position that the journal's tail or any sink has reached. For
//     a sink that is further back, it reads the states in between again, unless the journal has
//     them.
//   - Records in the journal up to a sink's checkpoint are skipped for that sink, unless they are
//     inside a recorded gap: the leader that wrote the checkpoint could not read those.
//   - A new sink starts at the latest position of the other sinks, or with start: oldest at the
//     oldest record of the journal.
//
// # Example
//
// Replicas A and B deliver to the sinks loki and file. Each has a journal on its own disk.
//
//  1. A leads and journals the versions 1 to 100. loki accepts all of them; file stops at 40,
//     because its disk is full. The checkpoint is loki 100, file 40.
//
//  2. A's node fails. B becomes leader, with an empty journal. Its watch resumes from 100; it
//     reads 41 to 100 again for file alone. The API server has already deleted 41 to 60, so that
//     B records the gap (40, 60] of file. Once the disk has space, file continues. When B fails,
//     the checkpoint is loki 150, file 120 and the gap.
//
//  3. A becomes leader again, with its old journal: the tail is 100, the cursor of loki 100, the
//     cursor of file 40. loki is at 150, its checkpoint; nothing in the journal is left for it.
//     file is at 120, its checkpoint; from the journal it still gets 41 to 60, which are inside
//     the gap, and skips 61 to 100, which B delivered. The watch resumes from 150, the position
//     of loki, and reads 121 to 150 again for file alone.
package resume

import (
	"maps"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/hindsight-events/hindsight/event"
	"github.com/hindsight-events/hindsight/journal"
	"github.com/hindsight-events/hindsight/lease"
)

// Tracker combines the checkpoint that a leader found in the Lease with the journal. It is safe
// for concurrent use.
type Tracker struct {
	journal *journal.Journal

	mu      sync.Mutex       // guards the following
	last    lease.Checkpoint // as found, with the gaps, new sinks and removed sources since
	sinks   []journal.ConsumerOptions
	sources []string // configured ones; nil before Configure
}

// New returns a Tracker that starts from a checkpoint.
func New(j *journal.Journal, found lease.Checkpoint) *Tracker {
	t := &Tracker{journal: j, last: lease.Checkpoint{
		Sinks:          make(map[string]map[string]event.Position, len(found.Sinks)),
		Gaps:           slices.Clone(found.Gaps),
		RemovedSources: make(map[string]time.Time, len(found.RemovedSources)),
	}}
	maps.Copy(t.last.RemovedSources, found.RemovedSources)
	for sink, positions := range found.Sinks {
		t.last.Sinks[sink] = maps.Clone(positions)
	}
	return t
}

// Configure sets the sinks and sources of the present configuration.
func (t *Tracker) Configure(sinks []journal.ConsumerOptions, sources []string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.sinks = sinks
	t.setSources(sources)
	for _, sink := range sinks {
		// A sink that is known without a position has accepted nothing yet, and gets everything.
		if _, known := t.last.Sinks[sink.Name]; known || sink.Start == journal.StartOldest {
			continue
		}
		start := make(map[string]event.Position)
		for _, source := range sources {
			if latest := t.latest(source); t.tail(source).IsZero() && !latest.IsZero() {
				start[source] = latest
			}
		}
		if len(start) > 0 {
			t.last.Sinks[sink.Name] = start
		}
	}
}

// RemovedWithBacklog returns the sinks of the checkpoint that are not configured and were behind
// another sink.
func (t *Tracker) RemovedWithBacklog(configured []journal.ConsumerOptions) (names []string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, name := range slices.Sorted(maps.Keys(t.last.Sinks)) {
		if slices.ContainsFunc(configured, func(c journal.ConsumerOptions) bool { return c.Name == name }) {
			continue
		}
		for source := range t.checkpointSources() {
			position, latest := event.PositionOf(t.last.Sinks[name], source), t.latest(source)
			if position != latest && event.LaterOf(latest, position) == latest {
				names = append(names, name)
				break
			}
		}
	}
	return names
}

// Point is where the watch of a source resumes; see watch.Options.
type Point struct {
	Start  event.Position
	Sinks  map[string]event.Position // sinks for which the watch reads states before Start again
	Reason string
}

// Point returns the resume point of a source.
func (t *Tracker) Point(source string) Point {
	t.mu.Lock()
	defer t.mu.Unlock()
	tail := t.tail(source)
	p := Point{Start: tail, Reason: "the journal"}
	ends := make(map[string]event.Position, len(t.sinks))
	for _, sink := range t.sinks {
		position := event.LaterOf(event.PositionOf(t.last.Sinks[sink.Name], source), event.PositionOf(t.journal.Positions(sink.Name), source))
		ends[sink.Name] = event.LaterOf(position, tail) // the journal has the states up to its tail
		p.Start = event.LaterOf(ends[sink.Name], p.Start)
	}
	switch {
	case p.Start.IsZero():
		p.Reason = "first start"
	case p.Start.Compare(tail) != 0:
		p.Reason = "the Lease"
	}
	for sink, end := range ends {
		if end.Compare(p.Start) == 0 {
			continue
		}
		if p.Sinks == nil {
			p.Sinks = make(map[string]event.Position)
		}
		p.Sinks[sink] = end
	}
	return p
}

// AlreadyDelivered returns a function that reports whether a record of the journal was delivered
// to a sink by another leader. The answer depends on the record alone. AlreadyDelivered returns
// nil if there is no such record.
func (t *Tracker) AlreadyDelivered(sink string) func(*event.Record) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	cursor := t.journal.Positions(sink)
	ahead := make(map[string]event.Position)
	for source, p := range t.last.Sinks[sink] {
		if own := event.PositionOf(cursor, source); event.LaterOf(p, own) != own {
			ahead[source] = p
		}
	}
	if len(ahead) == 0 {
		return nil
	}
	gaps := slices.Clone(t.last.Gaps)
	return func(r *event.Record) bool {
		checkpoint := event.PositionOf(ahead, r.Source)
		version, err := strconv.ParseUint(r.Event.ResourceVersion, 10, 64)
		if err != nil || checkpoint.IsZero() {
			return false
		}
		state := event.Position{Epoch: r.Position.Epoch, Version: version}
		return checkpoint.Includes(state) && !gaps.Contains(sink, r.Source, state)
	}
}

// Gaps returns the recorded gaps.
func (t *Tracker) Gaps() event.GapSet {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Clone(t.last.Gaps)
}

// RecordGap adds a gap to the checkpoint. It replaces the same gap without an end.
func (t *Tracker) RecordGap(g event.Gap) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.last.Gaps.Add(g)
}

// Snapshot returns the checkpoint to write into the Lease.
func (t *Tracker) Snapshot() lease.Checkpoint {
	t.mu.Lock()
	defer t.mu.Unlock()
	c := lease.Checkpoint{
		Sinks:          make(map[string]map[string]event.Position, len(t.sinks)),
		Gaps:           slices.Clone(t.last.Gaps),
		RemovedSources: maps.Clone(t.last.RemovedSources),
	}
	for _, sink := range t.sinks {
		positions := t.journal.Positions(sink.Name)
		if positions == nil {
			positions = make(map[string]event.Position)
		}
		for source, p := range t.last.Sinks[sink.Name] {
			positions[source] = event.LaterOf(p, positions[source])
		}
		c.Sinks[sink.Name] = positions
	}
	prune(&c, t.sources, time.Now())
	return c
}

// latest is the latest position of any sink in the checkpoint. t.mu is held.
func (t *Tracker) latest(source string) (p event.Position) {
	for _, positions := range t.last.Sinks {
		p = event.LaterOf(event.PositionOf(positions, source), p)
	}
	return p
}

// tail is how far a source has been journaled.
func (t *Tracker) tail(source string) event.Position {
	if p := t.journal.Tail(source); !p.IsZero() {
		return p
	}
	return t.journal.Tail("")
}
