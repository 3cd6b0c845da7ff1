//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"maps"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/tools/events"
	"k8s.io/client-go/tools/record"

	"github.com/hindsight-events/hindsight/test/wait"
)

// ledger records the states that the API server has confirmed.
type ledger struct {
	mu     sync.Mutex               // guards the rest
	states map[string]string        // descriptions by uid@version
	events map[string]*corev1.Event // by uid@version
}

func newLedger() *ledger {
	return &ledger{states: map[string]string{}, events: map[string]*corev1.Event{}}
}

// wrote records a state that the API server has returned.
func (l *ledger) wrote(m metav1.Object, write string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	key := string(m.GetUID()) + "@" + m.GetResourceVersion()
	l.states[key] = fmt.Sprintf("%s/%s %s", m.GetNamespace(), m.GetName(), write)
	l.events[key] = asCore(m)
}

// asCore converts an Event of either API to core/v1.
func asCore(m metav1.Object) *corev1.Event {
	e, ok := m.(*eventsv1.Event)
	if !ok {
		return m.(*corev1.Event).DeepCopy()
	}
	e = e.DeepCopy()
	core := &corev1.Event{
		ObjectMeta: e.ObjectMeta, InvolvedObject: e.Regarding, Related: e.Related, Reason: e.Reason, Message: e.Note,
		Type: e.Type, Action: e.Action, ReportingController: e.ReportingController, ReportingInstance: e.ReportingInstance,
		EventTime: e.EventTime, Source: e.DeprecatedSource, Count: e.DeprecatedCount,
		FirstTimestamp: e.DeprecatedFirstTimestamp, LastTimestamp: e.DeprecatedLastTimestamp,
	}
	if e.Series != nil {
		core.Series = &corev1.EventSeries{Count: e.Series.Count, LastObservedTime: e.Series.LastObservedTime}
	}
	return core
}

// snapshot returns a copy.
func (l *ledger) snapshot() *ledger {
	l.mu.Lock()
	defer l.mu.Unlock()
	return &ledger{states: maps.Clone(l.states), events: maps.Clone(l.events)}
}

// all returns the states so far.
func (l *ledger) all() map[string]*corev1.Event {
	l.mu.Lock()
	defer l.mu.Unlock()
	return maps.Clone(l.events)
}

func (l *ledger) len() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.states)
}

// missing returns the states that were not seen.
func (l *ledger) missing(seen []state) (missing []string) {
	have := make(map[string]bool, len(seen))
	for _, s := range seen {
		have[s.key()] = true
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for key, write := range l.states {
		if !have[key] {
			missing = append(missing, key+" "+write)
		}
	}
	return missing
}

// wantOrder checks that no state is repeated and that versions grow.
func wantOrder(t *testing.T, p *running) {
	t.Helper()
	for _, line := range p.tornLines() {
		t.Errorf("a line is no Event: %.200q", line)
	}
	last, seen := uint64(0), map[string]bool{}
	for _, s := range p.seen() {
		version, err := strconv.ParseUint(s.Event.Metadata.ResourceVersion, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		if seen[s.key()] {
			t.Errorf("delivered twice: %s %s", s.key(), s.Event.Metadata.Name)
		}
		if s.Event.Reason == "HindsightGap" {
			continue // it precedes the states after the gap, with a later version
		}
		if version < last {
			t.Errorf("%s %s came after version %d", s.key(), s.Event.Metadata.Name, last)
		}
		seen[s.key()] = true
		last = max(last, version)
	}
}

// awaitDelivered waits until all states that the ledger has now were seen.
func awaitDelivered(t *testing.T, p *running, l *ledger) {
	t.Helper()
	l = l.snapshot() // others may be written meanwhile
	var missing []string
	if !wait.Within(t.Context(), 90*time.Second, func() bool {
		missing = l.missing(p.seen())
		return len(missing) == 0
	}) {
		t.Fatalf("%d of %d states are missing:\n%s", len(missing), l.len(), strings.Join(missing[:min(10, len(missing))], "\n"))
	}
}

// put creates an Event and records it.
func (l *ledger) put(ctx context.Context, client kubernetes.Interface, e *corev1.Event) (*corev1.Event, error) {
	written, err := client.CoreV1().Events(e.Namespace).Create(ctx, e, metav1.CreateOptions{})
	if err == nil {
		l.wrote(written, "created")
	}
	return written, err
}

// coreSink is the sink of client-go's recorder for core/v1 that records in a ledger.
type coreSink struct {
	typedcorev1.EventSinkImpl
	*ledger
}

func newCoreSink(client kubernetes.Interface, l *ledger) record.EventSink {
	return &coreSink{typedcorev1.EventSinkImpl{Interface: client.CoreV1().Events("")}, l}
}

func (s *coreSink) Create(e *corev1.Event) (*corev1.Event, error) {
	return s.noted(s.EventSinkImpl.Create(e))
}

func (s *coreSink) Update(e *corev1.Event) (*corev1.Event, error) {
	return s.noted(s.EventSinkImpl.Update(e))
}

func (s *coreSink) Patch(old *corev1.Event, data []byte) (*corev1.Event, error) {
	return s.noted(s.EventSinkImpl.Patch(old, data))
}

func (s *coreSink) noted(e *corev1.Event, err error) (*corev1.Event, error) {
	if err == nil {
		s.wrote(e, fmt.Sprintf("recorded, count %d", e.Count))
	}
	return e, err
}

// seriesSink is the same for events.k8s.io/v1. The end of the context does not cancel a request that
// the API server may already have stored.
type seriesSink struct {
	events.EventSinkImpl
	*ledger
}

func newSeriesSink(client kubernetes.Interface, l *ledger) events.EventSink {
	return &seriesSink{events.EventSinkImpl{Interface: client.EventsV1()}, l}
}

func (s *seriesSink) Create(ctx context.Context, e *eventsv1.Event) (*eventsv1.Event, error) {
	return s.noted(s.EventSinkImpl.Create(context.WithoutCancel(ctx), e))
}

func (s *seriesSink) Update(ctx context.Context, e *eventsv1.Event) (*eventsv1.Event, error) {
	return s.noted(s.EventSinkImpl.Update(context.WithoutCancel(ctx), e))
}

func (s *seriesSink) Patch(ctx context.Context, old *eventsv1.Event, data []byte) (*eventsv1.Event, error) {
	return s.noted(s.EventSinkImpl.Patch(context.WithoutCancel(ctx), old, data))
}

func (s *seriesSink) noted(e *eventsv1.Event, err error) (*eventsv1.Event, error) {
	if err == nil {
		s.wrote(e, fmt.Sprintf("recorded by events.k8s.io, series %v", e.Series))
	}
	return e, err
}
