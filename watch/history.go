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

// checkHistory checks, before a watch is opened at the position, that the position belongs to
// the history of the API server that answers now. If not, it returns the list that is due.
//
// A watch from a future version is answered with 200 and is silent: after a restore of etcd,
// every Event would be missed until the new history is as long as the lost one. (If it already
// is, the restore cannot be detected.)
func (w *Watcher) checkHistory(ctx context.Context) (*relist, error) {
	pos := w.batcher.at()
	uid, err := w.clusterUID(ctx)
	if err != nil {
		return nil, err
	}
	cluster := event.Epoch{Cluster: uid}
	switch {
	case pos.Version == 0 && pos.ListVersion == 0:
		return &relist{reason: reasonFirst, epoch: cluster}, nil
	case !pos.Epoch.SameCluster(cluster):
		return &relist{reason: reasonOtherCluster, epoch: cluster}, nil
	case pos.Epoch.Cluster == "" && uid != "":
		// The same epoch; only its name was unknown until now.
		w.batcher.amendPosition(func(p *event.Position) { p.Epoch.Cluster = uid })
	}

	newest, err := w.newestVersion(ctx)
	if err != nil {
		return nil, err
	}
	seen := watchVersion(pos)
	if len(w.positions) > 0 {
		seen = max(seen, watchVersion(w.start))
	}
	if newest < seen {
		epoch := pos.Epoch
		epoch.Restores++
		return &relist{reason: reasonRestored, epoch: epoch}, nil
	}
	return nil, nil
}

// sameEpoch reports whether versions of both epochs compare.
func sameEpoch(a, b event.Epoch) bool {
	return a.Restores == b.Restores && a.SameCluster(b)
}

// watchVersion returns the version from which a watch delivers all states after p. During a
// list, it is the list's version, and the list as of that version has to be read first.
func watchVersion(p event.Position) uint64 { return max(p.Version, p.ListVersion) }

// uidRetryAfter is how long the uid is not read after it was denied: short enough to notice a
// new permission or another cluster, and too long to fill an audit log.
const uidRetryAfter = time.Hour

// clusterUID returns the uid of the namespace kube-system, which identifies a cluster. It is
// empty if Hindsight may not read it, or if there is no such namespace.
func (w *Watcher) clusterUID(ctx context.Context) (string, error) {
	if !w.uidDeniedAt.IsZero() && time.Since(w.uidDeniedAt) < uidRetryAfter {
		return "", nil
	}
	// In JSON, because the client's scheme has no namespaces.
	req := w.client.Get().Resource("namespaces").Name(metav1.NamespaceSystem).SetHeader("Accept", "application/json")
	in, err := open(ctx, req, headerTimeout, bodyReadTimeout)
	if code := status(err); code == http.StatusForbidden || code == http.StatusNotFound {
		if w.uidDeniedAt.IsZero() {
			w.log.Info("cannot read the uid of namespace kube-system; a change to another cluster at this address will not be noticed",
				"retry_after", uidRetryAfter, "err", err)
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

// newestVersion returns the version of a list of one Event, which the API server reads from etcd
// at that moment.
func (w *Watcher) newestVersion(ctx context.Context) (uint64, error) {
	p, err := w.readPage(ctx, w.listPage("", 1), func([]byte) error { return nil })
	return p.version, err
}

// correctTimes removes times from positions and gaps of an earlier process that are impossible by
// the API server's clock. Loki would reject a gap record with such a time.
func (w *Watcher) correctTimes() {
	clock := w.clock.now()
	correct := func(p *event.Position) {
		if !event.PlausibleTime(p.Time.Unix(), clock) {
			p.Time = time.Time{}
		}
		p.Time = event.ClampTime(p.Time, clock)
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
