//go:build e2e

package e2e

import (
	"fmt"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/hindsight-events/hindsight/test/fakeapi"
)

// serveEvents starts a fake API server with Events. A real one sets their times itself, and
// needs too long to create thousands of namespaces.
func serveEvents(t *testing.T, events []*corev1.Event) *fakeapi.Server {
	api := fakeapi.New(t)
	putEvents(api, events)
	return api
}

func putEvents(api *fakeapi.Server, events []*corev1.Event) {
	for _, e := range events {
		api.Put(e)
	}
}

// statesOf returns all states of an API server by their keys in a ledger.
func statesOf(api *fakeapi.Server) map[string]*corev1.Event {
	states := map[string]*corev1.Event{}
	for _, c := range api.History() {
		states[string(c.Event.UID)+"@"+c.Event.ResourceVersion] = c.Event
	}
	return states
}

// madeEvent returns the n-th Event of a test, of a usual size with managedFields.
func madeEvent(n int, at time.Time) *corev1.Event {
	when := metav1.NewTime(at.Truncate(time.Second))
	return &corev1.Event{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: fmt.Sprintf("team-%d", n%40),
			// The order of the keys differs from the order of the versions.
			Name:              fmt.Sprintf("web-%d.%016x", n%100, uint64(n)*0x9E3779B97F4A7C15),
			CreationTimestamp: when,
			ManagedFields: []metav1.ManagedFieldsEntry{{
				Manager: "kubelet", Operation: metav1.ManagedFieldsOperationUpdate, APIVersion: "v1", Time: &when,
				FieldsType: "FieldsV1", FieldsV1: metav1.NewFieldsV1(`{"f:count":{},"f:firstTimestamp":{},"f:involvedObject":{},"f:lastTimestamp":{},"f:message":{},"f:reason":{},"f:reportingComponent":{},"f:source":{"f:component":{},"f:host":{}},"f:type":{}}`),
			}},
		},
		InvolvedObject: corev1.ObjectReference{APIVersion: "v1", Kind: "Pod", Namespace: fmt.Sprintf("team-%d", n%40), Name: fmt.Sprintf("web-%d", n%100), UID: types.UID(fmt.Sprintf("pod-%d", n%100))},
		Reason:         []string{"Pulled", "Created", "Started", "Killing", "Unhealthy"}[n/40%5],
		Message:        fmt.Sprintf("message %d of a container in this pod", n),
		Source:         corev1.EventSource{Component: "kubelet", Host: fmt.Sprintf("node-%d", n%7)},
		Type:           []string{corev1.EventTypeNormal, corev1.EventTypeWarning}[n/3%2],
		FirstTimestamp: when,
		LastTimestamp:  when,
		Count:          1,
	}
}
