package query

import (
	"context"
	"time"

	"github.com/hindsight-events/hindsight/query/file"
	"github.com/hindsight-events/hindsight/query/line"
)

// Files is the Source that the files of a sink are.
type Files struct{ *file.Files }

// Range implements Source.
func (s Files) Range(ctx context.Context, from, _ time.Time, f func(line.Entry) error) error {
	return s.Files.Range(ctx, from, f)
}

// States implements Source.
func (s Files) States(ctx context.Context, _ []string, from, _ time.Time, f func(line.Entry) error) error {
	return s.Files.Range(ctx, from, f)
}

// Follow implements Source.
func (s Files) Follow(ctx context.Context, _ time.Time, f func(line.Entry) error) error {
	return s.Files.Follow(ctx, f)
}
