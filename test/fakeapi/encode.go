package fakeapi

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
)

// Object is an API object that can be encoded in protobuf.
type Object interface{ Marshal() ([]byte, error) }

// typeOf returns the API version and kind that an encoded object carries.
func typeOf(o Object) metav1.TypeMeta {
	switch o.(type) {
	case *corev1.EventList:
		return metav1.TypeMeta{APIVersion: "v1", Kind: "EventList"}
	case *corev1.Namespace:
		return metav1.TypeMeta{APIVersion: "v1", Kind: "Namespace"}
	case *metav1.Status:
		return metav1.TypeMeta{APIVersion: "v1", Kind: "Status"}
	case *coordinationv1.Lease:
		return metav1.TypeMeta{APIVersion: "coordination.k8s.io/v1", Kind: "Lease"}
	default:
		return metav1.TypeMeta{APIVersion: "v1", Kind: "Event"}
	}
}

// Encode encodes an object as API servers do: in JSON, or in protobuf with its prefix. Types other
// than those above are encoded as an Event.
func Encode(o Object, asJSON bool) []byte {
	meta := typeOf(o)
	if asJSON {
		values := map[string]any{}
		if err := json.Unmarshal(must(json.Marshal(o)), &values); err != nil {
			panic(err)
		}
		values["kind"], values["apiVersion"] = meta.Kind, meta.APIVersion
		return must(json.Marshal(values))
	}
	unknown := runtime.Unknown{TypeMeta: runtime.TypeMeta{APIVersion: meta.APIVersion, Kind: meta.Kind}, Raw: must(o.Marshal())}
	return append([]byte("k8s\x00"), must(unknown.Marshal())...)
}

// EncodeFrame encodes a message of a watch.
func EncodeFrame(kind watch.EventType, o Object, asJSON bool) []byte {
	raw := Encode(o, asJSON)
	if asJSON {
		return must(json.Marshal(map[string]any{"type": kind, "object": json.RawMessage(raw)}))
	}
	frame := must((&metav1.WatchEvent{Type: string(kind), Object: runtime.RawExtension{Raw: raw}}).Marshal())
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(frame))), frame...)
}

// Respond answers a request with an object, in the encoding that the client accepts.
func Respond(w http.ResponseWriter, r *http.Request, code int, o Object) {
	w.Header().Set("Content-Type", contentType(r))
	w.WriteHeader(code)
	_, _ = w.Write(Encode(o, wantsJSON(r)))
}

// Fail answers with a Status.
func Fail(w http.ResponseWriter, r *http.Request, code int, message string) {
	Respond(w, r, code, Status(code, message))
}

// Status returns the Status of a failure.
func Status(code int, message string) *metav1.Status {
	return &metav1.Status{Status: metav1.StatusFailure, Code: int32(code), Reason: reason(code), Message: message}
}

func reason(code int) metav1.StatusReason {
	switch code {
	case http.StatusForbidden:
		return metav1.StatusReasonForbidden
	case http.StatusUnauthorized:
		return metav1.StatusReasonUnauthorized
	case http.StatusNotFound:
		return metav1.StatusReasonNotFound
	case http.StatusGone:
		return metav1.StatusReasonExpired
	case http.StatusConflict:
		return metav1.StatusReasonConflict
	default:
		return metav1.StatusReason("Code" + strconv.Itoa(code))
	}
}

// SendFrame sends a message of a watch at once.
func SendFrame(w http.ResponseWriter, r *http.Request, kind watch.EventType, o Object) {
	_, _ = w.Write(EncodeFrame(kind, o, wantsJSON(r)))
	_ = http.NewResponseController(w).Flush()
}

func wantsJSON(r *http.Request) bool {
	return !strings.Contains(r.Header.Get("Accept"), runtime.ContentTypeProtobuf)
}

func contentType(r *http.Request) string {
	if wantsJSON(r) {
		return runtime.ContentTypeJSON
	}
	return runtime.ContentTypeProtobuf
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(fmt.Sprintf("fakeapi: %v", err))
	}
	return v
}
