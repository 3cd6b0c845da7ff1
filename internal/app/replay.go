package app

import (
	"context"
	"errors"
	"io"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/hindsight-events/hindsight/internal/config"
	"github.com/hindsight-events/hindsight/internal/quantity"
	"github.com/hindsight-events/hindsight/journal"
)

// Input is what Replay reads.
type Input struct {
	Name   string // in messages
	Reader io.Reader
	// ShiftToNow moves all times alike, so that the newest is now. Everything is
	// read before anything is delivered.
	ShiftToNow bool
}

// Replay takes in the Events of an input as if a cluster had just reported them,
// delivers them in the order of their times, and returns. The input waits while a
// sink is behind, regardless of its when_full. An error names the parts of the
// input that could not be read as Events, and how many records each sink lost; the
// rest was delivered.
func Replay(ctx context.Context, o Options, in Input) error {
	return replayInput(ctx, o, in, journal.DefaultMemoryBytes)
}

func replayInput(ctx context.Context, o Options, in Input, journalBytes quantity.Size) error {
	c := *o.Config
	c.Journal = config.Journal{MaxBytes: journalBytes} // it does not outlive the replay
	c.Sinks = slices.Clone(c.Sinks)
	for i := range c.Sinks {
		c.Sinks[i].WhenFull = journal.Block // a cluster does not wait, a file does
	}
	o.Config = &c
	reg := prometheus.NewRegistry()
	s, err := openStore(o, reg)
	if err != nil {
		return err
	}
	m, err := makeSinks(o)
	if err != nil {
		return err
	}
	var why refusals
	p, err := newPipeline(o, s, m, pipelineOptions{last: true, refused: why.add})
	if err != nil {
		return err
	}
	var bad error
	err = p.run(ctx, time.Duration(o.Config.DrainTimeout), func(ctx context.Context) error {
		var err error
		bad, err = p.feedFrom(ctx, in, time.Duration(o.Config.DrainTimeout))
		return err
	})
	_ = p.abandonParked() // lostRecords has the same, with the reason
	err = errors.Join(err, p.leftInJournal(), s.journal.Close())
	return errors.Join(bad, err, lostRecords(reg, &c, &why))
}
