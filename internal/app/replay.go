package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/hindsight-events/hindsight/event"
	"github.com/hindsight-events/hindsight/event/format"
	"github.com/hindsight-events/hindsight/internal/config"
	"github.com/hindsight-events/hindsight/internal/input"
	"github.com/hindsight-events/hindsight/internal/quantity"
	"github.com/hindsight-events/hindsight/journal"
)

// Input is the input of Replay.
type Input struct {
	Name   string // in messages
	Reader io.Reader
	// ShiftToNow moves all times by the same duration, so that the newest is now. It reads the
	// whole input first.
	ShiftToNow bool
}

// Replay delivers the Events of an input, in the order of their times, as if a cluster had just
// reported them. It reads no faster than the sinks accept, regardless of when_full. Its error
// lists the parts of the input that are no Events and the records that each sink lost;
// everything else was delivered.
func Replay(ctx context.Context, o Options, in Input) error {
	return replay(ctx, o, in, journal.DefaultMemoryBytes)
}

func replay(ctx context.Context, o Options, in Input, journalBytes quantity.Size) error {
	c := *o.Config
	c.Journal = config.Journal{MaxBytes: journalBytes} // in memory
	c.Sinks = slices.Clone(c.Sinks)
	for i := range c.Sinks {
		c.Sinks[i].WhenFull = journal.Block
	}
	o.Config = &c
	reg := prometheus.NewRegistry()
	shared, err := openSharedState(o, reg)
	if err != nil {
		return err
	}
	sinks, err := openSinks(o)
	if err != nil {
		return err
	}
	var rejected rejections
	p, err := newPipeline(o, shared, sinks, pipelineOptions{last: true, onRejected: rejected.add})
	if err != nil {
		return err
	}
	drain := time.Duration(c.DrainTimeout)
	var unread error
	err = p.run(ctx, drain, func(ctx context.Context) (err error) {
		unread, err = p.feed(ctx, in, drain)
		return err
	})
	_ = p.dropParked() // countLosses has them with the reason
	err = errors.Join(err, p.undeliveredInJournal(), p.journal.Close())
	return errors.Join(unread, err, countLosses(reg, &c, &rejected))
}

const (
	// sortPause is how long an input may pause between two documents before its Events so far are
	// sorted and delivered. The output of a watch does not end.
	sortPause = time.Second
	// replayBatch is the number of records that are ingested at once.
	replayBatch = 500
)

// feed ingests the Events of an input in the order of their times, between two pauses and as far as
// an input.TimeSorter can hold them. When ctx ends, it ingests the Events read so far, for at most
// drain. unread is an error that lists the parts that are no Events.
func (p *pipeline) feed(ctx context.Context, in Input, drain time.Duration) (unread, err error) {
	f := feeder{p: p, ctx: ctx}
	f.order = input.TimeSorter{
		Visit: f.add,
		Overflow: func(err error) {
			args := []any{"hint", "Loki rejects Events that are one hour older than others of their stream; replay the input in parts"}
			if err != nil {
				args = append(args, "err", err)
			}
			p.log.Warn("input is too long to sort as a whole; sorting its parts", args...)
		},
		Unbounded: in.ShiftToNow,
	}
	defer f.order.Close()
	decoder := input.NewDecoder(func(e format.Entry) error {
		if e.Record.Time.After(f.newest) {
			f.newest = e.Record.Time
		}
		return f.order.Add(e.Record)
	})
	err = readChunks(ctx, in.Reader, sortPause,
		func(chunk []byte) error { _, err := decoder.Write(chunk); return err },
		func() error {
			if in.ShiftToNow || !decoder.AtBoundary() {
				return nil
			}
			return f.flush()
		})
	var unsupported *input.UnsupportedError
	if errors.As(err, &unsupported) {
		return fmt.Errorf("%s %w", in.Name, unsupported), nil
	}
	var corrupt *input.CorruptError
	if errors.As(err, &corrupt) {
		unread, err = fmt.Errorf("%s %w", in.Name, corrupt), nil
	}
	switch {
	case ctx.Err() == nil:
		err = errors.Join(err, decoder.Close())
		if in.ShiftToNow {
			f.shift = int64(time.Since(f.newest) / time.Second)
		}
		err = errors.Join(err, f.flush())
	case !in.ShiftToNow:
		var cancel context.CancelFunc
		f.ctx, cancel = context.WithTimeout(context.WithoutCancel(ctx), drain)
		defer cancel()
		if flushErr := f.flush(); flushErr != nil {
			err = flushErr
		}
	}
	for _, problem := range decoder.Problems() {
		unread = errors.Join(unread, fmt.Errorf("%s: %v", in.Name, problem))
	}
	return unread, err
}

// feeder ingests single records in batches.
type feeder struct {
	p      *pipeline
	ctx    context.Context
	order  input.TimeSorter
	batch  []event.Record
	newest time.Time
	shift  int64 // seconds
}

func (f *feeder) add(r *format.Record) error {
	if f.shift != 0 {
		shiftTimes(&r.Record, f.shift)
	}
	f.batch = append(f.batch, r.Record)
	if len(f.batch) < replayBatch {
		return nil
	}
	return f.ingest()
}

func (f *feeder) flush() error {
	if err := f.order.Flush(); err != nil {
		return err
	}
	return f.ingest()
}

func (f *feeder) ingest() error {
	batch := f.batch
	f.batch = nil
	return f.p.ingest(f.ctx, batch)
}
