package event

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// clock reads a time of 2026-03-06 such as "14:05:43".
func clock(s string) time.Time {
	t, err := time.Parse(time.DateOnly+" "+time.TimeOnly, "2026-03-06 "+s)
	if err != nil {
		panic(err)
	}
	return t
}

// at returns a time with a fraction of a second, which a Time does not keep.
func at(s string) metav1.Time { return metav1.Time{Time: clock(s).Add(654321987 * time.Nanosecond)} }

// atMicro returns a time with a fraction of a microsecond, which a MicroTime does not keep.
func atMicro(s string) metav1.MicroTime {
	return metav1.MicroTime{Time: clock(s).Add(999 * time.Nanosecond)}
}

func managed(times ...string) []metav1.ManagedFieldsEntry {
	entries := []metav1.ManagedFieldsEntry{{Manager: "unstamped"}}
	for _, s := range times {
		t := at(s)
		entries = append(entries, metav1.ManagedFieldsEntry{Time: &t})
	}
	return entries
}

func TestTime(t *testing.T) {
	const version = "7000000123" // 123 below a microsecond's digits, 123 below a second's
	for _, tt := range []struct {
		name     string
		event    corev1.Event
		want     string // without the version's nanoseconds
		observed string // if bounded
		server   string
	}{
		{
			name: "a series",
			event: corev1.Event{
				ObjectMeta: metav1.ObjectMeta{ManagedFields: managed("12:00:05"), CreationTimestamp: at("11:40:00")},
				Series:     &corev1.EventSeries{LastObservedTime: atMicro("12:00:04.25")}, LastTimestamp: at("12:00:03"),
				EventTime: atMicro("12:00:02"), FirstTimestamp: at("12:00:01"),
			},
			want: "12:00:04.25", server: "12:00:05",
		},
		{
			name: "the last timestamp",
			event: corev1.Event{
				ObjectMeta:    metav1.ObjectMeta{ManagedFields: managed("12:00:05")},
				Series:        &corev1.EventSeries{},
				LastTimestamp: at("12:00:03"), EventTime: atMicro("12:00:02"), FirstTimestamp: at("12:00:01"),
			},
			want: "12:00:03", server: "12:00:05",
		},
		{
			name: "the event time",
			event: corev1.Event{
				ObjectMeta: metav1.ObjectMeta{ManagedFields: managed("12:00:05")},
				EventTime:  atMicro("12:00:02.000001"), FirstTimestamp: at("12:00:01"),
			},
			want: "12:00:02.000001", server: "12:00:05",
		},
		{
			name: "managed fields before the creation",
			event: corev1.Event{
				ObjectMeta: metav1.ObjectMeta{ManagedFields: managed("10:00:00"), CreationTimestamp: at("12:00:00")},
			},
			want: "12:00:00", server: "12:00:00",
		},
		{
			name: "the first timestamp",
			event: corev1.Event{
				ObjectMeta:     metav1.ObjectMeta{ManagedFields: managed("12:00:05")},
				FirstTimestamp: at("12:00:01"),
			},
			want: "12:00:01", server: "12:00:05",
		},
		{
			name: "the newest managed fields",
			event: corev1.Event{ObjectMeta: metav1.ObjectMeta{
				ManagedFields: managed("11:50:00", "12:00:05", "11:55:00"), CreationTimestamp: at("11:00:00"),
			}},
			want: "12:00:05", server: "12:00:05",
		},
		{
			name:  "the creation",
			event: corev1.Event{ObjectMeta: metav1.ObjectMeta{CreationTimestamp: at("11:00:00")}},
			want:  "11:00:00", server: "11:00:00",
		},
		{
			name:  "no time",
			event: corev1.Event{},
		},
		{
			name: "2 minutes ahead",
			event: corev1.Event{
				ObjectMeta: metav1.ObjectMeta{ManagedFields: managed("12:00:00")}, LastTimestamp: at("12:02:00"),
			},
			want: "12:02:00", server: "12:00:00",
		},
		{
			name: "more than 2 minutes ahead",
			event: corev1.Event{
				ObjectMeta: metav1.ObjectMeta{ManagedFields: managed("12:00:00")}, LastTimestamp: at("12:02:01"),
			},
			want: "12:00:00", observed: "12:02:01", server: "12:00:00",
		},
		{
			name: "30 minutes behind",
			event: corev1.Event{
				ObjectMeta: metav1.ObjectMeta{ManagedFields: managed("12:00:00")}, EventTime: atMicro("11:30:00"),
			},
			want: "11:30:00", server: "12:00:00",
		},
		{
			name: "more than 30 minutes behind",
			event: corev1.Event{
				ObjectMeta: metav1.ObjectMeta{ManagedFields: managed("12:00:00")}, EventTime: atMicro("11:29:59.999999"),
			},
			want: "12:00:00", observed: "11:29:59.999999", server: "12:00:00",
		},
		{
			name: "without managed fields the creation bounds the first occurrence",
			event: corev1.Event{
				ObjectMeta: metav1.ObjectMeta{CreationTimestamp: at("12:00:00")}, LastTimestamp: at("15:00:00"), Count: 1,
			},
			want: "12:00:00", observed: "15:00:00", server: "12:00:00",
		},
		{
			name: "without managed fields a later occurrence is not bounded",
			event: corev1.Event{
				ObjectMeta: metav1.ObjectMeta{CreationTimestamp: at("12:00:00")}, LastTimestamp: at("15:00:00"), Count: 2,
			},
			want: "15:00:00",
		},
		{
			name: "without managed fields a series is not bounded",
			event: corev1.Event{
				ObjectMeta: metav1.ObjectMeta{CreationTimestamp: at("12:00:00")},
				EventTime:  atMicro("12:00:00"), Series: &corev1.EventSeries{LastObservedTime: atMicro("15:00:00")},
			},
			want: "15:00:00",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.event.ResourceVersion = version
			r := New(tt.event.DeepCopy())
			want := func(name string, got time.Time, s string) {
				t.Helper()
				if s == "" && !got.IsZero() || s != "" && !got.Equal(clock(s)) {
					t.Errorf("%s is %s, want %q", name, got, s)
				}
			}
			if !r.Time.IsZero() {
				r.Time = r.Time.Add(-123) // the part of the version in either resolution
			}
			want("time", r.Time, tt.want)
			want("observed time", r.ObservedTime, tt.observed)
			want("server time", r.Position.Time, tt.server)
			if r.Position.Version != 7000000123 || r.Event.ManagedFields != nil {
				t.Errorf("got version %d, managed fields %v", r.Position.Version, r.Event.ManagedFields)
			}
			if replayed := NewReplayed(tt.event.DeepCopy()); !replayed.ObservedTime.IsZero() {
				t.Error("a replayed time was bounded")
			} else if tt.observed != "" {
				want("replayed time", replayed.Time.Add(-123), tt.observed)
			}
		})
	}
}

func TestVersionIsInTheNanoseconds(t *testing.T) {
	for _, tt := range []struct {
		name    string
		event   corev1.Event
		version string
		want    time.Duration // after 12:00:00
	}{
		{"nine digits in whole seconds", corev1.Event{LastTimestamp: at("12:00:00")}, "51234567890", 234567890},
		{"three digits in microseconds", corev1.Event{EventTime: atMicro("12:00:00.000007")}, "51234567890", 7890},
		{"three digits in microseconds that are zero", corev1.Event{EventTime: atMicro("12:00:00")}, "51234567890", 890},
		{"a version that is not a number", corev1.Event{LastTimestamp: at("12:00:00")}, "abc", 0},
		{"no version", corev1.Event{LastTimestamp: at("12:00:00")}, "", 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.event.ResourceVersion = tt.version
			r := New(&tt.event)
			if got := r.Time.Sub(clock("12:00:00")); got != tt.want {
				t.Errorf("got %d ns, want %d", got, tt.want)
			}
		})
	}
}

// Times in managedFields that are after the API server's clock are forged. The record then
// uses times that cannot be forged.
func TestForgedTimes(t *testing.T) {
	now := clock("12:01:00")
	for name, tt := range map[string]struct {
		event    corev1.Event
		want     string
		observed string
		position string
	}{
		"a forged and a genuine entry": {
			event: corev1.Event{
				ObjectMeta:    metav1.ObjectMeta{ManagedFields: managed("12:00:05", "23:00:00"), CreationTimestamp: at("11:40:00")},
				LastTimestamp: at("12:00:03"), Count: 2,
			},
			want: "12:00:03", position: "12:00:05",
		},
		"a forged entry and a forged occurrence": {
			event: corev1.Event{
				ObjectMeta:    metav1.ObjectMeta{ManagedFields: managed("12:00:05", "23:00:00"), CreationTimestamp: at("11:40:00")},
				LastTimestamp: at("23:00:00"), Count: 2,
			},
			want: "12:00:05", observed: "23:00:00", position: "12:00:05",
		},
		"only forged entries": {
			event: corev1.Event{
				ObjectMeta:    metav1.ObjectMeta{ManagedFields: managed("23:00:00"), CreationTimestamp: at("11:59:00")},
				LastTimestamp: at("23:00:00"), Count: 2,
			},
			want: "11:59:00", observed: "23:00:00", position: "11:59:00",
		},
		"no entry, and an occurrence in the future": {
			event: corev1.Event{
				ObjectMeta:    metav1.ObjectMeta{CreationTimestamp: at("11:59:00")},
				LastTimestamp: at("23:00:00"), Count: 2,
			},
			want: "11:59:00", observed: "23:00:00", position: "11:59:00",
		},
		"an entry before the creation": {
			event: corev1.Event{
				ObjectMeta:    metav1.ObjectMeta{ManagedFields: managed("01:00:00"), CreationTimestamp: at("12:00:00")},
				LastTimestamp: at("12:00:01"), Count: 2,
			},
			want: "12:00:01", position: "12:00:00",
		},
		"another API server's clock is ahead": {
			event: corev1.Event{
				ObjectMeta:    metav1.ObjectMeta{ManagedFields: managed("12:02:59"), CreationTimestamp: at("12:00:00")},
				LastTimestamp: at("12:00:58"), Count: 2,
			},
			want: "12:00:58", position: "12:01:00",
		},
	} {
		raw, err := tt.event.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		decoded, err := new(DecodeBuffer).DecodeAt(raw, now)
		if err != nil {
			t.Fatal(err)
		}
		for how, e := range map[string]*corev1.Event{"": &tt.event, ", decoded": decoded} {
			r := NewAt(e, now)
			if !r.Time.Equal(clock(tt.want)) {
				t.Errorf("%s%s: time %s, want %s", name, how, r.Time, tt.want)
			}
			if tt.observed == "" != r.ObservedTime.IsZero() || tt.observed != "" && !r.ObservedTime.Equal(clock(tt.observed)) {
				t.Errorf("%s%s: observed at %s, want %q", name, how, r.ObservedTime, tt.observed)
			}
			if !r.Position.Time.Equal(clock(tt.position)) {
				t.Errorf("%s%s: position time %s, want %s", name, how, r.Position.Time, tt.position)
			}
		}
	}
}

func TestReservedNamesAreRemoved(t *testing.T) {
	e := &corev1.Event{ObjectMeta: metav1.ObjectMeta{
		Annotations: map[string]string{"hindsight/cause": "too_old", "hindsight/anything": "x", "team": "a"},
		Labels:      map[string]string{"hindsight/cause": "too_old", "team": "a"},
	}, Reason: GapReason}
	r := New(e)
	if len(r.Event.Annotations) != 1 || len(r.Event.Labels) != 1 || !r.ForgedGap() {
		t.Errorf("got annotations %v, labels %v, forged gap %v", r.Event.Annotations, r.Event.Labels, r.ForgedGap())
	}
	if gap := NewGap(Gap{Cause: CauseTooOld}); gap.ForgedGap() {
		t.Error("a gap record is taken for a forged one")
	}
}
