package watch

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hindsight-events/hindsight/internal/wait"
)

const (
	// idleAfter is how long the position must be unchanged before a list runs beside the watch.
	// Watches of Events have no bookmarks, so in quiet minutes the position would become too
	// old to be replayed, although nothing was missed.
	idleAfter = 2 * time.Minute

	// deliveryGrace is how long a watch may take to deliver a listed state before it is
	// suspected (stall.go).
	deliveryGrace = 30 * time.Second
)

// monitor lists beside an open watch while the watch is silent, until ctx is done. It closes
// the watch with errSilent if a list shows a state that the watch does not deliver: a
// connection can be open, and answer pings, without a server at its end.
func (w *Watcher) monitor(ctx context.Context, closeWatch context.CancelCauseFunc) {
	if wait.Sleep(ctx, minOpenTime) != nil {
		return
	}
	w.succeeded()
	for {
		pos, added := w.batcher.positionAndTime()
		if quiet := time.Since(added); quiet < idleAfter {
			if wait.Sleep(ctx, idleAfter-quiet) != nil {
				return
			}
			continue
		}

		version, newer, err := w.probe(ctx, pos.Version)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			w.log.Debug("list in a quiet minute failed", "err", err)
		case version < pos.Version:
			// etcd was restored while the watch stayed open.
			closeWatch(fmt.Errorf("%w: list at version %d, position %s", errHistoryRewound, version, pos))
			return
		}
		// In every case, the watch has this time to deliver the states from before the list.
		if wait.Sleep(ctx, deliveryGrace) != nil {
			return
		}
		if err != nil || w.batcher.at() != pos {
			continue
		}
		if newer != 0 {
			closeWatch(errSilent{newer})
			return
		}
		w.batcher.advanceTo(pos, version)
	}
}

// errFoundNewer ends a list early.
var errFoundNewer = errors.New("list shows a newer version")

// probe lists without emitting anything. It returns the version of the list, and the version of
// a state in it that is newer than the given one; 0: there is none.
func (w *Watcher) probe(ctx context.Context, than uint64) (version, newer uint64, err error) {
	token, limit := "", firstPage
	for {
		p, err := w.readPage(ctx, w.listPage(token, limit), func(item []byte) error {
			if m, err := parseMeta(item, time.Time{}); err == nil && m.version > than {
				newer = m.version
				return errFoundNewer
			}
			return nil
		})
		if errors.Is(err, errFoundNewer) {
			w.health.contacted()
			return than, newer, nil
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
