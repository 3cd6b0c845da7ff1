package resume

import (
	"maps"
	"slices"
	"time"

	"github.com/hindsight-events/hindsight/lease"
)

// keepRemoved is how long the checkpoint keeps the positions of a removed source, in case it is
// configured again. The API server deletes Events long before that.
const keepRemoved = 24 * time.Hour

// setSources sets the configured sources and notes the time at which others were removed. t.mu is
// held.
func (t *Tracker) setSources(sources []string) {
	removed := func(source string, since time.Time) {
		if _, noted := t.last.RemovedSources[source]; !noted && !slices.Contains(sources, source) {
			t.last.RemovedSources[source] = since
		}
	}
	now := time.Now().UTC().Truncate(time.Second)
	for _, source := range t.sources {
		removed(source, now)
	}
	for source := range t.checkpointSources() {
		removed(source, now)
	}
	journaled := now
	if len(t.last.Sinks) > 0 {
		journaled = time.Time{} // a source that the checkpoint does not have was pruned
	}
	for _, sink := range t.sinks {
		for source := range t.journal.Positions(sink.Name) {
			removed(source, journaled)
		}
	}
	t.sources = sources
	for _, source := range sources {
		delete(t.last.RemovedSources, source)
	}
}

// checkpointSources are the sources that have a position in the checkpoint. t.mu is held.
func (t *Tracker) checkpointSources() map[string]bool {
	sources := make(map[string]bool)
	for _, positions := range t.last.Sinks {
		for source := range positions {
			sources[source] = true
		}
	}
	return sources
}

// prune deletes the positions of sources that were removed keepRemoved ago. A sink keeps its
// position of all namespaces while a configured namespace inherits it.
func prune(c *lease.Checkpoint, configured []string, now time.Time) {
	remaining := make(map[string]bool)
	for _, positions := range c.Sinks {
		for source := range positions {
			since, removed := c.RemovedSources[source]
			inherited := source == "" && slices.ContainsFunc(configured, func(name string) bool {
				_, own := positions[name]
				return !own
			})
			if removed && !inherited && now.Sub(since) >= keepRemoved {
				delete(positions, source)
				continue
			}
			remaining[source] = true
		}
	}
	maps.DeleteFunc(c.RemovedSources, func(source string, _ time.Time) bool { return !remaining[source] })
}
