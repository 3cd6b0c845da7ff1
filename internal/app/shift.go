package app

import (
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/hindsight-events/hindsight/event"
)

// shiftTimes moves all times of a record. Whole seconds keep the order within a second.
func shiftTimes(r *event.Record, seconds int64) {
	by := time.Duration(seconds) * time.Second
	for _, t := range []*time.Time{&r.Time, &r.ObservedTime} {
		if !t.IsZero() {
			*t = t.Add(by)
		}
	}
	e := r.Event
	for _, t := range []*metav1.Time{&e.CreationTimestamp, &e.FirstTimestamp, &e.LastTimestamp, e.DeletionTimestamp} {
		if t != nil && !t.IsZero() {
			*t = metav1.Unix(t.Unix()+seconds, int64(t.Nanosecond()))
		}
	}
	micro := []*metav1.MicroTime{&e.EventTime}
	if e.Series != nil {
		micro = append(micro, &e.Series.LastObservedTime)
	}
	for _, t := range micro {
		if !t.IsZero() {
			*t = metav1.NewMicroTime(metav1.Unix(t.Unix()+seconds, int64(t.Nanosecond())).Time)
		}
	}
}
