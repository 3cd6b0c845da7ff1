package format

import (
	"reflect"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/hindsight-events/hindsight/event"
)

// checkMarshaled checks that the line has the Event as encoding/json encodes it.
func checkMarshaled(t *testing.T, e *corev1.Event) {
	t.Helper()
	r := event.Record{Event: e}
	got := string(Encoder{Format: EventRouter}.Append(nil, &r))
	want := `{"verb":"` + verb(&r) + `","event":` + string(appendMarshaled(nil, e)) + `}`
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// All fields of an Event are compared, also those that a later version of the API adds.
func TestEventRouterLinesAreThoseOfEncodingJSON(t *testing.T) {
	for _, dir := range caseDirs(t) {
		e := readEvent(t, dir)
		checkMarshaled(t, e)
		e.ManagedFields = nil
		checkMarshaled(t, e)
	}
	e := &corev1.Event{}
	fields := 0
	eachSet(t, reflect.ValueOf(e).Elem(), "Event", func(path string) {
		fields++
		t.Run(path, func(t *testing.T) { checkMarshaled(t, e) })
	})
	if fields < 40 {
		t.Errorf("only %d fields were set", fields)
	}
	if !reflect.DeepEqual(e, &corev1.Event{}) {
		t.Errorf("fields are still set: %v", e)
	}
}

// eachSet calls check for each field of v, with only that field set.
func eachSet(t *testing.T, v reflect.Value, path string, check func(path string)) {
	t.Helper()
	defer v.SetZero()
	at := time.Date(2026, 3, 6, 14, 5, 44, 123456789, time.FixedZone("", 3600))
	switch {
	case v.Type() == reflect.TypeFor[metav1.Time]():
		v.Set(reflect.ValueOf(metav1.Time{Time: at}))
	case v.Type() == reflect.TypeFor[metav1.MicroTime]():
		v.Set(reflect.ValueOf(metav1.MicroTime{Time: at}))
	case v.Kind() == reflect.Struct:
		for i := range v.NumField() {
			eachSet(t, v.Field(i), path+"."+v.Type().Field(i).Name, check)
		}
		return
	case v.Kind() == reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		check(path)
		eachSet(t, v.Elem(), path, check)
		return
	case v.Kind() == reflect.String:
		v.SetString("<a>")
	case v.CanInt():
		v.SetInt(-7)
	case v.Kind() == reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
	case v.Kind() == reflect.Map:
		v.Set(reflect.ValueOf(map[string]string{"<a>": "<b>"}))
	default:
		t.Fatalf("%s is a %s, which this test cannot set", path, v.Type())
	}
	check(path)
}

func FuzzEventRouter(f *testing.F) {
	f.Add("Back-off restarting failed container", "BackOff", "pod-1", "node-7", int64(1772805943e6), int64(0), int32(3))
	f.Add("a\nb=\"c\"\\ <&>\x1b[2J\x00\b\f\t\r\x7f\u0085\u2028\u202e\ufffd\xff\xc3", "\U0001F600", "\xed\xa0\x80", "漢字", int64(1), int64(-1), int32(-1))
	f.Fuzz(func(t *testing.T, message, reason, name, node string, first, last int64, count int32) {
		e := &corev1.Event{
			ObjectMeta: metav1.ObjectMeta{
				Namespace: node, Name: name, UID: types.UID(reason), ResourceVersion: reason,
				CreationTimestamp: fuzzTime(first / 1e6),
			},
			InvolvedObject: corev1.ObjectReference{Kind: reason, Name: name, FieldPath: node},
			Reason:         reason, Message: message, Type: node, Action: name, Count: count,
			Source:              corev1.EventSource{Component: name, Host: node},
			FirstTimestamp:      fuzzTime(first / 1e6),
			LastTimestamp:       fuzzTime(last / 1e6),
			EventTime:           fuzzMicroTime(last),
			ReportingController: name, ReportingInstance: node,
		}
		if count%2 != 0 {
			e.Series = &corev1.EventSeries{Count: count, LastObservedTime: fuzzMicroTime(first)}
			e.Related = &corev1.ObjectReference{APIVersion: message, UID: types.UID(node), ResourceVersion: name}
		}
		checkMarshaled(t, e)
	})
}

func TestVerb(t *testing.T) {
	for _, tt := range []struct {
		name  string
		event *corev1.Event
		want  string
	}{
		{"the first of a core recorder", &corev1.Event{Count: 1}, "ADDED"},
		{"a count", &corev1.Event{Count: 2}, "UPDATED"},
		{"the first of an events.k8s.io recorder", &corev1.Event{}, "ADDED"},
		{"a series", &corev1.Event{Series: &corev1.EventSeries{}}, "UPDATED"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := verb(&event.Record{Event: tt.event}); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

// fuzzTime returns a time up to the year 9999, the last one in JSON.
func fuzzTime(seconds int64) metav1.Time {
	const year1, years = -62135596800, 253402300800 + 62135596800
	if seconds == 0 {
		return metav1.Time{}
	}
	return metav1.Time{Time: time.Unix(year1+int64(uint64(seconds)%years), 0)}
}

func fuzzMicroTime(micros int64) metav1.MicroTime {
	t := fuzzTime(micros / 1e6)
	if t.IsZero() {
		return metav1.MicroTime{}
	}
	return metav1.MicroTime{Time: t.Add(time.Duration(uint64(micros)%1e6) * time.Microsecond)}
}
