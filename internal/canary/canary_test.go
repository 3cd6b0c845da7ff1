package canary

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"github.com/hindsight-events/hindsight/event"
	"github.com/hindsight-events/hindsight/watch"
)

// world is an API server that keeps one Event, the watch of it, and a Loki.
type world struct {
	canary *Canary

	mu       sync.Mutex
	event    *corev1.Event
	version  int
	requests []string
	deny     bool
	watch    time.Duration // how late the watch is; negative: nothing comes
	answer   time.Duration // how late the API server answers

	stored map[string]bool // versions that Loki has
	store  time.Duration   // how late; negative: never
	asked  int
	broken bool
	query  url.Values
	header http.Header
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func respond(r *http.Request, code int, body any) (*http.Response, error) {
	b, err := json.Marshal(body)
	return &http.Response{
		StatusCode: code, Status: strconv.Itoa(code) + " " + http.StatusText(code),
		Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(bytes.NewReader(b)), Request: r,
	}, err
}

func status(code int, reason metav1.StatusReason) *metav1.Status {
	return &metav1.Status{TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: metav1.StatusFailure, Code: int32(code), Reason: reason, Message: string(reason)}
}

func (w *world) api(r *http.Request) (*http.Response, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.requests = append(w.requests, r.Method+" "+r.URL.Path)
	const path = "/api/v1/namespaces/monitoring/events"
	e := &corev1.Event{}
	switch {
	case w.deny:
		return respond(r, http.StatusForbidden, status(http.StatusForbidden, metav1.StatusReasonForbidden))
	case r.Method == http.MethodPost && r.URL.Path == path && w.event == nil:
	case r.URL.Path != path+"/"+Name || w.event == nil:
		return respond(r, http.StatusNotFound, status(http.StatusNotFound, metav1.StatusReasonNotFound))
	case r.Method == http.MethodGet:
		return respond(r, http.StatusOK, w.event)
	default:
		e = w.event.DeepCopy()
	}
	if err := json.NewDecoder(r.Body).Decode(e); err != nil {
		return nil, err
	}
	w.version++
	e.ResourceVersion = strconv.Itoa(w.version)
	w.event = e
	if w.watch >= 0 {
		time.AfterFunc(w.watch, func() { w.bring(e) })
	}
	if w.answer > 0 {
		w.mu.Unlock()
		time.Sleep(w.answer)
		w.mu.Lock()
	}
	return respond(r, http.StatusOK, e)
}

// bring is what the watch and the sink do.
func (w *world) bring(e *corev1.Event) {
	now := time.Now()
	w.canary.Seen(&event.Record{Event: e, Time: now})
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.store >= 0 {
		time.AfterFunc(w.store, func() {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.stored[e.ResourceVersion] = true
		})
	}
}

func (w *world) loki(r *http.Request) (*http.Response, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.asked++
	w.query, w.header = r.URL.Query(), r.Header
	if w.broken {
		return respond(r, http.StatusUnauthorized, "who are you")
	}
	result := []any{}
	for version := range w.stored {
		if r.URL.Path == "/base/loki/api/v1/query_range" && strings.HasSuffix(w.query.Get("query"), ` | event_version="`+version+`"`) {
			result = append(result, map[string]any{"stream": map[string]string{}, "values": []any{}})
		}
	}
	return respond(r, http.StatusOK, map[string]any{"status": "success", "data": map[string]any{"resultType": "streams", "result": result}})
}

func (w *world) set(f func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	f()
}

func newWorld(t *testing.T, pod string) (*world, *strings.Builder) {
	t.Helper()
	// Times that are no multiple of a second never coincide with the canary's own.
	w := &world{stored: make(map[string]bool), watch: 500 * time.Millisecond, store: time.Second}
	client, err := watch.NewClient(&rest.Config{Host: "http://api", Transport: roundTripper(w.api)})
	if err != nil {
		t.Fatal(err)
	}
	log := &strings.Builder{}
	w.canary, err = New(Options{
		Client: client, Namespace: "monitoring", Pod: pod,
		Loki: &Loki{
			URL:    &url.URL{Scheme: "http", User: url.UserPassword("u", "secret"), Host: "loki", Path: "/base"},
			Client: &http.Client{Transport: roundTripper(w.loki)},
			Header: http.Header{"X-Scope-Orgid": {"tenant"}},
			Query:  func(r *event.Record) string { return `{reason="` + r.Event.Reason + `"}` },
		},
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

// said returns what was logged. Nothing is, while the bubble is at rest.
func said(log *strings.Builder) string {
	synctest.Wait()
	return log.String()
}

func (w *world) want(t *testing.T, seen, found float64) {
	t.Helper()
	synctest.Wait()
	if got := w.canary.watch.seconds(); got != seen {
		t.Errorf("back through the watch after %v s, want %v", got, seen)
	}
	if got := w.canary.loki.seconds(); got != found {
		t.Errorf("found in Loki after %v s, want %v", got, found)
	}
}

func TestOneEventIsWrittenEveryMinuteAndFound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, _ := newWorld(t, "hindsight-0")
		stop := w.start(t)
		time.Sleep(3*time.Minute + 30*time.Second)
		w.want(t, 0.5, 2) // Loki is asked every two seconds
		stop()
		w.want(t, 0, 0)
		if got, want := strings.Join(w.requests, " "), "GET /api/v1/namespaces/monitoring/events/hindsight-canary POST /api/v1/namespaces/monitoring/events"+
			strings.Repeat(" PATCH /api/v1/namespaces/monitoring/events/hindsight-canary", 3); got != want {
			t.Errorf("requests\n%s\nwant\n%s", got, want)
		}
		e := w.event
		if e.Count != 4 || e.Reason != Reason || e.Type != "Normal" || e.InvolvedObject.Kind != "Pod" || e.InvolvedObject.Name != "hindsight-0" ||
			e.LastTimestamp.Sub(e.FirstTimestamp.Time) != 3*time.Minute {
			t.Errorf("the Event is %+v", e)
		}
		if got := w.query.Get("query"); got != `{reason="HindsightCanary"} | event_version="4"` {
			t.Errorf("Loki was asked %s", got)
		}
		if w.header.Get("X-Scope-OrgID") != "tenant" {
			t.Error("Loki was asked without the tenant")
		}
		if w.asked > 8 {
			t.Errorf("Loki was asked %d times for 4 states that were there after a second", w.asked)
		}
	})
}

func TestAStateMayComeBackBeforeItsWritingIsAnswered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, _ := newWorld(t, "")
		w.watch, w.answer = 0, 5*time.Second
		defer w.start(t)()
		time.Sleep(30 * time.Second)
		w.want(t, 0, 6)
	})
}

func TestTheEventGoesOnInAnotherReplica(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, _ := newWorld(t, "hindsight-1")
		w.event = &corev1.Event{ObjectMeta: metav1.ObjectMeta{ResourceVersion: "7"}, Count: 41, InvolvedObject: corev1.ObjectReference{Kind: "Pod", Name: "hindsight-0"}}
		w.version = 7
		stop := w.start(t)
		time.Sleep(30 * time.Second)
		stop()
		if w.event.Count != 42 || w.event.InvolvedObject.Name != "hindsight-1" {
			t.Errorf("the Event is %+v", w.event)
		}
	})
}

func TestAnExpiredEventIsMadeAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, log := newWorld(t, "")
		defer w.start(t)()
		time.Sleep(90 * time.Second)
		w.set(func() { w.event = nil })
		time.Sleep(time.Minute)
		w.want(t, 0.5, 2)
		if w.event == nil || w.event.Count != 1 || w.event.InvolvedObject.Kind != "Namespace" {
			t.Errorf("the Event is %+v", w.event)
		}
		if strings.Contains(said(log), "WARN") {
			t.Errorf("an Event that expired is no fault:\n%s", log)
		}
	})
}

func TestASilentWatchIsSeen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, log := newWorld(t, "")
		defer w.start(t)()
		time.Sleep(90 * time.Second)
		w.set(func() { w.watch = -1 })
		time.Sleep(10 * time.Minute) // the first that is missing was written after 2 minutes
		w.want(t, 570, 570)
		if n := strings.Count(said(log), "the canary has not arrived"); n != 2 {
			t.Errorf("%d lines about it, want one a stage:\n%s", n, log)
		}
		w.set(func() { w.watch = 500 * time.Millisecond })
		time.Sleep(time.Minute)
		w.want(t, 0.5, 2)
		if n := strings.Count(said(log), "the canary arrives again"); n != 2 {
			t.Errorf("%d lines about the recovery, want one a stage:\n%s", n, log)
		}
	})
}

func TestALokiThatIsLateIsSeenAndCatchesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, log := newWorld(t, "")
		w.store = 5 * time.Minute
		defer w.start(t)()
		time.Sleep(20*time.Minute + 30*time.Second)
		w.want(t, 0.5, 302)
		w.set(func() { w.store = time.Second })
		time.Sleep(time.Minute)
		w.want(t, 0.5, 2)
		if log := said(log); strings.Count(log, "the canary has not arrived") != 1 || strings.Count(log, "the canary arrives again") != 1 {
			t.Errorf("want one line about it and one about the recovery:\n%s", log)
		}
	})
}

func TestALokiThatCannotBeAskedIsSaid(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, log := newWorld(t, "")
		w.broken = true
		defer w.start(t)()
		time.Sleep(10 * time.Minute)
		w.want(t, 0.5, 600)
		if log := said(log); strings.Count(log, "loki answers 401 Unauthorized") != 1 || strings.Contains(log, "secret") {
			t.Errorf("want one line that says why, without the password:\n%s", log)
		}
		w.set(func() { w.broken = false })
		time.Sleep(30 * time.Second)
		if log := said(log); strings.Count(log, "can be looked for again") != 1 {
			t.Errorf("want one line about the recovery:\n%s", log)
		}
	})
}

func TestMissingPermissionIsSaidAndWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, log := newWorld(t, "")
		w.deny = true
		defer w.start(t)()
		time.Sleep(5*time.Minute + 30*time.Second)
		w.want(t, 330, 330)
		if log := said(log); strings.Count(log, "grant get, create and patch on events in namespace monitoring") != 1 {
			t.Errorf("want one line that says what to do:\n%s", log)
		}
		if n := len(w.requests); n != 6 {
			t.Errorf("%d requests in five minutes, want one a minute", n)
		}
		w.set(func() { w.deny = false })
		time.Sleep(time.Minute)
		if log := said(log); strings.Count(log, "can be written again") != 1 {
			t.Errorf("want one line about the recovery:\n%s", log)
		}
		time.Sleep(time.Minute)
		w.want(t, 0.5, 2)
	})
}

func TestOtherEventsAreNotTheCanary(t *testing.T) {
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
			w.canary.Seen(&event.Record{Event: e})
		}
		time.Sleep(29 * time.Second)
		w.want(t, 30, 30)
	})
}
