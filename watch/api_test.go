package watch

import (
	"strconv"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"github.com/hindsight-events/hindsight/test/fakeapi"
)

// api is a fake API server with Events in the namespace "default".
type api struct {
	*fakeapi.Server
	t       testing.TB
	padding string // of every message
}

func newAPI(t testing.TB) *api { return &api{Server: fakeapi.New(t), t: t} }

func (a *api) client() *rest.RESTClient { return must(NewClient(a.Config())) }

// newEvent returns the next state of an Event, as a recorder writes it.
func (a *api) newEvent(name string) *corev1.Event {
	now := metav1.NewTime(time.Now().Truncate(time.Second))
	e := &corev1.Event{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, CreationTimestamp: now},
		Reason:     "Written", Message: "message of " + name + a.padding, Count: 1,
		FirstTimestamp: now, LastTimestamp: now,
	}
	if last := a.state(name); last != nil {
		e.CreationTimestamp, e.FirstTimestamp, e.Count = last.CreationTimestamp, last.FirstTimestamp, last.Count+1
	}
	e.ManagedFields = []metav1.ManagedFieldsEntry{{Manager: "test", Time: &now}}
	return e
}

// put writes a state and returns its version.
func (a *api) put(e *corev1.Event) uint64 {
	return must(strconv.ParseUint(a.Put(e).ResourceVersion, 10, 64))
}

// write writes the next state of an Event and returns its version.
func (a *api) write(name string) uint64 { return a.put(a.newEvent(name)) }

func (a *api) remove(name string) uint64 { return a.Delete("default", name) }

// state returns the current state of an Event, nil if there is none.
func (a *api) state(name string) *corev1.Event { return a.Event("default", name) }

// compact removes the history before the current state.
func (a *api) compact() { a.Compact(a.Version()) }

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}
