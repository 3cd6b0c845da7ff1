package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/hindsight-events/hindsight/event"
	"github.com/hindsight-events/hindsight/event/format"
	"github.com/hindsight-events/hindsight/internal/input"
)

const (
	// replayPause is how long nothing may come from an input, in between two
	// documents, until what came is sorted and delivered: a watch goes on for ever.
	replayPause = time.Second
	// replayGroup is how many records are taken in at once.
	replayGroup = 500
)

// feedFrom takes in the Events of an input in the order of their times, as far as
// they come without a pause and an input.TimeSorter can hold them. When ctx ends, what
// has come is taken in for no longer than drain. bad is what in it could not be
// read.
func (p *pipeline) feedFrom(ctx context.Context, in Input, drain time.Duration) (bad error, err error) {
	f := feeder{p: p, ctx: ctx}
	f.order = input.TimeSorter{
		Visit: f.visit,
		Overflow: func(err error) {
			args := []any{"hint", "Loki refuses Events that are an hour older than others of their stream; replay the input in parts"}
			if err != nil {
				args = append(args, "err", err)
			}
			p.log.Warn("input is too long to be sorted as a whole; its parts are", args...)
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
	err = readChunks(ctx, in.Reader, replayPause,
		func(chunk []byte) error { _, err := decoder.Write(chunk); return err },
		func() error {
			if in.ShiftToNow || !decoder.AtBoundary() {
				return nil
			}
			return f.flush()
		})
	var foreign *input.UnsupportedError
	if errors.As(err, &foreign) {
		return fmt.Errorf("%s %w", in.Name, foreign), nil
	}
	var damage *input.CorruptError
	if errors.As(err, &damage) {
		bad, err = fmt.Errorf("%s %w", in.Name, damage), nil
	}
	switch {
	case ctx.Err() == nil:
		err = errors.Join(err, decoder.Close())
		if in.ShiftToNow {
			f.shift = int64(time.Since(f.newest) / time.Second)
		}
		err = errors.Join(err, f.flush())
	case !in.ShiftToNow:
		// What has come until the end was asked for is delivered, as far as the
		// journal takes it while the sinks are drained.
		var cancel context.CancelFunc
		f.ctx, cancel = context.WithTimeout(context.WithoutCancel(ctx), drain)
		defer cancel()
		if flushErr := f.flush(); flushErr != nil {
			err = flushErr
		}
	}
	for _, problem := range decoder.Problems() {
		bad = errors.Join(bad, fmt.Errorf("%s: %v", in.Name, problem))
	}
	return bad, err
}

// feeder puts records that come one by one into the pipeline in groups.
type feeder struct {
	p      *pipeline
	ctx    context.Context
	order  input.TimeSorter
	group  []event.Record
	newest time.Time
	shift  int64 // seconds
}

func (f *feeder) visit(r *format.Record) error {
	if f.shift != 0 {
		shift(&r.Record, f.shift)
	}
	f.group = append(f.group, r.Record)
	if len(f.group) < replayGroup {
		return nil
	}
	return f.take()
}

func (f *feeder) flush() error {
	if err := f.order.Flush(); err != nil {
		return err
	}
	return f.take()
}

func (f *feeder) take() error {
	group := f.group
	f.group = nil
	return f.p.take(f.ctx, group)
}

// readChunks calls visit for each piece of the text of an input, and paused when
// nothing has come for that long. It returns at the end of the input, or when ctx
// ends, even while nothing comes.
func readChunks(ctx context.Context, in io.Reader, pause time.Duration, visit func([]byte) error, paused func() error) error {
	type chunk struct {
		text []byte
		err  error
	}
	chunks, free := make(chan chunk), make(chan []byte, 2)
	free <- make([]byte, 64<<10)
	free <- make([]byte, 64<<10)
	go func() { // ends with the input, or with ctx once the input gives something
		text, err := input.TextReader(in)
		for {
			var c chunk
			select {
			case buffer := <-free:
				if c.err = err; err == nil {
					var n int
					n, c.err = text.Read(buffer[:cap(buffer)])
					c.text = buffer[:n]
				}
			case <-ctx.Done():
				return
			}
			select {
			case chunks <- c:
			case <-ctx.Done():
				return
			}
			if c.err != nil {
				return
			}
		}
	}()
	for {
		timer := time.NewTimer(pause)
		select {
		case c := <-chunks:
			timer.Stop()
			if err := visit(c.text); err != nil {
				return err
			}
			switch {
			case errors.Is(c.err, io.EOF):
				return nil
			case c.err != nil:
				return c.err
			}
			free <- c.text
		case <-timer.C:
			if err := paused(); err != nil {
				return err
			}
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		}
	}
}

// shift moves all times of a record by whole seconds, so that their order inside a
// second stays.
func shift(r *event.Record, seconds int64) {
	by := time.Duration(seconds) * time.Second
	for _, t := range []*time.Time{&r.Time, &r.ObservedTime} {
		if !t.IsZero() {
			*t = t.Add(by)
		}
	}
	shiftEvent(r.Event, seconds)
}

func shiftEvent(e *corev1.Event, seconds int64) {
	for _, t := range []*metav1.Time{&e.CreationTimestamp, &e.FirstTimestamp, &e.LastTimestamp, e.DeletionTimestamp} {
		if t != nil && !t.IsZero() {
			*t = metav1.Unix(t.Unix()+seconds, int64(t.Nanosecond()))
		}
	}
	micro := []*metav1.MicroTime{&e.EventTime}
	if e.Series != nil {
		micro = append(micro, &e.Series.LastObservedTime)
	}
	for _, t := range micro {
		if !t.IsZero() {
			*t = metav1.NewMicroTime(metav1.Unix(t.Unix()+seconds, int64(t.Nanosecond())).Time)
		}
	}
}
