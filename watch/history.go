package watch

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/hindsight-events/hindsight/event"
)

// prepare finds out what has to be done before a watch is opened at the position,
// and does all of it but a list for all sinks, which it returns.
func (w *Watcher) prepare(ctx context.Context) (*relist, error) {
	due, err := w.checkHistory(ctx)
	if err != nil {
		return nil, err
	}
	if due != nil {
		w.positions = nil // everything is read, for all sinks
		return due, nil
	}
	w.correctTimes()
	if len(w.positions) > 0 && !w.aligned {
		if due, err = w.alignStart(ctx); err != nil || due != nil {
			return due, err
		}
	}
	if pos, _ := w.batcher.positionAndTime(); pos.Listed != 0 {
		return &relist{reason: reasonInterrupted, epoch: pos.Epoch}, nil
	}
	return nil, nil
}

// checkHistory finds out whether the position means anything to the API server
// that answers now, before a watch is opened there. If not, it returns why a
// list is due instead, and in which epoch.
//
// A watch from a version that is still to come is answered with 200 and stays
// silent: after etcd was restored from a backup, every Event would be missed
// until the new history has grown as long as the lost one. (If it already has,
// the restore cannot be noticed.)
func (w *Watcher) checkHistory(ctx context.Context) (*relist, error) {
	pos, _ := w.batcher.positionAndTime()
	cluster, err := w.clusterUID(ctx)
	if err != nil {
		return nil, err
	}
	switch {
	case pos.Version == 0 && pos.Listed == 0:
		return &relist{reason: reasonFirst, epoch: event.Epoch{Cluster: cluster}}, nil
	case !pos.Epoch.SameCluster(event.Epoch{Cluster: cluster}):
		return &relist{reason: reasonOtherCluster, epoch: event.Epoch{Cluster: cluster}}, nil
	case pos.Epoch.Cluster == "" && cluster != "":
		// It is the same epoch; only now do we know its name.
		w.batcher.amendPosition(func(p *event.Position) { p.Epoch.Cluster = cluster })
	}

	newest, err := w.newestVersion(ctx)
	if err != nil {
		return nil, err
	}
	if newest < w.newestSeen(pos) {
		epoch := pos.Epoch
		epoch.Restores++
		return &relist{reason: reasonRestored, epoch: epoch}, nil
	}
	return nil, nil
}

// sameEpoch reports whether versions of both can be compared.
func sameEpoch(a, b event.Epoch) bool {
	return a.Restores == b.Restores && a.SameCluster(b)
}

// uidRetryAfter is how long no uid is asked for after it was denied: often enough to
// notice a permission or another cluster, and too rarely to fill an audit log.
const uidRetryAfter = time.Hour

// clusterUID returns the uid of the namespace kube-system, by which a cluster
// can be told from another. It is empty where that may not be read, or where
// there is no such namespace.
func (w *Watcher) clusterUID(ctx context.Context) (string, error) {
	if !w.uidDeniedAt.IsZero() && time.Since(w.uidDeniedAt) < uidRetryAfter {
		return "", nil
	}
	// In JSON, because the client's scheme knows no namespaces.
	req := w.client.Get().Resource("namespaces").Name(metav1.NamespaceSystem).SetHeader("Accept", "application/json")
	in, err := open(ctx, req, headerTimeout, bodyReadTimeout)
	if code := status(err); code == http.StatusForbidden || code == http.StatusNotFound {
		if w.uidDeniedAt.IsZero() {
			w.log.Info("the uid of namespace kube-system is not known, so another cluster at this address would go unnoticed",
				"asked_again_after", uidRetryAfter, "err", err)
		}
		w.uidDeniedAt = time.Now()
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("get namespace %s: %w", metav1.NamespaceSystem, err)
	}
	defer in.Close()
	w.uidDeniedAt = time.Time{}
	var namespace struct {
		Metadata metav1.ObjectMeta `json:"metadata"`
	}
	if err := json.NewDecoder(io.LimitReader(in, maxObject)).Decode(&namespace); err != nil {
		return "", fmt.Errorf("get namespace %s: %w", metav1.NamespaceSystem, unexpectedEOF(err))
	}
	return string(namespace.Metadata.UID), nil
}

// newestVersion returns the newest version there is: that of a list, however short,
// which is read from etcd at that moment.
func (w *Watcher) newestVersion(ctx context.Context) (uint64, error) {
	p, err := w.readPage(ctx, w.listPage("", 1), func([]byte, error) error { return nil })
	return p.version, err
}

// epoch is that of the position.
func (w *Watcher) epoch() event.Epoch {
	pos, _ := w.batcher.positionAndTime()
	return pos.Epoch
}

// correctTimes takes times out of what an earlier process has left that are impossible by
// the API server's clock: a gap that begins or ends there would be refused by Loki.
func (w *Watcher) correctTimes() {
	clock := w.clock.now()
	correct := func(p *event.Position) {
		if !event.Possible(p.Time.Unix(), clock) {
			p.Time = time.Time{}
		}
		p.Time = event.Earlier(p.Time, clock)
	}
	w.batcher.amendPosition(correct)
	correct(&w.start)
	for sink, p := range w.positions {
		correct(&p)
		w.positions[sink] = p
	}
	for i := range w.knownGaps {
		correct(&w.knownGaps[i].From)
		correct(&w.knownGaps[i].To)
	}
	if w.openGap != nil {
		correct(&w.openGap.From)
		correct(&w.openGap.To)
	}
}
