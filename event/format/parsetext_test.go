package format

import (
	"reflect"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/hindsight-events/hindsight/event"
)

func textRecord(namespace, eventType, reason, kind, name, message string, count int32, related *corev1.ObjectReference, observed time.Time) event.Record {
	r := event.NewReplayed(&corev1.Event{
		ObjectMeta:     metav1.ObjectMeta{Namespace: namespace, Name: "own", ResourceVersion: "7"},
		InvolvedObject: corev1.ObjectReference{Kind: kind, Name: name},
		Type:           eventType, Reason: reason, Message: message, Count: count, Related: related,
		LastTimestamp: metav1.Time{Time: time.Date(2026, 3, 6, 14, 0, 0, 0, time.UTC)},
	})
	r.ObservedTime = observed
	return r
}

func checkTextRoundTrip(t *testing.T, r *event.Record, standalone bool) {
	t.Helper()
	text := string(Encoder{Format: Text, Standalone: standalone}.Append(nil, r))
	got, ok := parseTextLine(text)
	if !ok {
		t.Fatalf("not read back:\n%s", text)
	}
	e := r.Event
	want := textLine{
		Standalone: standalone, Reason: valid(e.Reason),
		Kind: valid(e.InvolvedObject.Kind), Name: valid(e.InvolvedObject.Name),
		Message: valid(e.Message),
	}
	if want.Kind == "" && want.Name == "" {
		want.EventName = e.Name
	}
	if e.Related != nil {
		want.Related = valid(objectName(e.Related))
	}
	if standalone {
		want.Time, want.ObservedTime = r.Time, r.ObservedTime
		want.Namespace, want.Type = valid(e.Namespace), valid(e.Type)
		if e.Count > 1 {
			want.Count = e.Count
		}
		want.Attributes = r.Attributes
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%s\nis parsed as\n%+v, want\n%+v", text, got, want)
	}
}

// The line is unambiguous for any text in the Event.
func TestTextRoundTrip(t *testing.T) {
	odd := []string{
		"", " ", "Warning", "Normal", "a b", "a: b", "a:", ":", "a/b", "/", `"`, `"a"`, `\`, "a\nb", "Event", "(x2)", "x (x2)",
		"-", "é", "by x", "by", "Warning by x", "Warning: x", "2026-03-06T14:00:00Z", `{"verb":`, "time=1", "a (b/c)", "(observed at 2026-03-06T14:00:00Z, x)", `C:\new`, "\u202e", "\xff", "info",
	}
	for _, a := range odd {
		for _, b := range odd {
			for _, standalone := range []bool{true, false} {
				for _, r := range []event.Record{
					textRecord("shop", "Normal", a, "Pod", b, "a message", 1, nil, time.Time{}),
					textRecord("shop", a, b, "Pod", "web-0", "a message", 2, nil, time.Time{}),
					textRecord(a, "Warning", "BackOff", "Pod", "web-0", b, 0, nil, time.Time{}),
					textRecord("shop", "Warning", "BackOff", a, b, "", 3, &corev1.ObjectReference{Kind: "Node", Name: "n1"}, time.Time{}),
					textRecord("shop", "Warning", "", "Pod", a, b, 3, &corev1.ObjectReference{Kind: "Node", Name: b}, time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)),
				} {
					checkTextRoundTrip(t, &r, standalone)
				}
			}
		}
	}
}

// Common words need no quotes, and lines of earlier versions had none.
func TestTextOfEarlierVersions(t *testing.T) {
	at := time.Date(2026, 3, 6, 14, 0, 0, 0, time.UTC)
	for text, want := range map[string]textLine{
		"2026-03-06T14:00:00Z shop Warning Pod/web-0: reason unknown (x7)": {
			Standalone: true, Time: at, Namespace: "shop", Type: "Warning", Kind: "Pod", Name: "web-0", Message: "reason unknown", Count: 7,
		},
		"2026-03-06T14:00:00Z shop Killing Pod/web-0: token=x\\nand \\u001b[2J and C:\\users": {
			Standalone: true, Time: at, Namespace: "shop", Type: "Normal", Reason: "Killing", Kind: "Pod", Name: "web-0", Message: "token=x\nand \x1b[2J and C:\\users",
		},
		"Preempted Pod/web-0: by x":       {Reason: "Preempted", Kind: "Pod", Name: "web-0", Message: "Preempted by x"},
		"Created ClusterRole/system:node": {Reason: "Created", Kind: "ClusterRole", Name: "system:node"},
		"Started Pod/web-0: (x2)":         {Reason: "Started", Kind: "Pod", Name: "web-0", Message: "(x2)"},
	} {
		got, ok := parseTextLine(text)
		if !ok || !reflect.DeepEqual(got, want) {
			t.Errorf("%s\nis parsed as\n%+v, want\n%+v", text, got, want)
		}
	}
}

func TestForeignText(t *testing.T) {
	for _, text := range []string{
		"", "hello", "2026-03-06T14:00:00Z", "2026-03-06T14:00:00Z INFO setup/main.go:12 starting", "GET /a/b HTTP/1.1",
		"2026-03-06T14:00:00Z error app/server.go:33: failed", "2026-03-06T14:00:00Z\tINFO\tcontroller/controller.go:220\tStarting",
		"2026-03-06T14:00:00.123Z info Kustomization/apps: reconciled", "2026-03-06T14:00:00Z error Reconciler error Pod/a/b (x2)",
		`"a" "b" "c" "d" Pod/x`, `"a`, `Pod/`, `"a"Pod/x`, "Killing Pod/x and more",
	} {
		if s, ok := parseTextLine(text); ok {
			t.Errorf("%q is parsed as %+v", text, s)
		}
	}
}

// FuzzText checks the round trip of any Event as text.
func FuzzText(f *testing.F) {
	f.Add("shop", "Warning", "BackOff", "Pod", "web-0", "Back-off restarting", "n1", int32(3), true)
	f.Add("", "", "", "", "", `"`, " ", int32(0), true)
	f.Add("a b", "Warning", "Warning", "Event", "a:", "x (x2)", "(a/b)", int32(2), false)
	f.Fuzz(func(t *testing.T, namespace, eventType, reason, kind, name, message, related string, count int32, standalone bool) {
		for _, s := range []*string{&namespace, &eventType, &reason, &kind, &name, &message, &related} {
			*s = strings.ToValidUTF8(*s, "\uFFFD") // as in every line
		}
		r := textRecord(namespace, eventType, reason, kind, name, message, count, &corev1.ObjectReference{Kind: "Node", Name: related}, time.Time{})
		checkTextRoundTrip(t, &r, standalone)
		_, _ = parseTextLine(message) // any line at all
	})
}
