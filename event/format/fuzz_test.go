package format

import (
	"bytes"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/hindsight-events/hindsight/event"
)

// FuzzEncode decodes the lines of any Event.
func FuzzEncode(f *testing.F) {
	f.Add("Back-off restarting failed container", "BackOff", "pod-1", "Pod", "kubelet", "node-7", "uid", int32(3))
	f.Add("a\nb=\"c\"\\ \x1b[2J\x00\x7f\u0085\u2028\u202e\u2066\ufffd\xff\xc3", "a b", "=", "\"", "\\", "\u200f", "\r", int32(-1))
	f.Fuzz(func(t *testing.T, message, reason, name, kind, component, node, uid string, count int32) {
		r := event.New(&corev1.Event{
			ObjectMeta: metav1.ObjectMeta{
				Namespace: kind, Name: name, UID: types.UID(uid), ResourceVersion: uid,
				CreationTimestamp: metav1.Time{Time: time.Unix(int64(count), 0)},
				Annotations:       map[string]string{"k": message, "hindsight/cause": reason},
			},
			InvolvedObject: corev1.ObjectReference{
				Kind: kind, Name: name, UID: types.UID(uid), APIVersion: component, FieldPath: node, ResourceVersion: reason,
			},
			Reason: reason, Message: message, Type: kind, Action: name, Count: count,
			Source:              corev1.EventSource{Component: component, Host: node},
			ReportingController: component, ReportingInstance: node,
			Related: &corev1.ObjectReference{Kind: kind, Namespace: node, Name: name, UID: types.UID(uid)},
		})
		r.Decisions[0] = event.LabelDecision{Set: event.DefaultLabels, Kept: event.LabelNamespace}
		r.Gap = count%2 == 0
		checkEncodings(t, &r)
		checkShortLines(t, "fuzzed", r)
		for _, p := range r.AppendMetadata(nil, event.DefaultLabels) {
			checkValid(t, p.Name, p.Value)
		}
		for _, f := range event.LabelFields {
			checkValid(t, f.String(), r.Label(f, event.LabelSetOf(event.LabelFields...)))
		}
	})
}

func checkValid(t *testing.T, name, value string) {
	t.Helper()
	if value != strings.ToValidUTF8(value, "\uFFFD") {
		t.Errorf("%s=%q is not valid UTF-8", name, value)
	}
}

// FuzzEncodeStored checks that the lines of any record do not change after a round trip
// through the binary form.
func FuzzEncodeStored(f *testing.F) {
	for _, dir := range caseDirs(f) {
		r := event.New(readEvent(f, dir))
		b, err := r.AppendBinary(nil)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var r event.Record
		if err := r.UnmarshalBinary(data); err != nil {
			return
		}
		again := roundTrip(t, &r)
		for _, f := range formats {
			enc := Encoder{Format: f, Standalone: true}
			checkLine(t, enc.Append(nil, &r))
			if a, b := enc.Append(nil, &r), enc.Append(nil, &again); !bytes.Equal(a, b) {
				t.Errorf("%s\nbecomes\n%s", a, b)
			}
		}
	})
}

func roundTrip(t testing.TB, r *event.Record) (got event.Record) {
	t.Helper()
	b, err := r.AppendBinary(nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := got.UnmarshalBinary(b); err != nil {
		t.Fatal(err)
	}
	return got
}
