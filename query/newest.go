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
	// Up to maxUIDs Events are queried by their uids: every server accepts URLs of some 4 KiB.
	batchSize = 2000
	maxUIDs   = 50
)

// printNewest prints the newest rows of a source that can be read from its end, and reads no
// further than needed. A state is printed if no higher version of its Event is newer, which was
// read before, or up to lookback older, which lookUpVersions reads.
func (q *run) printNewest(ctx context.Context, source newestFirst) error {
	n := &newestRows{run: q, latest: newLatestOnly(), knownFrom: q.To}
	err := source.Newest(ctx, q.From, q.To, func(e format.Entry) error {
		return q.visitInRange(e, func(r *format.Record) error { return n.add(ctx, r) })
	})
	if err == nil {
		err = n.flush(ctx)
	}
	if err != nil && !errors.Is(err, errEnough) {
		return err
	}
	q.warnIfFull(n.latest)
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
	latest    *latestOnly
	knownFrom time.Time       // latest has all versions from here on
	batch     []format.Record // candidates for rows
	rows      []format.Record
}

// add must be called for records in order of time, newest first. It returns errEnough once there
// are Limit rows.
func (n *newestRows) add(ctx context.Context, r *format.Record) error {
	if n.printed.add(stateKey(r)) {
		return nil
	}
	if !n.States {
		n.latest.observe(r)
		if n.latest.hides(r) {
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
	if err := n.lookUpVersions(ctx); err != nil {
		return err
	}
	for i := range n.batch {
		r := &n.batch[i]
		if n.latest.hides(r) {
			continue
		}
		n.latest.markPrinted(r)
		n.rows = append(n.rows, *r)
		if len(n.rows) == n.Limit {
			return errEnough
		}
	}
	n.batch = n.batch[:0]
	return nil
}

// lookUpVersions reads the versions of the batch's Events that are older than the batch; newer ones
// were read before.
func (n *newestRows) lookUpVersions(ctx context.Context) error {
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
		if r := &n.batch[i]; !n.latest.hides(r) && r.Event.UID != "" {
			uids = append(uids, string(r.Event.UID))
		}
	}
	switch {
	case len(uids) == 0:
		return nil
	case len(uids) <= maxUIDs:
		return n.readVersions(ctx, n.latest, uids, from, to)
	}
	err := n.readVersions(ctx, n.latest, nil, from, to)
	n.knownFrom = from
	return err
}
