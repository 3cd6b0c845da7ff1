package watch

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	apiwatch "k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"
)

// api is an API server that knows Events, with the history that etcd would keep
// of them. Connections to it are pipes, so that it can be used in the bubble of
// a synctest.
type api struct {
	t      testing.TB
	conns  chan net.Conn
	closed chan struct{}

	mu        sync.Mutex
	uid       types.UID // of kube-system; empty: forbidden
	padding   string    // of every message
	history   []change
	version   uint64
	compacted uint64
	changed   chan struct{} // closed when the history grows
	requests  []string

	// intercept may answer a request instead, and then returns true.
	intercept func(w http.ResponseWriter, r *http.Request) bool
}

type change struct {
	version uint64
	kind    apiwatch.EventType
	event   *corev1.Event
}

func newAPI(t testing.TB) *api {
	a := &api{t: t, conns: make(chan net.Conn), closed: make(chan struct{}), uid: "uid-a", version: 100, changed: make(chan struct{})}
	server := &http.Server{Handler: a, ErrorLog: log.New(io.Discard, "", 0)}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Serve(a)
	}()
	t.Cleanup(func() {
		close(a.closed)
		_ = server.Close()
		<-done
	})
	return a
}

func (a *api) Accept() (net.Conn, error) {
	select {
	case c := <-a.conns:
		return c, nil
	case <-a.closed:
		return nil, net.ErrClosed
	}
}

func (a *api) Close() error   { return nil }
func (a *api) Addr() net.Addr { return &net.TCPAddr{} }

// client returns a client of the server, as a program would make it.
func (a *api) client() *rest.RESTClient {
	transport := &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			near, far := net.Pipe()
			select {
			case a.conns <- far:
				return near, nil
			case <-a.closed:
				return nil, net.ErrClosed
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		},
	}
	a.t.Cleanup(transport.CloseIdleConnections)
	client, err := NewClient(&rest.Config{Host: "http://api", Transport: transport})
	if err != nil {
		a.t.Fatal(err)
	}
	return client
}

// write makes a new state of the Event of that name, and returns its version.
func (a *api) write(name string) uint64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := metav1.NewTime(time.Now().Truncate(time.Second))
	e := &corev1.Event{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, UID: types.UID("uid-" + name), CreationTimestamp: now},
		Reason:     "Written", Message: "message of " + name + a.padding, Count: 1,
		FirstTimestamp: now, LastTimestamp: now,
	}
	kind := apiwatch.Added
	if last := a.stateAt(name, a.version); last != nil {
		kind = apiwatch.Modified
		e.CreationTimestamp, e.FirstTimestamp, e.Count = last.CreationTimestamp, last.FirstTimestamp, last.Count+1
	}
	e.ManagedFields = []metav1.ManagedFieldsEntry{{Manager: "test", Time: &now}}
	return a.change(kind, e)
}

// remove deletes an Event.
func (a *api) remove(name string) uint64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.change(apiwatch.Deleted, a.stateAt(name, a.version).DeepCopy())
}

// touch is a write of something that is no Event.
func (a *api) touch(n uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.version += n
}

func (a *api) change(kind apiwatch.EventType, e *corev1.Event) uint64 {
	a.version++
	e.ResourceVersion = strconv.FormatUint(a.version, 10)
	a.history = append(a.history, change{a.version, kind, e})
	close(a.changed)
	a.changed = make(chan struct{})
	return a.version
}

// compact forgets how the present state came about.
func (a *api) compact() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.compacted = a.version
}

// restore goes back to an earlier state.
func (a *api) restore(version uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.version, a.compacted = version, min(a.compacted, version)
	a.history = slices.DeleteFunc(a.history, func(c change) bool { return c.version > version })
}

func (a *api) stateAt(name string, version uint64) *corev1.Event {
	for _, c := range slices.Backward(a.history) {
		if c.version > version || c.event.Name != name {
			continue
		}
		if c.kind == apiwatch.Deleted {
			return nil
		}
		return c.event
	}
	return nil
}

func (a *api) set(f func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	f()
}

// asked returns how many requests contained all of the given parts.
func (a *api) asked(parts ...string) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	n := 0
next:
	for _, r := range a.requests {
		for _, part := range parts {
			if !strings.Contains(r, part) {
				continue next
			}
		}
		n++
	}
	return n
}

func (a *api) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	a.requests = append(a.requests, r.URL.RequestURI())
	intercept := a.intercept
	a.mu.Unlock()
	if intercept != nil && intercept(w, r) {
		return
	}
	switch {
	case r.URL.Path == "/api/v1/namespaces/kube-system":
		a.mu.Lock()
		uid := a.uid
		a.mu.Unlock()
		if uid == "" {
			a.fail(w, http.StatusForbidden, "namespaces is forbidden")
			return
		}
		_ = json.NewEncoder(w).Encode(corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "kube-system", UID: uid}})
	case r.URL.Path != "/api/v1/events" && r.URL.Path != "/api/v1/namespaces/default/events":
		a.fail(w, http.StatusNotFound, "no such path")
	case r.URL.Query().Get("watch") != "":
		a.serveWatch(w, r)
	default:
		a.serveList(w, r)
	}
}

func (a *api) serveList(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	defer a.mu.Unlock()
	q := r.URL.Query()
	limit, _ := strconv.Atoi(q.Get("limit"))
	at, after := a.version, ""
	if v := q.Get("resourceVersion"); v != "" {
		at, _ = strconv.ParseUint(v, 10, 64)
	}
	if token := q.Get("continue"); token != "" {
		var version string
		version, after, _ = strings.Cut(token, ":")
		if version != "-" {
			at, _ = strconv.ParseUint(version, 10, 64)
		}
	}
	if at > a.version {
		s := newStatus(http.StatusGatewayTimeout, "Too large resource version")
		s.Details = &metav1.StatusDetails{RetryAfterSeconds: 1, Causes: []metav1.StatusCause{{Type: metav1.CauseTypeResourceVersionTooLarge}}}
		a.send(w, http.StatusGatewayTimeout, s, "Status")
		return
	}
	if at < a.compacted {
		s := newStatus(http.StatusGone, "the version is too old")
		if after != "" {
			s.Continue = "-:" + after
		}
		a.send(w, http.StatusGone, s, "Status")
		return
	}

	names := map[string]bool{}
	for _, c := range a.history {
		names[c.event.Name] = true
	}
	sorted := make([]string, 0, len(names))
	for name := range names {
		if name > after && a.stateAt(name, at) != nil {
			sorted = append(sorted, name)
		}
	}
	slices.Sort(sorted)
	list := &corev1.EventList{ListMeta: metav1.ListMeta{ResourceVersion: strconv.FormatUint(at, 10)}}
	if limit > 0 && len(sorted) > limit {
		sorted = sorted[:limit]
		list.Continue = fmt.Sprintf("%d:%s", at, sorted[limit-1])
	}
	for _, name := range sorted {
		list.Items = append(list.Items, *a.stateAt(name, at))
	}
	a.send(w, http.StatusOK, list, "EventList")
}

func (a *api) serveWatch(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	from, _ := strconv.ParseUint(q.Get("resourceVersion"), 10, 64)
	seconds, _ := strconv.Atoi(q.Get("timeoutSeconds"))
	ctx, cancel := context.WithTimeout(r.Context(), time.Duration(seconds)*time.Second)
	defer cancel()
	flush(w)
	a.mu.Lock()
	tooOld := from < a.compacted
	a.mu.Unlock()
	if tooOld {
		a.frame(w, apiwatch.Error, newStatus(http.StatusGone, "too old resource version"))
		return
	}
	for {
		a.mu.Lock()
		changed := a.changed
		var news []change
		for _, c := range a.history {
			if c.version > from {
				news = append(news, c)
				from = c.version
			}
		}
		a.mu.Unlock()
		for _, c := range news {
			e := c.event.DeepCopy()
			e.ResourceVersion = strconv.FormatUint(c.version, 10)
			a.frame(w, c.kind, e)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return
		case <-a.closed:
			return
		}
	}
}

func newStatus(code int32, message string) *metav1.Status {
	return &metav1.Status{Status: metav1.StatusFailure, Code: code, Reason: metav1.StatusReason("Code" + strconv.Itoa(int(code))), Message: message}
}

func (a *api) fail(w http.ResponseWriter, code int32, message string) {
	a.send(w, int(code), newStatus(code, message), "Status")
}

// send answers with an object.
func (a *api) send(w http.ResponseWriter, code int, o protobufObject, kind string) {
	body := a.encode(o, kind)
	w.Header().Set("Content-Type", runtime.ContentTypeProtobuf)
	w.WriteHeader(code)
	_, _ = w.Write(body)
}

func (a *api) frame(w http.ResponseWriter, kind apiwatch.EventType, o protobufObject) {
	_, _ = w.Write(a.encodeFrame(kind, o))
	w.(http.Flusher).Flush()
}

func (a *api) encode(o protobufObject, kind string) []byte {
	return must((&protobufAnswer{kind, o}).encode())
}

func (a *api) encodeFrame(kind apiwatch.EventType, o protobufObject) []byte {
	name := "Event"
	if kind == apiwatch.Error {
		name = "Status"
	}
	raw := a.encode(o, name)
	frame := must((&metav1.WatchEvent{Type: string(kind), Object: runtime.RawExtension{Raw: raw}}).Marshal())
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(frame))), frame...)
}

// protobufObject is an API object that can be encoded as protobuf.
type protobufObject interface{ Marshal() ([]byte, error) }

// protobufAnswer is an object as API servers send it.
type protobufAnswer struct {
	kind   string
	object protobufObject
}

func (p *protobufAnswer) encode() ([]byte, error) {
	raw, err := p.object.Marshal()
	if err != nil {
		return nil, err
	}
	unknown := runtime.Unknown{TypeMeta: runtime.TypeMeta{APIVersion: "v1", Kind: p.kind}, Raw: raw}
	b, err := unknown.Marshal()
	return append([]byte(protobufPrefix), b...), err
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}
