package event

import (
	"bytes"
	"encoding/json"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// FuzzUnmarshalBinary checks the round trip of any record that can be read.
func FuzzUnmarshalBinary(f *testing.F) {
	for _, dir := range caseDirs(f) {
		r := New(readEvent(f, dir))
		r.Source, r.OnlySink = "team-a", "loki"
		r.Position.Epoch = Epoch{Cluster: "8d1c9c9e", Restores: 1}
		b, err := r.AppendBinary(nil)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var r Record
		if err := r.UnmarshalBinary(data); err != nil {
			return
		}
		checkReader(t, data, &r)
		first, err := r.AppendBinary(nil)
		if err != nil {
			t.Fatal(err)
		}
		again := roundTrip(t, &r)
		second, err := again.AppendBinary(nil)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(first, second) {
			t.Errorf("%+v\nis read back as\n%+v", r, again)
		}
	})
}

// FuzzTime checks that times are within the bounds of the API server's clock, and do not
// depend on the encoding.
func FuzzTime(f *testing.F) {
	f.Add(int64(1772805943), int64(1772805943e6), int64(1772805943e6), int64(1772805944), int64(1772805731), uint32(48377), int32(3))
	f.Add(int64(0), int64(0), int64(1), int64(-1), int64(253402300799), uint32(1), int32(0))
	f.Fuzz(func(t *testing.T, last, series, event, written, created int64, version uint32, count int32) {
		v := int64(version)
		e := &corev1.Event{
			ObjectMeta: metav1.ObjectMeta{
				ResourceVersion:   versionString(uint64(v)),
				CreationTimestamp: fuzzTime(created),
				ManagedFields:     []metav1.ManagedFieldsEntry{{}},
			},
			LastTimestamp: fuzzTime(last), EventTime: fuzzMicroTime(event), Count: count,
		}
		if series != 0 {
			e.Series = &corev1.EventSeries{LastObservedTime: fuzzMicroTime(series)}
		}
		if at := fuzzTime(written); !at.IsZero() {
			e.ManagedFields[0].Time = &at
		}
		fromJSON, fromProto := &corev1.Event{}, &corev1.Event{}
		if b, err := json.Marshal(e); err != nil {
			t.Fatal(err)
		} else if err := json.Unmarshal(b, fromJSON); err != nil {
			t.Fatal(err)
		}
		if b, err := e.Marshal(); err != nil {
			t.Fatal(err)
		} else if err := fromProto.Unmarshal(b); err != nil {
			t.Fatal(err)
		}

		r := New(e.DeepCopy())
		if a, b := everything(t, New(fromJSON)), everything(t, New(fromProto)); a != b || a != everything(t, r) {
			t.Errorf("from JSON:\n%s\nfrom protobuf:\n%s", a, b)
		}
		if again := roundTrip(t, &r); everything(t, again) != everything(t, r) {
			t.Errorf("after the journal:\n%s\nbefore:\n%s", everything(t, again), everything(t, r))
		}
		server := r.Position.Time
		if server.IsZero() {
			return
		}
		if r.Time.Before(server.Add(-maxBehind)) || !r.Time.Before(server.Add(maxAhead+time.Second)) {
			t.Errorf("time %s is too far from the server time %s", r.Time, server)
		}
		if replayed := NewReplayed(e); r.ObservedTime.IsZero() && !r.Time.Equal(replayed.Time) {
			t.Errorf("time %s is not the observed %s, and ObservedTime is zero", r.Time, replayed.Time)
		}
	})
}

// fuzzTime returns a time up to the year 9999, the last one in JSON, and not exactly 1970,
// which is zero in protobuf.
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
