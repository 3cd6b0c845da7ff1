package audit

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"

	"github.com/hindsight-events/hindsight/event/format"
	"github.com/hindsight-events/hindsight/test/fakeapi"
)

// serve returns a fake API server with Events.
func serve(t testing.TB, events ...*corev1.Event) *fakeapi.Server {
	t.Helper()
	s := fakeapi.New(t)
	for _, e := range events {
		version, err := strconv.ParseUint(e.ResourceVersion, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		s.Append(fakeapi.Change{Version: version, Type: watch.Added, Event: e})
	}
	return s
}

func clientOf(t testing.TB, s *fakeapi.Server) rest.Interface {
	t.Helper()
	c, err := NewClient(s.Config())
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// memory is a Store in memory.
type memory struct {
	entries  []format.Entry
	searches []Search
	onFind   func() // called before each search
}

func (m *memory) Find(_ context.Context, s Search, visit func(format.Entry) error) error {
	m.searches = append(m.searches, s)
	if m.onFind != nil {
		m.onFind()
	}
	sorted := slices.SortedStableFunc(slices.Values(m.entries), func(a, b format.Entry) int { return a.Time.Compare(b.Time) })
	for _, e := range sorted {
		if e.Time.Before(s.From) || !e.Time.Before(s.To) ||
			s.Namespace != "" && e.Labels["namespace"] != s.Namespace ||
			s.Gaps && e.Labels["reason"] != "HindsightGap" ||
			len(s.UIDs) > 0 && !slices.Contains(s.UIDs, e.Metadata["event_uid"]) {
			continue
		}
		if err := visit(e); err != nil {
			return err
		}
	}
	return nil
}

func (m *memory) String() string { return "memory" }

// begun returns a whole second some minutes ago.
func begun() time.Time { return time.Now().Add(-10 * time.Minute).Truncate(time.Second).UTC() }

// podEvent returns the Event number n of a test, written at a time.
func podEvent(n int, at time.Time) *corev1.Event {
	seen := metav1.NewTime(at)
	return &corev1.Event{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "team-a", Name: fmt.Sprintf("web-%d.17a", n), UID: uidOf(n), ResourceVersion: strconv.Itoa(100 + n),
			CreationTimestamp: seen,
			ManagedFields:     []metav1.ManagedFieldsEntry{{Manager: "kubelet", Time: &seen}},
		},
		InvolvedObject: corev1.ObjectReference{Kind: "Pod", Namespace: "team-a", Name: fmt.Sprintf("web-%d", n)},
		Reason:         "BackOff", Message: fmt.Sprintf(`Back-off %d "restarting"`, n), Type: corev1.EventTypeWarning,
		Source:         corev1.EventSource{Component: "kubelet", Host: "node-1"},
		FirstTimestamp: seen, LastTimestamp: seen, Count: 1,
	}
}

// entryOf returns the entry that Loki should have for an Event with times in whole seconds.
func entryOf(e *corev1.Event) format.Entry {
	version, _ := strconv.Atoi(e.ResourceVersion)
	return format.Entry{
		Time: e.LastTimestamp.Add(time.Duration(version)).UTC(),
		Line: fmt.Sprintf("name=%s kind=%s eventRV=%s sourcecomponent=kubelet sourcehost=node-1 reason=%s type=%s count=%d msg=%q event=%s",
			e.InvolvedObject.Name, e.InvolvedObject.Kind, e.ResourceVersion, e.Reason, e.Type, e.Count, e.Message, e.Name),
		Labels: map[string]string{"job": "hindsight", "cluster": "test", "namespace": e.Namespace, "reason": e.Reason},
		Metadata: map[string]string{
			"component": "kubelet", "count": strconv.Itoa(int(e.Count)), "detected_level": "warn", "type": e.Type,
			"event_uid": string(e.UID), "event_version": e.ResourceVersion, "kind": e.InvolvedObject.Kind, "name": e.InvolvedObject.Name, "node": "node-1",
		},
	}
}

// with returns a changed copy of an entry.
func with(e format.Entry, change func(*format.Entry)) format.Entry {
	e.Labels, e.Metadata = maps.Clone(e.Labels), maps.Clone(e.Metadata)
	change(&e)
	return e
}

func mustSelector(t testing.TB, text string) Selector {
	t.Helper()
	s, err := ParseSelector(text)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func uidOf(n int) types.UID {
	return types.UID(fmt.Sprintf("00000000-0000-4000-8000-%012d", n))
}
