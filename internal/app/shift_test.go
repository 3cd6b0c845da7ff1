package app

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/hindsight-events/hindsight/event"
)

func TestShiftTimes(t *testing.T) {
	at := time.Date(2019, 7, 19, 11, 0, 0, 123456000, time.UTC)
	r := event.NewReplayed(&corev1.Event{
		ObjectMeta:    metav1.ObjectMeta{CreationTimestamp: metav1.NewTime(at), ResourceVersion: "789"},
		LastTimestamp: metav1.NewTime(at),
		EventTime:     metav1.NewMicroTime(at),
		Series:        &corev1.EventSeries{LastObservedTime: metav1.NewMicroTime(at)},
	})
	shiftTimes(&r, 3600)
	e, want := r.Event, at.Add(time.Hour)
	for name, got := range map[string]time.Time{
		"creationTimestamp": e.CreationTimestamp.Time, "lastTimestamp": e.LastTimestamp.Time,
		"eventTime": e.EventTime.Time, "series.lastObservedTime": e.Series.LastObservedTime.Time,
		"the record's time": r.Time.Add(-789),
	} {
		if !got.Equal(want) {
			t.Errorf("%s is %v, want %v", name, got, want)
		}
	}
	if !e.FirstTimestamp.IsZero() || !r.ObservedTime.IsZero() {
		t.Errorf("an unset time became %v, %v", e.FirstTimestamp, r.ObservedTime)
	}
}
