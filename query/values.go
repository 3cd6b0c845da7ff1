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

// valuesSample is the number of entries in which Values looks for the values of a field.
const valuesSample = 5000

// Values returns the values of a field from from to before to, sorted: all values of a label, else
// those in the newest entries. If ctx ends, it returns the values found so far.
func (s *Loki) Values(ctx context.Context, f event.Field, from, to time.Time) ([]string, error) {
	all := &Selection{}
	if label := s.Layout.label(f); label != "" {
		values, err := s.Client.LabelValues(ctx, label, all.Streams(s.Layout), from, to)
		return slices.DeleteFunc(values, func(v string) bool { return v == event.OtherLabel }), err
	}
	v := valueCollector{field: f, parser: format.Parser{Labels: s.Layout.Labels}}
	err := s.Client.Range(ctx, all.LogQL(s.Layout), from, to, loki.Backward, v.add)
	return v.result(ctx, err)
}

// Values is like Values of Loki, but reads the oldest entries.
func (s Files) Values(ctx context.Context, f event.Field, from, _ time.Time) ([]string, error) {
	v := valueCollector{field: f}
	err := s.Files.Range(ctx, from, v.add)
	return v.result(ctx, err)
}

// valueCollector collects the values of a field.
type valueCollector struct {
	field  event.Field
	parser format.Parser
	seen   map[string]bool
	read   int
}

func (v *valueCollector) add(e format.Entry) error {
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

func (v *valueCollector) result(ctx context.Context, err error) ([]string, error) {
	if errors.Is(err, errEnough) || ctx.Err() != nil {
		err = nil
	}
	return slices.Sorted(maps.Keys(v.seen)), err
}
