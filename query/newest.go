package query

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/hindsight-events/hindsight/event/format"
)

const (
	// lookback bounds how much earlier the time of a higher version may be. The time
	// of a state is between 30 minutes before and 2 minutes after its write
	// (event.New), so the bound is 32 minutes plus the difference of API servers'
	// clocks.
	lookback = time.Hour

	// batchSize is the number of rows whose highest versions are looked up together.
	// Up to singleEvents Events are queried by their uids: every server accepts URLs
	// of some 4 KiB.
	batchSize    = 2000
	singleEvents = 50
)

// printNewest prints the newest rows of a source that can be read from its end.
// It reads no further than needed. A state is a row if no higher version of its Event
// is newer, which has been read by then, or up to lookback older, which lookUp reads.
func (q *run) printNewest(ctx context.Context, source newestFirst) error {
	n := &newestRows{run: q, fold: newLatestOnly(), knownFrom: q.To}
	err := source.Newest(ctx, q.From, q.To, func(e format.Entry) error {
		return q.visitInRange(e, func(r *format.Record) error { return n.add(ctx, r) })
	})
	if err == nil {
		err = n.flush(ctx)
	}
	if err != nil && !errors.Is(err, errEnough) {
		return err
	}
	q.warnIfFull(n.fold)
	for _, r := range slices.Backward(n.rows) {
		if err := q.print(&r); err != nil {
			return err
		}
	}
	return nil
}

// newestRows collects rows, newest first.
type newestRows struct {
	*run
	fold      *latestOnly
	knownFrom time.Time       // fold has all versions from here on
	batch     []format.Record // candidates for rows
	rows      []format.Record
}

// add is called for records in order of time, newest first. It returns errEnough
// once there are as many rows as asked for.
func (n *newestRows) add(ctx context.Context, r *format.Record) error {
	if n.shown.add(stateKey(r)) {
		return nil
	}
	if !n.States {
		n.fold.observe(r)
		if n.fold.hides(r) {
			return nil
		}
	}
	n.batch = append(n.batch, *r)
	if len(n.batch) < min(n.Limit-len(n.rows), batchSize) {
		return nil
	}
	return n.flush(ctx)
}

// flush turns a batch into rows.
func (n *newestRows) flush(ctx context.Context) error {
	if err := n.lookUp(ctx); err != nil {
		return err
	}
	for i := range n.batch {
		r := &n.batch[i]
		if n.fold.hides(r) {
			continue
		}
		n.fold.markShown(r)
		n.rows = append(n.rows, *r)
		if len(n.rows) == n.Limit {
			return errEnough
		}
	}
	n.batch = n.batch[:0]
	return nil
}

// lookUp reads the versions of the batch's Events that are older than the batch;
// those that are newer have been read.
func (n *newestRows) lookUp(ctx context.Context) error {
	if n.States || len(n.batch) == 0 {
		return nil
	}
	oldest := n.batch[len(n.batch)-1].Time
	from, to := oldest.Add(-lookback), oldest.Add(1)
	if from.Before(n.From) {
		from = n.From
	}
	if to.After(n.knownFrom) {
		to = n.knownFrom
	}
	if !from.Before(to) {
		return nil
	}
	var uids []string
	for i := range n.batch {
		if r := &n.batch[i]; !n.fold.hides(r) && r.Event.UID != "" {
			uids = append(uids, string(r.Event.UID))
		}
	}
	switch {
	case len(uids) == 0:
		return nil
	case len(uids) <= singleEvents:
		return n.readVersions(ctx, n.fold, uids, from, to)
	}
	err := n.readVersions(ctx, n.fold, nil, from, to)
	n.knownFrom = from
	return err
}
