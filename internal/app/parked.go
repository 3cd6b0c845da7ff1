package app

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/hindsight-events/hindsight/delivery/parked"
	"github.com/hindsight-events/hindsight/internal/config"
)

// parkedDir is where parked records are kept in the journal's directory, in a
// directory for each sink.
const parkedDir = "parked"

// parkedOf returns the store of a sink's parked records, which outlives a pipeline.
func (s *store) parkedOf(c *config.Config, sink config.Sink, o Options) (*parked.Store, error) {
	if known := s.parked[sink.Name]; known != nil {
		known.SetMaxBytes(int64(sink.MaxParkedBytes))
		return known, nil
	}
	options := parked.Options{MaxBytes: int64(sink.MaxParkedBytes), Logger: o.Log.With("component", "sink", "sink", sink.Name)}
	if c.Journal.Dir != "" {
		options.Dir = filepath.Join(c.Journal.Dir, parkedDir, sink.Name)
	}
	opened, err := parked.Open(options)
	if err != nil {
		return nil, fmt.Errorf("sink %s: %w", sink.Name, err)
	}
	if s.parked == nil {
		s.parked = make(map[string]*parked.Store)
	}
	s.parked[sink.Name] = opened
	return opened, nil
}

// warnParked warns of records that were parked for sinks that are not configured any
// more. Those in memory are dropped.
func (s *store) warnParked(c *config.Config, o Options) {
	configured := func(name string) bool {
		return slices.ContainsFunc(c.Sinks, func(s config.Sink) bool { return s.Name == name })
	}
	for name, store := range s.parked {
		if configured(name) {
			continue
		}
		delete(s.parked, name)
		n, _ := store.Size()
		if n > 0 && !store.Durable() {
			s.metrics.CountDropped(name, "removed", n)
			o.Log.Warn("a sink was removed with parked records, which are lost", "sink", name, "records", n)
		}
	}
	if c.Journal.Dir == "" {
		return
	}
	dirs, err := os.ReadDir(filepath.Join(c.Journal.Dir, parkedDir))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		o.Log.Warn("parked records cannot be looked through", "err", err)
	}
	for _, d := range dirs {
		dir := filepath.Join(c.Journal.Dir, parkedDir, d.Name())
		if files, err := os.ReadDir(dir); err == nil && len(files) > 0 && !configured(d.Name()) {
			o.Log.Warn("records are parked for a sink that is not configured", "sink", d.Name(), "directory", dir,
				"hint", "configure a sink of that name to send them, or remove the directory")
		}
	}
}

// abandonParked gives up the parked records that would be lost with the process, and
// returns an error that says how many those are.
func (p *pipeline) abandonParked() (err error) {
	for _, d := range p.deliveries {
		if n := d.DropParked(); n > 0 {
			err = errors.Join(err, fmt.Errorf("%d records were refused by sink %s until the end; they are in the log", n, d.Name))
		}
	}
	return err
}
