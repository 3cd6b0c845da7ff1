package timeline

import (
	"context"
	"time"

	"github.com/hindsight-events/hindsight/event/format"
	"github.com/hindsight-events/hindsight/query/objects"
)

// Make gathers the Events of a request and folds them into a Timeline. q says what was asked for, in
// words. An error of the context is returned unchanged.
func Make(ctx context.Context, r Request, title string, q Query) (*Timeline, error) {
	g, err := Gather(ctx, r)
	if err != nil {
		return nil, err
	}
	defer g.Close()
	f := NewFolder(g.Graph, q, func(o objects.Object) string { return g.Relation(o).String() })
	err = g.Each(ctx, func(r *format.Record) error { f.Add(r); return nil })
	if err != nil {
		return nil, err
	}
	t := f.Timeline()
	t.Title, t.Generated = title, time.Now().UTC().Truncate(time.Second)
	t.Omissions = append(t.Omissions, g.Omissions...)
	t.Totals.Bytes, t.Totals.Requests = g.Bytes, g.Requests
	return t, nil
}
