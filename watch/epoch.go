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
	due, err := w.checkEpoch(ctx)
	if err != nil {
		return nil, err
	}
	if due != nil {
		w.behind = nil // everything is read, for all sinks
		return due, nil
	}
	w.correctTimes()
	if len(w.behind) > 0 && !w.joined {
		if due, err = w.join(ctx); err != nil || due != nil {
			return due, err
		}
	}
	if pos, _ := w.hand.at(); pos.Listed != 0 {
		return &relist{reason: interrupted, epoch: pos.Epoch}, nil
	}
	return nil, nil
}

// checkEpoch finds out whether the position means anything to the API server
// that answers now, before a watch is opened there. If not, it returns why a
// list is due instead, and in which epoch.
//
// A watch from a version that is still to come is answered with 200 and stays
// silent: after etcd was restored from a backup, every Event would be missed
// until the new history has grown as long as the lost one. (If it already has,
// the restore cannot be noticed.)
func (w *Watcher) checkEpoch(ctx context.Context) (*relist, error) {
	pos, _ := w.hand.at()
	cluster, err := w.clusterUID(ctx)
	if err != nil {
		return nil, err
	}
	switch {
	case pos.Version == 0 && pos.Listed == 0:
		return &relist{reason: first, epoch: event.Epoch{Cluster: cluster}}, nil
	case !pos.Epoch.SameCluster(event.Epoch{Cluster: cluster}):
		return &relist{reason: otherCluster, epoch: event.Epoch{Cluster: cluster}}, nil
	case pos.Epoch.Cluster == "" && cluster != "":
		// It is the same epoch; only now do we know its name.
		w.hand.revise(func(p *event.Position) { p.Epoch.Cluster = cluster })
	}

	newest, err := w.newest(ctx)
	if err != nil {
		return nil, err
	}
	if newest < w.newestSeen(pos) {
		epoch := pos.Epoch
		epoch.Restores++
		return &relist{reason: restored, epoch: epoch}, nil
	}
	return nil, nil
}

// sameEpoch reports whether versions of both can be compared.
func sameEpoch(a, b event.Epoch) bool {
	return a.Restores == b.Restores && a.SameCluster(b)
}

// uidAgainAfter is how long no uid is asked for after it was denied: often enough to
// notice a permission or another cluster, and too rarely to fill an audit log.
const uidAgainAfter = time.Hour

// clusterUID returns the uid of the namespace kube-system, by which a cluster
// can be told from another. It is empty where that may not be read, or where
// there is no such namespace.
func (w *Watcher) clusterUID(ctx context.Context) (string, error) {
	if !w.uidDenied.IsZero() && time.Since(w.uidDenied) < uidAgainAfter {
		return "", nil
	}
	// In JSON, because the client's scheme knows no namespaces.
	req := w.client.Get().Resource("namespaces").Name(metav1.NamespaceSystem).SetHeader("Accept", "application/json")
	in, err := open(ctx, req, otherAnswerWithin, quietAtMost)
	if code := status(err); code == http.StatusForbidden || code == http.StatusNotFound {
		if w.uidDenied.IsZero() {
			w.log.Info("the uid of namespace kube-system is not known, so another cluster at this address would go unnoticed",
				"asked_again_after", uidAgainAfter, "err", err)
		}
		w.uidDenied = time.Now()
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("get namespace %s: %w", metav1.NamespaceSystem, err)
	}
	defer in.Close()
	w.uidDenied = time.Time{}
	var namespace struct {
		Metadata metav1.ObjectMeta `json:"metadata"`
	}
	if err := json.NewDecoder(io.LimitReader(in, maxObject)).Decode(&namespace); err != nil {
		return "", fmt.Errorf("get namespace %s: %w", metav1.NamespaceSystem, unexpected(err))
	}
	return string(namespace.Metadata.UID), nil
}

// newest returns the newest version there is: that of a list, however short,
// which is read from etcd at that moment.
func (w *Watcher) newest(ctx context.Context) (uint64, error) {
	p, err := w.readPage(ctx, w.listPage("", 1), func([]byte, error) error { return nil })
	return p.version, err
}

// epoch is that of the position.
func (w *Watcher) epoch() event.Epoch {
	pos, _ := w.hand.at()
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
	w.hand.revise(correct)
	correct(&w.start)
	for sink, p := range w.behind {
		correct(&p)
		w.behind[sink] = p
	}
	for i := range w.gaps {
		correct(&w.gaps[i].From)
		correct(&w.gaps[i].To)
	}
	if w.openGap != nil {
		correct(&w.openGap.From)
		correct(&w.openGap.To)
	}
}
