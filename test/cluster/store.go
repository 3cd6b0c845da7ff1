package cluster

import (
	"context"
	"testing"
	"time"
)

// Store is a real store with Loki's push API, as far as tests of delivery need it. The
// methods that start and stop it must not be called concurrently; the others are safe
// for concurrent use.
type Store interface {
	// Name for people.
	Name() string
	// SinkURL is the url of a loki sink that pushes to the store.
	SinkURL() string
	// Start starts the store, again with its data at the same address, and
	// returns when it accepts pushes.
	Start(ctx context.Context) error
	// Kill ends the store as abruptly as is possible without losing entries that it
	// has accepted.
	Kill()
	// Pause stops the store with SIGSTOP: connections stay open without an answer.
	Pause() error
	// Resume ends a pause.
	Resume() error
	// Entries returns the entries of the streams that match a selector, from
	// start to before end, oldest first. Entries that are equal in every byte
	// are one, as in Loki.
	Entries(ctx context.Context, selector string, start, end time.Time) ([]LokiEntry, error)
	// Answer is Entries by a single query, for ranges with less than 5000
	// entries, and hides no entry that the store shows twice.
	Answer(ctx context.Context, selector string, start, end time.Time) ([]LokiEntry, error)
}

var (
	_ Store = (*Loki)(nil)
	_ Store = (*VictoriaLogs)(nil)
)

// EachStore runs a test on VictoriaLogs, which is built from source, and on
// Loki, if there is one, in parallel. The store is not started yet, and ends with the
// test.
func EachStore(t *testing.T, test func(t *testing.T, store Store)) {
	t.Parallel()
	t.Run("VictoriaLogs", func(t *testing.T) {
		t.Parallel()
		test(t, StoppedVictoriaLogsForTest(t, ""))
	})
	t.Run("Loki", func(t *testing.T) {
		t.Parallel()
		test(t, StoppedLokiForTest(t, LokiOptions{}))
	})
}
