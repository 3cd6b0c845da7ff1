package audit

import (
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestListPages(t *testing.T) {
	for _, protobuf := range []bool{false, true} {
		server := api{protobuf: protobuf}
		start := begun()
		for i := range 2*pageSize + 1 {
			server.events = append(server.events, podEvent(i, start))
		}
		states, err := list(t.Context(), server.client(t), "", Rules{})
		if err != nil {
			t.Fatal(err)
		}
		if len(states) != len(server.events) || len(server.requests) != 3 {
			t.Fatalf("%d Events in %d requests, want %d in 3", len(states), len(server.requests), len(server.events))
		}
		for i, e := range server.events {
			got, want := states[i], newState(e, time.Now(), func(s string) string { return s })
			Rules{}.apply(e, &want)
			if got != want {
				t.Fatalf("protobuf %v: Event %d is\n%+v\nwant\n%+v", protobuf, i, got, want)
			}
		}
	}
}

// TestListExpires checks that a list continues with the token of an expired response, once for each
// token.
func TestListExpires(t *testing.T) {
	server := api{}
	for i := range pageSize + 1 {
		server.events = append(server.events, podEvent(i, begun()))
	}
	expired := refusal(http.StatusGone, metav1.StatusReasonExpired, "the provided continue parameter is too old")
	expired.Continue = "1000"
	server.respondWith = func(req *http.Request) (int, any) {
		if len(server.requests) == 2 {
			return http.StatusGone, expired
		}
		return 0, nil
	}
	server.events = append(server.events, podEvent(5000, begun()))
	expired.Continue = "1001"
	states, err := list(t.Context(), server.client(t), "", Rules{})
	if err != nil || len(states) != pageSize+1 || states[pageSize].name != "web-5000.17a" {
		t.Errorf("%d Events, error %v", len(states), err)
	}

	server.requests = nil
	server.respondWith = func(req *http.Request) (int, any) {
		if req.URL.Query().Get("continue") != "" {
			return http.StatusGone, expired
		}
		return 0, nil
	}
	if _, err = list(t.Context(), server.client(t), "", Rules{}); err == nil || !strings.Contains(err.Error(), "too old") {
		t.Errorf("error %v", err)
	}
}

func TestListFails(t *testing.T) {
	server := api{respondWith: func(*http.Request) (int, any) {
		return http.StatusForbidden, refusal(http.StatusForbidden, metav1.StatusReasonForbidden, `events is forbidden: User "nobody" cannot list resource "events"`)
	}}
	for namespace, want := range map[string]string{
		"":       `list Events of all namespaces: events is forbidden: User "nobody" cannot list resource "events"; an audit needs the verb list on events there`,
		"team-a": `list Events of namespace team-a: events is forbidden: User "nobody" cannot list resource "events"; an audit needs the verb list on events there`,
	} {
		if _, err := list(t.Context(), server.client(t), namespace, Rules{}); err == nil || err.Error() != want {
			t.Errorf("error\n%v\nwant\n%s", err, want)
		}
	}
}

func TestListNamespace(t *testing.T) {
	server := api{}
	server.events = append(server.events, podEvent(1, begun()), podEvent(2, begun()))
	server.events[0].Namespace = "team-b"
	states, err := list(t.Context(), server.client(t), "team-a", Rules{})
	if err != nil || len(states) != 1 || states[0].uid != string(uidOf(2)) {
		t.Errorf("%+v, error %v", states, err)
	}
	if want := []string{"/api/v1/namespaces/team-a/events?limit=1000"}; !slices.Equal(server.requests, want) {
		t.Errorf("requests %q, want %q", server.requests, want)
	}
}
