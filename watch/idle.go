package watch

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hindsight-events/hindsight/event"
)

const (
	// idleAfter is how long nothing may come before a list is read beside the
	// watch. No bookmarks come for Events, so in quiet minutes the position would
	// become too old to be replayed, although nothing was missed.
	idleAfter = 2 * time.Minute

	// stalledAfter is how long a watch may take to deliver what a list shows.
	stalledAfter = 30 * time.Second
)

// errNewer ends a list of which no more has to be known.
var errNewer = errors.New("there is something newer")

// supervise looks after an open watch until ctx ends, and drops it if it has
// stalled: a connection can be alive, and answer pings, with nothing behind it.
func (w *Watcher) supervise(ctx context.Context, drop context.CancelCauseFunc) {
	if !sleep(ctx, settled) {
		return
	}
	w.worked()
	for {
		pos, moved := w.hand.at()
		if quiet := time.Since(moved); quiet < idleAfter {
			if !sleep(ctx, idleAfter-quiet) {
				return
			}
			continue
		}

		version, newer, err := w.glance(ctx, pos.Version)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			w.log.Debug("list in a quiet minute failed", "err", err)
		case version < pos.Version:
			// etcd was restored behind a watch that stayed open.
			drop(fmt.Errorf("%w: list at version %d, position %s", errWentBack, version, pos))
			return
		}
		// Either way the watch gets the same time to deliver what was written before
		// the list.
		if !sleep(ctx, stalledAfter) {
			return
		}
		if now, _ := w.hand.at(); err != nil || now != pos {
			continue
		}
		if newer {
			drop(errStalled)
			return
		}
		to := pos
		to.Version = version
		w.hand.advance(pos, w.ours(event.Record{Position: to}))
	}
}

// glance lists without keeping anything. It returns the version of the list and
// whether it shows a state newer than the given one.
func (w *Watcher) glance(ctx context.Context, than uint64) (version uint64, newer bool, err error) {
	token, limit := "", firstPage
	for {
		p, err := w.readPage(ctx, w.listPage(token, limit), func(item []byte) error {
			if m, err := peek(item); err == nil && m.version > than {
				return errNewer
			}
			return nil
		})
		if errors.Is(err, errNewer) {
			w.health.answered()
			return than, true, nil
		}
		if err != nil {
			return 0, false, err
		}
		w.health.answered()
		if version == 0 {
			version = p.version
		}
		if token, limit = p.continueToken, nextPages; token == "" {
			return version, false, nil
		}
	}
}

// ours is a record as one of this source.
func (w *Watcher) ours(rec event.Record) event.Record {
	rec.Source = w.namespace
	return rec
}
