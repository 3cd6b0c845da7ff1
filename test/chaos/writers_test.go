//go:build e2e

package chaos

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"regexp"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
)

const (
	writesPerSecond = 200
	percentBumps    = 30 // of the writes: another occurrence of an earlier Event
	writerCount     = 8
	remembered      = 40 // Events that a writer may repeat

	writeTimeout = 5 * time.Second
)

var (
	namespaces = []string{"team-0", "team-1", "team-2", "team-3", "team-4"}
	reasons    = []string{"Pulled", "Created", "Killing", "Unhealthy", "FailedScheduling", "BackOff"}
)

// markPattern finds the mark of a write in a line.
var markPattern = regexp.MustCompile(`mark-\d+-\d+`)

// write writes Events until ctx ends. Failed writes are not repeated.
func write(ctx context.Context, client kubernetes.Interface, l *ledger, seed uint64) {
	var all sync.WaitGroup
	for i := range writerCount {
		w := newWriter(client, l, seed, i+1)
		all.Go(func() { w.run(ctx) })
	}
	all.Wait()
}

type writer struct {
	client kubernetes.Interface
	ledger *ledger
	number int
	rand   *rand.Rand

	writes int
	recent []*corev1.Event
}

func newWriter(client kubernetes.Interface, l *ledger, seed uint64, number int) *writer {
	return &writer{client: client, ledger: l, number: number, rand: rand.New(rand.NewPCG(seed, uint64(number)))}
}

func (w *writer) run(ctx context.Context) {
	// A ticker does not catch up on ticks that were missed while the API server was down.
	ticker := time.NewTicker(writerCount * time.Second / writesPerSecond)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
		_ = w.once(ctx) // recorded in the ledger
	}
}

// once writes a state and records the result.
func (w *writer) once(ctx context.Context) error {
	w.writes++
	mark := fmt.Sprintf("mark-%d-%d", w.number, w.writes)
	sent := time.Now()
	e, err := w.write(ctx, mark)
	if err == nil {
		err = w.ledger.wrote(e, mark, sent)
	}
	if err != nil {
		w.ledger.failed(mark, err)
	}
	return err
}

// write creates an Event or increases the count of one. It is not cancelled with ctx,
// because the result would be unknown.
func (w *writer) write(ctx context.Context, mark string) (*corev1.Event, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), writeTimeout)
	defer cancel()
	message := mark + ": the pod misbehaves"
	if len(w.recent) > 0 && w.rand.IntN(100) < percentBumps {
		e := w.recent[w.rand.IntN(len(w.recent))]
		e.Count++ // also if the request fails: it may have been executed
		patch, err := json.Marshal(map[string]any{"count": e.Count, "lastTimestamp": metav1.Now(), "message": message})
		if err != nil {
			return nil, err
		}
		return w.client.CoreV1().Events(e.Namespace).Patch(ctx, e.Name, types.MergePatchType, patch, metav1.PatchOptions{})
	}

	e := w.newEvent(message)
	created, err := w.client.CoreV1().Events(e.Namespace).Create(ctx, e, metav1.CreateOptions{})
	if err != nil {
		return nil, err
	}
	if len(w.recent) < remembered {
		w.recent = append(w.recent, e)
	} else {
		w.recent[w.rand.IntN(remembered)] = e
	}
	return created, nil
}

func (w *writer) newEvent(message string) *corev1.Event {
	now := metav1.Now()
	e := &corev1.Event{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: namespaces[w.rand.IntN(len(namespaces))],
			Name:      fmt.Sprintf("chaos.%d.%d", w.number, w.writes),
		},
		Reason:         reasons[w.rand.IntN(len(reasons))],
		Message:        message,
		Type:           corev1.EventTypeNormal,
		Source:         corev1.EventSource{Component: "kubelet", Host: fmt.Sprintf("node-%d", w.number)},
		Count:          1,
		FirstTimestamp: now,
		LastTimestamp:  now,
	}
	e.InvolvedObject = corev1.ObjectReference{APIVersion: "v1", Kind: "Pod", Namespace: e.Namespace, Name: fmt.Sprintf("pod-%d", w.writes%50)}
	if w.rand.IntN(3) == 0 {
		e.Type = corev1.EventTypeWarning
	}
	return e
}
