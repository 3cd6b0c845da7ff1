package app

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"

	"github.com/hindsight-events/hindsight/event"
	"github.com/hindsight-events/hindsight/internal/config"
	"github.com/hindsight-events/hindsight/internal/quantity"
	"github.com/hindsight-events/hindsight/internal/replay"
	"github.com/hindsight-events/hindsight/journal"
)

// Input is what Replay reads.
type Input struct {
	Reader io.Reader
	// ShiftToNow moves all times alike, so that the newest is now. Everything is
	// read before anything is delivered.
	ShiftToNow bool
	// Bad is told of each piece of the input that is no Event.
	Bad func(error)
}

// Replay takes in the Events of an input as if a cluster had just reported them,
// delivers them, and returns. Lists are sorted by time; streams are delivered as
// they come. The input waits while a sink is behind, whatever its when_full. An
// error says how many records each sink lost, and how many pieces of the input
// were no Events.
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
	bad := 0
	err = p.run(ctx, time.Duration(o.Config.DrainTimeout), func(ctx context.Context) error {
		var err error
		bad, err = p.feedFrom(ctx, in)
		return err
	})
	err = errors.Join(err, p.left(), s.journal.Close())
	if bad > 0 {
		err = errors.Join(err, fmt.Errorf("replay: not everything in the input was an Event: %d errors", bad))
	}
	return errors.Join(err, lostRecords(reg, &c, &why))
}

// feedFrom takes in what an input holds and returns how many pieces of it were
// no Events.
func (p *pipeline) feedFrom(ctx context.Context, in Input) (bad int, err error) {
	isBad := func(err error) {
		bad++
		in.Bad(err)
	}
	var (
		all  []*corev1.Event // while they wait to be shifted
		list bool            // whether there was a list among them
	)
	reader := replay.NewReader(in.Reader)
	for {
		doc, err := nextDocument(ctx, reader)
		var unreadable *replay.BadInput
		switch {
		case errors.Is(err, io.EOF):
			if len(all) == 0 {
				return bad, nil
			}
			shiftToNow(all)
			return bad, p.takeReplayed(ctx, all, list)
		case errors.As(err, &unreadable):
			isBad(unreadable)
			continue
		case err != nil:
			return bad, err
		}
		for _, b := range doc.Bad {
			isBad(b)
		}
		if in.ShiftToNow {
			all, list = append(all, doc.Events...), list || doc.List
		} else if err := p.takeReplayed(ctx, doc.Events, doc.List); err != nil {
			return bad, err
		}
	}
}

// nextDocument returns when ctx ends, even while nothing comes from the input.
func nextDocument(ctx context.Context, r *replay.Reader) (*replay.Document, error) {
	type result struct {
		doc *replay.Document
		err error
	}
	read := make(chan result, 1)
	go func() {
		doc, err := r.Next()
		read <- result{doc, err}
	}()
	select {
	case got := <-read:
		return got.doc, got.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (p *pipeline) takeReplayed(ctx context.Context, events []*corev1.Event, sorted bool) error {
	records := make([]event.Record, 0, len(events))
	for _, e := range events {
		records = append(records, event.NewReplayed(e))
	}
	if sorted {
		slices.SortStableFunc(records, func(a, b event.Record) int {
			return cmp.Or(a.Time.Compare(b.Time), cmp.Compare(a.Position.Version, b.Position.Version))
		})
	}
	const group = 500
	for part := range slices.Chunk(records, group) {
		if err := p.take(ctx, part); err != nil {
			return err
		}
	}
	return nil
}

// shiftToNow moves the Events by whole seconds, so that their order inside a
// second stays.
func shiftToNow(events []*corev1.Event) {
	var newest time.Time
	for _, e := range events {
		if t := event.NewReplayed(e.DeepCopy()).Time; t.After(newest) {
			newest = t
		}
	}
	by := int64(time.Since(newest) / time.Second)
	for _, e := range events {
		replay.Shift(e, by)
	}
}
