package query

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/hindsight-events/hindsight/event"
	"github.com/hindsight-events/hindsight/event/format"
	"github.com/hindsight-events/hindsight/query/loki"
)

// valuesSample is in how many of the newest entries the values of a field are
// looked for.
const valuesSample = 5000

// Values returns the values of a field in what is stored from from to before to,
// sorted: all of a label, else those of the newest entries. If ctx ends, it
// returns those that it has found by then.
func (s *Loki) Values(ctx context.Context, f event.Field, from, to time.Time) ([]string, error) {
	all := &Selection{}
	if label := (builder{layout: s.Layout}).label(f); label != "" {
		values, err := s.Client.LabelValues(ctx, label, all.Streams(s.Layout), from, to)
		return slices.DeleteFunc(values, func(v string) bool { return v == event.OtherLabel }), err
	}
	v := values{field: f, parser: format.Parser{Labels: s.Layout.Labels}}
	err := s.Client.Range(ctx, all.LogQL(s.Layout), from, to, loki.Backward, v.add)
	return v.found(ctx, err)
}

// Values is that of Loki, but of the oldest entries.
func (s Files) Values(ctx context.Context, f event.Field, from, _ time.Time) ([]string, error) {
	v := values{field: f}
	err := s.Files.Range(ctx, from, v.add)
	return v.found(ctx, err)
}

// values collects those of a field.
type values struct {
	field  event.Field
	parser format.Parser
	seen   map[string]bool
	read   int
}

func (v *values) add(e format.Entry) error {
	if v.seen == nil {
		v.seen = map[string]bool{}
	}
	if r, err := v.parser.Parse(e); err == nil {
		if value := r.Value(v.field); value != "" {
			v.seen[value] = true
		}
	}
	if v.read++; v.read == valuesSample {
		return errEnough
	}
	return nil
}

func (v *values) found(ctx context.Context, err error) ([]string, error) {
	if errors.Is(err, errEnough) || ctx.Err() != nil {
		err = nil
	}
	return slices.Sorted(maps.Keys(v.seen)), err
}
