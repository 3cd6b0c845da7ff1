package query

import (
	"context"
	"time"

	"github.com/hindsight-events/hindsight/event/format"
	"github.com/hindsight-events/hindsight/internal/input"
	"github.com/hindsight-events/hindsight/query/file"
)

// Files is the Source that reads the files of a file sink, or any other file with Events.
type Files struct {
	*file.Files
	// Selection, if set, limits sorting to matching Events.
	Selection *Selection
}

// Range implements Source. It sorts the Events of the range by time, as far as an input.TimeSorter
// can hold them.
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
