package query

import (
	"context"
	"time"

	"github.com/hindsight-events/hindsight/event/format"
	"github.com/hindsight-events/hindsight/internal/input"
	"github.com/hindsight-events/hindsight/query/file"
)

// Files is the Source that the files of a sink are, and any other with Events.
type Files struct {
	*file.Files
	// Selection is what is asked for; what is not need not be sorted. Nil: all.
	Selection *Selection
}

// Range implements Source. Events are in the order of their times, whatever their
// order in the files, as far as an input.TimeSorter can hold those of the range.
func (s Files) Range(ctx context.Context, from, to time.Time, f func(format.Entry) error) error {
	order := input.TimeSorter{Visit: func(r *format.Record) error { return f(format.Entry{Record: r}) }}
	defer order.Close()
	err := s.Files.Range(ctx, from, func(e format.Entry) error {
		r := e.Record
		if r.Time.Before(from) || !r.Time.Before(to) || s.Selection != nil && !s.Selection.Match(r) {
			return nil
		}
		return order.Add(r)
	})
	if err != nil {
		return err
	}
	return order.Flush()
}

// States implements Source.
func (s Files) States(ctx context.Context, _ []string, from, _ time.Time, f func(format.Entry) error) error {
	return s.Files.Range(ctx, from, f)
}

// Follow implements Source.
func (s Files) Follow(ctx context.Context, _ time.Time, f func(format.Entry) error) error {
	return s.Files.Follow(ctx, f)
}
