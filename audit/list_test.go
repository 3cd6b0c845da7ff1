package audit

import (
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/hindsight-events/hindsight/test/fakeapi"
)

// podEvents returns n Events.
func podEvents(n int) (events []*corev1.Event) {
	start := begun()
	for i := range n {
		events = append(events, podEvent(i, start))
	}
	return events
}

func TestListPages(t *testing.T) {
	t.Parallel()
	events := podEvents(2*pageSize + 1)
	for name, accept := range map[string]string{"protobuf": "", "JSON": "application/json"} {
		server := serve(t, events...)
		server.Intercept(func(w http.ResponseWriter, r *http.Request) bool {
			if accept != "" {
				r.Header.Set("Accept", accept)
			}
			return false
		})
		states, err := list(t.Context(), clientOf(t, server), "", Rules{})
		if err != nil {
			t.Fatal(err)
		}
		if len(states) != len(events) || len(server.Requests()) != 3 {
			t.Fatalf("%d Events in %d requests, want %d in 3", len(states), len(server.Requests()), len(events))
		}
		byUID := map[string]state{}
		for _, s := range states {
			byUID[s.uid] = s
		}
		for i, e := range events {
			want := newState(e, time.Now(), func(s string) string { return s })
			Rules{}.apply(e, &want)
			if got := byUID[string(e.UID)]; got != want {
				t.Fatalf("%s: Event %d is\n%+v\nwant\n%+v", name, i, got, want)
			}
		}
	}
}

// TestListExpires checks that a list continues with the token of an expired response, once for each
// token.
func TestListExpires(t *testing.T) {
	t.Parallel()
	server := serve(t, podEvents(pageSize+1)...)
	late := podEvent(5000, begun())
	late.Name = "web-zzz" // the last one of a list
	server.Intercept(func(w http.ResponseWriter, r *http.Request) bool {
		if len(server.Requests()) == 2 {
			server.Append(fakeapi.Change{Version: 5100, Type: "ADDED", Event: late})
			server.Compact(5100)
		}
		return false
	})
	states, err := list(t.Context(), clientOf(t, server), "", Rules{})
	if err != nil || len(states) != pageSize+2 || states[pageSize+1].name != late.Name {
		t.Errorf("%d Events, error %v", len(states), err)
	}

	server.Intercept(func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Query().Get("continue") == "" {
			return false
		}
		expired := fakeapi.Status(http.StatusGone, "the provided continue parameter is too old")
		expired.Continue = "-:team-a/web-1.17a"
		fakeapi.Respond(w, r, http.StatusGone, expired)
		return true
	})
	if _, err = list(t.Context(), clientOf(t, server), "", Rules{}); err == nil || !strings.Contains(err.Error(), "too old") {
		t.Errorf("error %v", err)
	}
}

func TestListFails(t *testing.T) {
	t.Parallel()
	server := serve(t)
	server.Intercept(func(w http.ResponseWriter, r *http.Request) bool {
		fakeapi.Fail(w, r, http.StatusForbidden, `events is forbidden: User "nobody" cannot list resource "events"`)
		return true
	})
	for namespace, want := range map[string]string{
		"":       `list Events of all namespaces: events is forbidden: User "nobody" cannot list resource "events"; an audit needs the verb list on events there`,
		"team-a": `list Events of namespace team-a: events is forbidden: User "nobody" cannot list resource "events"; an audit needs the verb list on events there`,
	} {
		if _, err := list(t.Context(), clientOf(t, server), namespace, Rules{}); err == nil || err.Error() != want {
			t.Errorf("error\n%v\nwant\n%s", err, want)
		}
	}
}

func TestListNamespace(t *testing.T) {
	t.Parallel()
	other := podEvent(1, begun())
	other.Namespace = "team-b"
	server := serve(t, other, podEvent(2, begun()))
	states, err := list(t.Context(), clientOf(t, server), "team-a", Rules{})
	if err != nil || len(states) != 1 || states[0].uid != string(uidOf(2)) {
		t.Errorf("%+v, error %v", states, err)
	}
	if want := []string{"GET /api/v1/namespaces/team-a/events?limit=1000"}; !slices.Equal(server.Requests(), want) {
		t.Errorf("requests %q, want %q", server.Requests(), want)
	}
}
