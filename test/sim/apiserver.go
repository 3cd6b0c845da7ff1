package main

import (
	"bufio"
	"cmp"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// apiServer is a simulated API server.
type apiServer struct {
	history  *history
	encoding *encoding

	mu      sync.Mutex // guards the following
	watches int
	opened  chan struct{} // closed when there is another watch
	listed  snapshot      // of which keys are
	keys    []int         // its states in the order of their keys
}

func newAPIServer(h *history, e *encoding) *apiServer {
	a := &apiServer{history: h, encoding: e, opened: make(chan struct{})}
	// The first list should not wait.
	present, _ := h.now()
	a.sorted(present)
	return a
}

// discovery are responses that clients other than Hindsight need.
var discovery = map[string]string{
	"/api":    `{"kind":"APIVersions","versions":["v1"],"serverAddressByClientCIDRs":[]}`,
	"/apis":   `{"kind":"APIGroupList","apiVersion":"v1","groups":[]}`,
	"/api/v1": `{"kind":"APIResourceList","groupVersion":"v1","resources":[{"name":"events","singularName":"event","namespaced":true,"kind":"Event","verbs":["get","list","watch"]}]}`,
}

func (a *apiServer) register(mux *http.ServeMux) {
	for path, body := range discovery {
		mux.HandleFunc("GET "+path, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", runtime.ContentTypeJSON)
			_, _ = w.Write([]byte(body))
		})
	}
	mux.HandleFunc("GET /api/v1/namespaces/kube-system", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", runtime.ContentTypeJSON)
		_ = json.NewEncoder(w).Encode(corev1.Namespace{
			TypeMeta:   metav1.TypeMeta{Kind: "Namespace", APIVersion: "v1"},
			ObjectMeta: metav1.ObjectMeta{Name: "kube-system", UID: "0d7f1a52-3c44-4a8e-9e7d-5b1f0c2a9d11"},
		})
	})
	mux.HandleFunc("GET /api/v1/events", func(w http.ResponseWriter, r *http.Request) {
		if !strings.Contains(r.Header.Get("Accept"), runtime.ContentTypeProtobuf) {
			fail(w, http.StatusNotAcceptable, metav1.Status{Reason: metav1.StatusReasonNotAcceptable, Message: "only protobuf is served"})
			return
		}
		if r.URL.Query().Get("sendInitialEvents") == "true" { // clients list then
			fail(w, http.StatusUnprocessableEntity, metav1.Status{Reason: metav1.StatusReasonInvalid, Message: "sendInitialEvents is forbidden"})
			return
		}
		if watch, _ := strconv.ParseBool(r.URL.Query().Get("watch")); watch {
			a.watch(w, r)
		} else {
			a.list(w, r)
		}
	})
}

// list answers with a page. A continue token is the version of the list and how
// many of its items came before.
func (a *apiServer) list(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	present, _ := a.history.now()
	from := 0
	if token := q.Get("continue"); token != "" {
		var length int
		if _, err := fmt.Sscanf(token, "%d.%d", &length, &from); err != nil || length > present.len() {
			fail(w, http.StatusBadRequest, metav1.Status{Message: "continue key is not valid"})
			return
		}
		present = present.until(length)
	} else if v, _ := strconv.Atoi(q.Get("resourceVersion")); v > firstVersion+present.len() {
		fail(w, http.StatusGatewayTimeout, metav1.Status{
			Message: "Too large resource version",
			Details: &metav1.StatusDetails{Causes: []metav1.StatusCause{{Type: metav1.CauseTypeResourceVersionTooLarge}}},
		})
		return
	} else if v > 0 && q.Get("resourceVersionMatch") == string(metav1.ResourceVersionMatchExact) {
		present = present.until(v - firstVersion)
	}

	keys := a.sorted(present)
	meta := metav1.ListMeta{ResourceVersion: strconv.Itoa(firstVersion + present.len())}
	page := keys[min(from, len(keys)):]
	if limit, _ := strconv.Atoi(q.Get("limit")); limit > 0 && len(page) > limit {
		page = page[:limit]
		left := int64(len(keys) - from - limit)
		meta.Continue, meta.RemainingItemCount = fmt.Sprintf("%d.%d", present.len(), from+limit), &left
	}
	out := bufio.NewWriterSize(w, 64<<10)
	defer out.Flush()
	w.Header().Set("Content-Type", runtime.ContentTypeProtobuf)
	writeList(out, a.encoding, present, page, meta)
}

// sorted returns the states that a list shows, in the order of their keys.
func (a *apiServer) sorted(s snapshot) []int {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.keys != nil && a.listed.len() == s.len() {
		return a.keys
	}
	type item struct {
		state, event, object int
	}
	items := make([]item, 0, s.len())
	for i := 1; i <= s.len(); i++ {
		if !s.gone(i) {
			event := s.state(i).event
			items = append(items, item{i, event, a.encoding.object(event)})
		}
	}
	slices.SortFunc(items, func(a, b item) int {
		return cmp.Or(cmp.Compare(a.object, b.object), cmp.Compare(a.event, b.event))
	})
	keys := make([]int, len(items))
	for i := range items {
		keys[i] = items[i].state
	}
	a.listed, a.keys = s, keys
	return keys
}

// until returns the history up to a state.
func (s snapshot) until(length int) snapshot {
	s.written = s.written[:min(max(length-s.backlog, 0), len(s.written))]
	return s
}

// Answers in protobuf are a prefix and a runtime.Unknown, which holds the object:
// https://github.com/kubernetes/apimachinery/blob/v0.37.0/pkg/runtime/serializer/protobuf/protobuf.go
const (
	protobufPrefix  = "k8s\x00"
	unknownTypeMeta = 1
	unknownRaw      = 2
	listMetadata    = 1
	listItems       = 2
)

func typeMeta(kind string) []byte {
	b, _ := (&runtime.TypeMeta{APIVersion: "v1", Kind: kind}).Marshal() // of two strings
	return b
}

func appendField(dst []byte, number protowire.Number, value []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(dst, number, protowire.BytesType), value)
}

// fieldSize is how long a field of the messages above is. Their numbers take a
// byte.
func fieldSize(length int) int { return 1 + protowire.SizeBytes(length) }

func writeList(out *bufio.Writer, enc *encoding, s snapshot, page []int, meta metav1.ListMeta) {
	encoded, _ := meta.Marshal() // of strings and a number
	size := fieldSize(len(encoded))
	for _, i := range page {
		size += fieldSize(enc.size(s.state(i)))
	}
	head := appendField([]byte(protobufPrefix), unknownTypeMeta, typeMeta("EventList"))
	head = protowire.AppendTag(head, unknownRaw, protowire.BytesType)
	head = protowire.AppendVarint(head, uint64(size))
	_, _ = out.Write(appendField(head, listMetadata, encoded))
	var item []byte
	for _, i := range page {
		st := s.state(i)
		item = protowire.AppendTag(item[:0], listItems, protowire.BytesType)
		item = protowire.AppendVarint(item, uint64(enc.size(st)))
		if _, err := out.Write(enc.append(item, st)); err != nil {
			return
		}
	}
}

// watch sends every state after a version, until the requested timeout.
func (a *apiServer) watch(w http.ResponseWriter, r *http.Request) {
	a.count(1)
	defer a.count(-1)
	q := r.URL.Query()
	version, _ := strconv.Atoi(q.Get("resourceVersion"))
	sent := max(version-firstVersion, 0)
	ctx := r.Context()
	if seconds, _ := strconv.Atoi(q.Get("timeoutSeconds")); seconds > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Duration(seconds)*time.Second)
		defer cancel()
	}
	w.Header().Set("Content-Type", runtime.ContentTypeProtobuf+";stream=watch")
	out := bufio.NewWriterSize(w, 64<<10)
	flush := http.NewResponseController(w)
	var frame []byte
	for {
		present, changed := a.history.now()
		for ; sent < present.len(); sent++ {
			frame = a.encoding.appendFrame(frame[:0], present.state(sent+1))
			if _, err := out.Write(frame); err != nil {
				return
			}
		}
		if out.Flush() != nil || flush.Flush() != nil {
			return
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

// count keeps the number of open watches.
func (a *apiServer) count(n int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.watches += n
	close(a.opened)
	a.opened = make(chan struct{})
}

// waitForWatches returns once that many are open.
func (a *apiServer) waitForWatches(ctx context.Context, n int) error {
	for {
		a.mu.Lock()
		watches, opened := a.watches, a.opened
		a.mu.Unlock()
		if watches >= n {
			return nil
		}
		select {
		case <-opened:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

var eventMeta = typeMeta("Event")

// appendFrame appends a message of a watch: its length in four bytes and a
// metav1.WatchEvent.
func (enc *encoding) appendFrame(dst []byte, s state) []byte {
	kind := "ADDED"
	if s.bumped {
		kind = "MODIFIED"
	}
	const watchType, watchObject, extensionRaw = 1, 2, 1
	object := enc.size(s)
	unknown := len(protobufPrefix) + fieldSize(len(eventMeta)) + fieldSize(object)
	raw := fieldSize(unknown)
	dst = binary.BigEndian.AppendUint32(dst, uint32(fieldSize(len(kind))+fieldSize(raw)))
	dst = appendField(dst, watchType, []byte(kind))
	dst = protowire.AppendTag(dst, watchObject, protowire.BytesType)
	dst = protowire.AppendVarint(dst, uint64(raw))
	dst = protowire.AppendTag(dst, extensionRaw, protowire.BytesType)
	dst = protowire.AppendVarint(dst, uint64(unknown))
	dst = append(dst, protobufPrefix...)
	dst = appendField(dst, unknownTypeMeta, eventMeta)
	dst = protowire.AppendTag(dst, unknownRaw, protowire.BytesType)
	dst = protowire.AppendVarint(dst, uint64(object))
	return enc.append(dst, s)
}

// fail answers with a Status, in JSON as API servers do where nothing else was
// agreed on.
func fail(w http.ResponseWriter, code int, s metav1.Status) {
	s.TypeMeta = metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}
	s.Status, s.Code = metav1.StatusFailure, int32(code)
	w.Header().Set("Content-Type", runtime.ContentTypeJSON)
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(s)
}
