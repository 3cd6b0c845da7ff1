package app

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/hindsight-events/hindsight/delivery"
	"github.com/hindsight-events/hindsight/delivery/parked"
	"github.com/hindsight-events/hindsight/event"
	"github.com/hindsight-events/hindsight/internal/config"
	"github.com/hindsight-events/hindsight/journal"
	"github.com/hindsight-events/hindsight/router"
)

// sharedState is the state that outlives a pipeline: a reload builds the next pipeline on it.
type sharedState struct {
	intake  *router.Intake
	journal *journal.Journal
	metrics *delivery.Metrics
	parked  map[string]*parked.Store // by sink
}

// openSharedState opens the journal, on disk if it has a directory and in memory if not. reg may
// be nil.
func openSharedState(o Options, reg prometheus.Registerer) (*sharedState, error) {
	c := o.Config
	s := &sharedState{
		intake: router.NewIntake(router.IntakeOptions{
			Logger:     o.Log.With("component", "intake"),
			Registerer: reg,
		}),
		metrics: delivery.NewMetrics(reg),
		parked:  make(map[string]*parked.Store),
	}
	options := journal.Options{
		MaxBytes:   int64(c.Journal.MaxBytes),
		Consumers:  consumers(c),
		Namespace:  o.OwnNamespace,
		OnDrop:     func(name string, cause event.Cause, n int) { s.metrics.CountDropped(name, string(cause), n) },
		Logger:     o.Log.With("component", "journal"),
		Registerer: reg,
	}
	var err error
	if c.Journal.Dir == "" {
		s.journal, err = journal.NewMemory(options)
	} else {
		s.journal, err = journal.Open(c.Journal.Dir, options)
	}
	return s, err
}

// parkedDir is the directory below the journal's that has a directory of parked records for each
// sink.
const parkedDir = "parked"

// parkedStore returns the store of a sink's parked records.
func (s *sharedState) parkedStore(sink config.Sink, o Options) (*parked.Store, error) {
	if store := s.parked[sink.Name]; store != nil {
		store.SetMaxBytes(int64(sink.MaxParkedBytes))
		return store, nil
	}
	options := parked.Options{MaxBytes: int64(sink.MaxParkedBytes), Logger: o.Log.With("component", "sink", "sink", sink.Name)}
	if o.Config.Journal.Dir != "" {
		options.Dir = filepath.Join(o.Config.Journal.Dir, parkedDir, sink.Name)
	}
	store, err := parked.Open(options)
	if err != nil {
		return nil, fmt.Errorf("sink %s: %w", sink.Name, err)
	}
	s.parked[sink.Name] = store
	return store, nil
}

// forgetRemovedSinks warns about the parked records of sinks that are not configured. Records in
// memory are dropped, records on disk are kept.
func (s *sharedState) forgetRemovedSinks(o Options) {
	configured := sinkNames(o.Config)
	for name, store := range s.parked {
		if slices.Contains(configured, name) {
			continue
		}
		delete(s.parked, name)
		n, _ := store.Size()
		if n > 0 && !store.Durable() {
			s.metrics.CountDropped(name, "removed", n)
			o.Log.Warn("a sink was removed; its parked records are dropped", "sink", name, "records", n)
		}
	}
	if o.Config.Journal.Dir == "" {
		return
	}
	root := filepath.Join(o.Config.Journal.Dir, parkedDir)
	dirs, err := os.ReadDir(root)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		o.Log.Warn("cannot list the parked records", "err", err)
	}
	for _, d := range dirs {
		dir := filepath.Join(root, d.Name())
		if files, err := os.ReadDir(dir); err == nil && len(files) > 0 && !slices.Contains(configured, d.Name()) {
			o.Log.Warn("records are parked for a sink that is not configured", "sink", d.Name(), "directory", dir,
				"hint", "configure a sink of that name to send them, or remove the directory")
		}
	}
}
