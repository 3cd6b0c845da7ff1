package audit

import (
	"strconv"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/hindsight-events/hindsight/event"
)

func TestStoredUnder(t *testing.T) {
	noon := time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)
	clock := noon.Add(time.Minute)
	s := func(after time.Duration) metav1.Time { return metav1.NewTime(noon.Add(after)) }
	us := func(after time.Duration) metav1.MicroTime { return metav1.NewMicroTime(noon.Add(after)) }
	written := func(after time.Duration) []metav1.ManagedFieldsEntry {
		earlier, last := s(after-time.Hour), s(after)
		return []metav1.ManagedFieldsEntry{{Time: &earlier}, {}, {Time: &last}}
	}
	const version = "5000000123" // 123 ns below a resolution of a microsecond or a second
	tests := map[string]struct {
		e    corev1.Event
		want time.Duration // after noon
	}{
		"lastTimestamp": {
			corev1.Event{FirstTimestamp: s(-time.Minute), EventTime: us(-time.Second), LastTimestamp: s(0)}, 123,
		},
		"lastObservedTime of a series": {
			corev1.Event{Series: &corev1.EventSeries{Count: 3, LastObservedTime: us(5 * time.Microsecond)}, LastTimestamp: s(-time.Hour)}, 5123,
		},
		"eventTime": {
			corev1.Event{EventTime: us(7 * time.Microsecond), FirstTimestamp: s(-time.Hour)}, 7123,
		},
		"firstTimestamp": {corev1.Event{FirstTimestamp: s(0)}, 123},
		"managedFields": {
			corev1.Event{ObjectMeta: metav1.ObjectMeta{ManagedFields: written(0), CreationTimestamp: s(-time.Minute)}}, 123,
		},
		"creationTimestamp": {corev1.Event{ObjectMeta: metav1.ObjectMeta{CreationTimestamp: s(0)}}, 123},
		"two minutes ahead of the server": {
			corev1.Event{ObjectMeta: metav1.ObjectMeta{ManagedFields: written(0)}, LastTimestamp: s(2 * time.Minute)}, 2*time.Minute + 123,
		},
		"more than two minutes ahead": {
			corev1.Event{ObjectMeta: metav1.ObjectMeta{ManagedFields: written(0)}, LastTimestamp: s(2*time.Minute + time.Second)}, 123,
		},
		"half an hour behind the server": {
			corev1.Event{ObjectMeta: metav1.ObjectMeta{ManagedFields: written(0)}, LastTimestamp: s(-30 * time.Minute)}, -30*time.Minute + 123,
		},
		"more than half an hour behind": {
			corev1.Event{ObjectMeta: metav1.ObjectMeta{ManagedFields: written(0)}, EventTime: us(-30*time.Minute - time.Microsecond)}, 123,
		},
		"bounded by the creation": {
			corev1.Event{ObjectMeta: metav1.ObjectMeta{CreationTimestamp: s(0)}, LastTimestamp: s(-time.Hour), Count: 1}, 123,
		},
		"repeated, not bounded by the creation": {
			corev1.Event{ObjectMeta: metav1.ObjectMeta{CreationTimestamp: s(-3 * time.Hour)}, LastTimestamp: s(0), Count: 2}, 123,
		},
		"write in the future": {
			corev1.Event{ObjectMeta: metav1.ObjectMeta{CreationTimestamp: s(-time.Minute), ManagedFields: written(time.Hour)}, LastTimestamp: s(time.Hour), Count: 2}, 123,
		},
		"occurrence in the future": {
			corev1.Event{ObjectMeta: metav1.ObjectMeta{CreationTimestamp: s(-time.Minute)}, LastTimestamp: s(time.Hour), Count: 2}, 123 - time.Minute,
		},
		"write before the creation": {
			corev1.Event{ObjectMeta: metav1.ObjectMeta{CreationTimestamp: s(0), ManagedFields: written(-time.Hour)}, LastTimestamp: s(0), Count: 2}, 123,
		},
		"series, not bounded by the creation": {
			corev1.Event{ObjectMeta: metav1.ObjectMeta{CreationTimestamp: s(-3 * time.Hour)}, EventTime: us(0), Series: &corev1.EventSeries{}}, 123,
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			e := tt.e.DeepCopy()
			e.ResourceVersion = version
			want := noon.Add(tt.want)
			if got, _ := storedUnder(e, clock); !got.Equal(want) {
				t.Errorf("%s, want %s", got.Format(time.RFC3339Nano), want.Format(time.RFC3339Nano))
			}
		})
	}
	if got, _ := storedUnder(&corev1.Event{}, clock); !got.IsZero() {
		t.Errorf("an Event without a time is stored under %s", got)
	}
}

// FuzzStoredUnder compares this implementation of the rule with the one that exports Events.
func FuzzStoredUnder(f *testing.F) {
	const noon = 1_767_355_200
	f.Add(int64(noon), int64(0), int64(0), int64(0), int64(noon+5), int64(noon), int32(1), uint64(5_000_000_123), uint8(0))
	f.Add(int64(noon), int64(noon*1_000_000+5), int64(0), int64(noon-10), int64(noon+3600), int64(noon), int32(0), uint64(77), uint8(3))
	f.Add(int64(0), int64(0), int64(noon*1_000_000+1), int64(0), int64(0), int64(noon-1801), int32(2), uint64(1), uint8(1))
	f.Add(int64(0), int64(0), int64(0), int64(0), int64(0), int64(noon), int32(1), uint64(1), uint8(2))
	f.Fuzz(func(t *testing.T, last, eventMicros, seriesMicros, first, managed, created int64, count int32, version uint64, set uint8) {
		seconds := func(n int64) metav1.Time {
			if n == 0 {
				return metav1.Time{}
			}
			return metav1.Unix(n%(1<<33), int64(set)*1000) // below the resolution
		}
		micros := func(n int64) metav1.MicroTime {
			if n == 0 {
				return metav1.MicroTime{}
			}
			return metav1.NewMicroTime(time.UnixMicro(n % (1 << 53)).Add(time.Duration(set)))
		}
		e := &corev1.Event{
			ObjectMeta:    metav1.ObjectMeta{CreationTimestamp: seconds(created)},
			LastTimestamp: seconds(last), EventTime: micros(eventMicros), FirstTimestamp: seconds(first), Count: count,
		}
		if version != 0 {
			e.ResourceVersion = strconv.FormatUint(version, 10)
		}
		if set&1 != 0 || seriesMicros != 0 {
			e.Series = &corev1.EventSeries{Count: count, LastObservedTime: micros(seriesMicros)}
		}
		if managed != 0 {
			at := seconds(managed)
			e.ManagedFields = []metav1.ManagedFieldsEntry{{Time: &at}}
		}
		clock := time.Unix(noon+600, 0)
		got, _ := storedUnder(e, clock)
		if r := event.NewAt(e, clock); !got.Equal(r.Time) {
			t.Errorf("%s, but it is exported under %s", got, r.Time)
		}
	})
}
