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

	// deliveryGrace is how long a watch may take to deliver what a list shows before it is
	// suspected of bringing nothing (stall.go).
	deliveryGrace = 30 * time.Second
)

// errFoundNewer ends a list of which no more has to be known.
var errFoundNewer = errors.New("there is something newer")

// monitor looks after an open watch until ctx ends, and drops it with errSilent if
// a list shows what it does not deliver: a connection can be alive, and answer pings,
// with nothing behind it.
func (w *Watcher) monitor(ctx context.Context, drop context.CancelCauseFunc) {
	if !sleep(ctx, minOpenTime) {
		return
	}
	w.succeeded()
	for {
		pos, moved := w.batcher.positionAndTime()
		if quiet := time.Since(moved); quiet < idleAfter {
			if !sleep(ctx, idleAfter-quiet) {
				return
			}
			continue
		}

		version, shown, err := w.probe(ctx, pos.Version)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			w.log.Debug("list in a quiet minute failed", "err", err)
		case version < pos.Version:
			// etcd was restored behind a watch that stayed open.
			drop(fmt.Errorf("%w: list at version %d, position %s", errHistoryRewound, version, pos))
			return
		}
		// Either way the watch gets the same time to deliver what was written before
		// the list.
		if !sleep(ctx, deliveryGrace) {
			return
		}
		if now, _ := w.batcher.positionAndTime(); err != nil || now != pos {
			continue
		}
		if shown != 0 {
			drop(errSilent{shown})
			return
		}
		to := pos
		to.Version = version
		w.batcher.advance(pos, w.ours(event.Record{Position: to}))
	}
}

// probe lists without keeping anything. It returns the version of the list and
// that of a state in it that is newer than the given one; 0: there is none.
func (w *Watcher) probe(ctx context.Context, than uint64) (version, shown uint64, err error) {
	token, limit := "", firstPage
	for {
		p, err := w.readPage(ctx, w.listPage(token, limit), func(item []byte, err error) error {
			if err != nil {
				return nil
			}
			if m, err := parseMeta(item, time.Time{}); err == nil && m.version > than {
				shown = m.version
				return errFoundNewer
			}
			return nil
		})
		if errors.Is(err, errFoundNewer) {
			w.health.contacted()
			return than, shown, nil
		}
		if err != nil {
			return 0, 0, err
		}
		w.health.contacted()
		if version == 0 {
			version = p.version
		}
		if token, limit = p.continueToken, nextPages; token == "" {
			return version, 0, nil
		}
	}
}

// ours is a record as one of this source.
func (w *Watcher) ours(rec event.Record) event.Record {
	rec.Source = w.namespace
	return rec
}
