package event

import (
	"bytes"
	"reflect"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestDecodeEqualsUnmarshal(t *testing.T) {
	now := metav1.Unix(1772805943, 0)
	earlier := metav1.Unix(1772805000, 0)
	reference := corev1.ObjectReference{
		Kind: "Pod", Namespace: "team-a", Name: "ingester-0", UID: "uid", APIVersion: "v1", ResourceVersion: "77", FieldPath: "spec.containers{app}",
	}
	full := corev1.Event{
		ObjectMeta: metav1.ObjectMeta{
			Name: "ingester-0.17f", GenerateName: "g", Namespace: "team-a", UID: "event-uid",
			ResourceVersion: "12", Generation: 3, CreationTimestamp: earlier,
		},
		InvolvedObject: reference, Related: &reference,
		Reason: "BackOff", Message: "müde", Type: "Warning", Action: "Pulling", Count: -4,
		Source:         corev1.EventSource{Component: "kubelet", Host: "node-7"},
		FirstTimestamp: earlier, LastTimestamp: now, EventTime: metav1.NewMicroTime(now.Add(48377 * time.Microsecond)),
		Series:              &corev1.EventSeries{Count: 9, LastObservedTime: metav1.NewMicroTime(now.Time)},
		ReportingController: "c", ReportingInstance: "i",
	}
	labelled := *full.DeepCopy()
	labelled.Labels = map[string]string{"a": "b"}
	labelled.ManagedFields = []metav1.ManagedFieldsEntry{{Manager: "m", Time: &earlier}, {Manager: "n", Time: &now}}
	for name, e := range map[string]*corev1.Event{
		"nothing":           {},
		"all common fields": &full,
		"labels":            &labelled,
	} {
		t.Run(name, func(t *testing.T) {
			b, err := e.Marshal()
			if err != nil {
				t.Fatal(err)
			}
			checkDecode(t, b)
		})
	}
	for _, dir := range caseDirs(t) {
		b, err := readEvent(t, dir).Marshal()
		if err != nil {
			t.Fatal(err)
		}
		checkDecode(t, b)
	}
}

// FuzzDecode compares Decode with Unmarshal.
func FuzzDecode(f *testing.F) {
	for _, dir := range caseDirs(f) {
		b, err := readEvent(f, dir).Marshal()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) { checkDecode(t, b) })
}

// checkDecode compares Decode with Unmarshal, except for managedFields, of which only the
// newest time counts. Decode accepts some malformed input that Unmarshal rejects.
func checkDecode(t *testing.T, b []byte) {
	t.Helper()
	want := &corev1.Event{}
	if err := want.Unmarshal(b); err != nil {
		_, _ = Decode(b)
		return
	}
	var buffer DecodeBuffer
	if _, err := buffer.Decode(commonEvent(t)); err != nil {
		t.Fatal(err)
	}
	for name, decode := range map[string]func([]byte) (*corev1.Event, error){"Decode": Decode, "DecodeBuffer.Decode": buffer.Decode} {
		again := bytes.Clone(b)
		got, err := decode(again)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		clear(again)
		checkEvent(t, name, got, want.DeepCopy())
	}
}

// commonEvent has the fields that recorders write.
func commonEvent(t testing.TB) []byte {
	t.Helper()
	b, err := readEvent(t, "testdata/core-recorder-counted").Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func checkEvent(t *testing.T, name string, got, want *corev1.Event) {
	t.Helper()
	if !managedTime(got).Equal(managedTime(want)) {
		t.Errorf("%s: the newest time is %v, want %v", name, managedTime(got), managedTime(want))
	}
	if len(got.ManagedFields) > 1 {
		t.Errorf("%s: %d managedFields are left", name, len(got.ManagedFields))
	}
	got.ManagedFields, want.ManagedFields = nil, nil
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%s: got  %+v\nwant %+v", name, got, want)
	}
}

func BenchmarkDecode(b *testing.B) {
	data := commonEvent(b)
	var buffer DecodeBuffer
	for _, bench := range []struct {
		name   string
		decode func([]byte) (*corev1.Event, error)
	}{{"new", Decode}, {"buffer", buffer.Decode}} {
		b.Run(bench.name, func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(len(data)))
			for b.Loop() {
				if _, err := bench.decode(data); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
