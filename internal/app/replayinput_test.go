package app

import (
	"context"
	"errors"
	"io"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/hindsight-events/hindsight/event"
)

func TestReadChunks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in, out := io.Pipe()
		go func() {
			_, _ = io.WriteString(out, "line\n")
			time.Sleep(2500 * time.Millisecond)
			_, _ = io.WriteString(out, "another\n")
			_, _ = io.WriteString(out, "third")
			out.Close()
		}()
		var got []string
		err := readChunks(t.Context(), in, time.Second,
			func(chunk []byte) error { got = append(got, string(chunk)); return nil },
			func() error { got = append(got, "pause"); return nil })
		got = slices.DeleteFunc(got, func(s string) bool { return s == "" }) // at the end
		if want := []string{"line\n", "pause", "pause", "another\n", "third"}; err != nil || !slices.Equal(got, want) {
			t.Errorf("got %q, %v; want %q", got, err, want)
		}
	})
}

func TestReadChunksEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in, out := io.Pipe()
		defer out.Close()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		err := readChunks(ctx, in, time.Second, func([]byte) error { return nil }, func() error { return nil })
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
	})
}

func TestShift(t *testing.T) {
	at := time.Date(2019, 7, 19, 11, 0, 0, 123456000, time.UTC)
	r := event.NewReplayed(&corev1.Event{
		ObjectMeta:    metav1.ObjectMeta{CreationTimestamp: metav1.NewTime(at), ResourceVersion: "789"},
		LastTimestamp: metav1.NewTime(at),
		EventTime:     metav1.NewMicroTime(at),
		Series:        &corev1.EventSeries{LastObservedTime: metav1.NewMicroTime(at)},
	})
	shift(&r, 3600)
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
		t.Errorf("a time that was not set became %v, %v", e.FirstTimestamp, r.ObservedTime)
	}
}
