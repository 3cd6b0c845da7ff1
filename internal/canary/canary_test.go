package canary

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/hindsight-events/hindsight/event"
	"github.com/hindsight-events/hindsight/test/fakeapi"
	"github.com/hindsight-events/hindsight/watch"
)

// world is an API server, the watch of the canary Event, and a Loki.
type world struct {
	canary *Canary
	server *fakeapi.Server

	mu       sync.Mutex
	deny     bool
	watch    time.Duration // delay of the watch; negative: it is silent
	response time.Duration // delay of the API server's responses to writes

	stored  map[string]time.Time // versions in Loki
	store   time.Duration        // delay until an entry is stored
	queries []string
	lokiErr error
}

// respond is the interceptor of the API server.
func (w *world) respond(rw http.ResponseWriter, r *http.Request) bool {
	w.mu.Lock()
	deny, delay, response := w.deny, w.watch, w.response
	w.mu.Unlock()
	if deny {
		fakeapi.Fail(rw, r, http.StatusForbidden, "forbidden")
		return true
	}
	if r.Method == http.MethodGet {
		return false
	}
	before := w.event()
	recorded := httptest.NewRecorder()
	w.server.Serve(recorded, r)
	if e := w.event(); e != before && delay >= 0 {
		time.AfterFunc(delay, func() { w.deliver(e) })
	}
	time.Sleep(response)
	maps.Copy(rw.Header(), recorded.Header())
	rw.WriteHeader(recorded.Code)
	_, _ = rw.Write(recorded.Body.Bytes())
	return true
}

// event returns the canary Event, or nil.
func (w *world) event() *corev1.Event { return w.server.Event("monitoring", Name) }

// deliver passes a state through the watch and the sink.
func (w *world) deliver(e *corev1.Event) {
	now := time.Now()
	w.canary.Observe(&event.Record{Event: e, Time: now})
	w.mu.Lock()
	defer w.mu.Unlock()
	time.AfterFunc(w.store, func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.stored[e.ResourceVersion] = now
	})
}

// Has implements the client of Loki.
func (w *world) Has(_ context.Context, query string, from, to time.Time) (bool, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.queries = append(w.queries, query)
	if w.lokiErr != nil {
		return false, w.lokiErr
	}
	for version, at := range w.stored {
		if query == `{reason="HindsightCanary"} | event_version="`+version+`"` && !at.Before(from) && at.Before(to) {
			return true, nil
		}
	}
	return false, nil
}

func (w *world) set(f func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	f()
}

func newWorld(t *testing.T, pod string) (*world, *strings.Builder) {
	t.Helper()
	// The watch's delay is no multiple of a second, so that it never coincides with the canary's
	// timers.
	w := &world{server: fakeapi.New(t), stored: make(map[string]time.Time), watch: 500 * time.Millisecond, store: time.Second}
	w.server.Intercept(w.respond)
	client, err := watch.NewClient(w.server.Config())
	if err != nil {
		t.Fatal(err)
	}
	log := &strings.Builder{}
	w.canary, err = New(Options{
		Client: client, Namespace: "monitoring", Pod: pod,
		Loki:   &Loki{Client: w, Query: func(r *event.Record) string { return `{reason="` + r.Event.Reason + `"}` }},
		Logger: slog.New(slog.NewTextHandler(log, nil)), Registerer: prometheus.NewRegistry(),
	})
	if err != nil {
		t.Fatal(err)
	}
	return w, log
}

func (w *world) start(t *testing.T) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- w.canary.Run(ctx) }()
	return func() {
		t.Helper()
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

// logged returns the log once all goroutines are blocked.
func logged(log *strings.Builder) string {
	synctest.Wait()
	return log.String()
}

// want checks both metrics, in seconds.
func (w *world) want(t *testing.T, watch, loki float64) {
	t.Helper()
	synctest.Wait()
	if got := w.canary.watch.seconds(); got != watch {
		t.Errorf("the watch returned the Event after %v s, want %v", got, watch)
	}
	if got := w.canary.loki.seconds(); got != loki {
		t.Errorf("Loki returned the Event after %v s, want %v", got, loki)
	}
}

func TestWritesEveryMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, _ := newWorld(t, "hindsight-0")
		stop := w.start(t)
		time.Sleep(3*time.Minute + 30*time.Second)
		w.want(t, 0.5, 2) // Loki is queried every two seconds
		stop()
		w.want(t, 0, 0)
		if got, want := strings.Join(w.server.Requests(), " "), "GET /api/v1/namespaces/monitoring/events/hindsight-canary POST /api/v1/namespaces/monitoring/events"+
			strings.Repeat(" PATCH /api/v1/namespaces/monitoring/events/hindsight-canary", 3); got != want {
			t.Errorf("requests\n%s\nwant\n%s", got, want)
		}
		e := w.event()
		if e.Count != 4 || e.Reason != Reason || e.Type != "Normal" || e.InvolvedObject.Kind != "Pod" || e.InvolvedObject.Name != "hindsight-0" ||
			e.LastTimestamp.Sub(e.FirstTimestamp.Time) != 3*time.Minute {
			t.Errorf("the Event is %+v", e)
		}
		if len(w.queries) > 8 {
			t.Errorf("%d queries for 4 states that were stored after a second: %q", len(w.queries), w.queries)
		}
	})
}

func TestWatchFasterThanResponse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, _ := newWorld(t, "")
		w.watch, w.response = 0, 5*time.Second
		defer w.start(t)()
		time.Sleep(30 * time.Second)
		w.want(t, 0, 6)
	})
}

func TestContinuesAfterFailover(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, _ := newWorld(t, "hindsight-1")
		w.server.Put(&corev1.Event{ObjectMeta: metav1.ObjectMeta{Namespace: "monitoring", Name: Name}, Count: 41, InvolvedObject: corev1.ObjectReference{Kind: "Pod", Name: "hindsight-0"}})
		stop := w.start(t)
		time.Sleep(30 * time.Second)
		stop()
		if e := w.event(); e.Count != 42 || e.InvolvedObject.Name != "hindsight-1" {
			t.Errorf("the Event is %+v", e)
		}
	})
}

func TestRecreatesExpiredEvent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, log := newWorld(t, "")
		defer w.start(t)()
		time.Sleep(90 * time.Second)
		w.server.Delete("monitoring", Name)
		time.Sleep(time.Minute)
		w.want(t, 0.5, 2)
		if e := w.event(); e == nil || e.Count != 1 || e.InvolvedObject.Kind != "Namespace" {
			t.Errorf("the Event is %+v", e)
		}
		if strings.Contains(logged(log), "WARN") {
			t.Errorf("want no warning about an expired Event:\n%s", log)
		}
	})
}

func TestSilentWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, log := newWorld(t, "")
		defer w.start(t)()
		time.Sleep(90 * time.Second)
		w.set(func() { w.watch = -1 })
		time.Sleep(10 * time.Minute) // the first missing state was written after 2 minutes
		w.want(t, 570, 570)
		if n := strings.Count(logged(log), "canary Event is overdue"); n != 2 {
			t.Errorf("%d warnings, want one for each probe:\n%s", n, log)
		}
		w.set(func() { w.watch = 500 * time.Millisecond })
		time.Sleep(time.Minute)
		w.want(t, 0.5, 2)
		if n := strings.Count(logged(log), "canary Event arrived again"); n != 2 {
			t.Errorf("%d recoveries, want one for each probe:\n%s", n, log)
		}
	})
}

func TestLateLoki(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, log := newWorld(t, "")
		w.store = 5 * time.Minute
		defer w.start(t)()
		time.Sleep(20*time.Minute + 30*time.Second)
		w.want(t, 0.5, 302)
		w.set(func() { w.store = time.Second })
		time.Sleep(time.Minute)
		w.want(t, 0.5, 2)
		if log := logged(log); strings.Count(log, "canary Event is overdue") != 1 || strings.Count(log, "canary Event arrived again") != 1 {
			t.Errorf("want one warning and one recovery:\n%s", log)
		}
	})
}

func TestQueryFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, log := newWorld(t, "")
		w.lokiErr = errors.New("status 401")
		defer w.start(t)()
		time.Sleep(10 * time.Minute)
		w.want(t, 0.5, 600)
		if log := logged(log); strings.Count(log, "status 401") != 1 {
			t.Errorf("want one warning with the error:\n%s", log)
		}
		w.set(func() { w.lokiErr = nil })
		time.Sleep(30 * time.Second)
		if log := logged(log); strings.Count(log, "canary query succeeded again") != 1 {
			t.Errorf("want one recovery:\n%s", log)
		}
	})
}

func TestMissingPermission(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, log := newWorld(t, "")
		w.deny = true
		defer w.start(t)()
		time.Sleep(5*time.Minute + 30*time.Second)
		w.want(t, 330, 330)
		if log := logged(log); strings.Count(log, "grant get, create and patch on events in namespace monitoring") != 1 {
			t.Errorf("want one hint:\n%s", log)
		}
		if n := len(w.server.Requests()); n != 6 {
			t.Errorf("%d requests in five minutes, want one a minute", n)
		}
		w.set(func() { w.deny = false })
		time.Sleep(time.Minute)
		if log := logged(log); strings.Count(log, "canary Event written again") != 1 {
			t.Errorf("want one recovery:\n%s", log)
		}
		time.Sleep(time.Minute)
		w.want(t, 0.5, 2)
	})
}

func TestIgnoresOtherEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, _ := newWorld(t, "")
		w.watch = -1
		defer w.start(t)()
		time.Sleep(time.Second)
		for _, e := range []*corev1.Event{
			nil,
			{ObjectMeta: metav1.ObjectMeta{Namespace: "monitoring", Name: Name, ResourceVersion: "1"}, Reason: "Other"},
			{ObjectMeta: metav1.ObjectMeta{Namespace: "other", Name: Name, ResourceVersion: "1"}, Reason: Reason},
			{ObjectMeta: metav1.ObjectMeta{Namespace: "monitoring", Name: "other", ResourceVersion: "1"}, Reason: Reason},
			{ObjectMeta: metav1.ObjectMeta{Namespace: "monitoring", Name: Name, ResourceVersion: "9"}, Reason: Reason},
		} {
			w.canary.Observe(&event.Record{Event: e})
		}
		time.Sleep(29 * time.Second)
		w.want(t, 30, 30)
	})
}
