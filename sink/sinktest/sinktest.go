// Package sinktest tests the contract of sink.Sink. Every sink passes it.
package sinktest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/hindsight-events/hindsight/event"
	"github.com/hindsight-events/hindsight/sink"
)

// Destination is the destination of a sink, controlled by a test. It is safe for concurrent
// use.
type Destination interface {
	// Received returns the text of all accepted records.
	Received() string
	// Fail makes the next attempts fail temporarily.
	Fail(attempts int)
	// Hang makes attempts hang until the test ends.
	Hang()
	// Break makes the destination unusable permanently. It returns false if that is
	// impossible.
	Break() bool
}

// Run tests the contract. newSink returns a new sink and its destination.
func Run(t *testing.T, newSink func(t *testing.T) (sink.Sink, Destination)) {
	t.Run("accepted records arrive once and in order", func(t *testing.T) {
		s, d := newSink(t)
		want := send(t, s, 0, 3)
		want = append(want, send(t, s, 3, 2)...)
		wantMessages(t, d, want)
	})

	t.Run("a retry delivers a failed batch", func(t *testing.T) {
		s, d := newSink(t)
		d.Fail(2)
		batch := Batch(s, Records(0, 4))
		attempts := 1
		for err := s.Send(t.Context(), batch); err != nil; err = s.Send(t.Context(), batch) {
			var why *sink.Error
			if errors.As(err, &why) && why.Permanent {
				t.Fatalf("a temporary failure is permanent: %v", err)
			}
			if attempts++; attempts > 10 {
				t.Fatalf("%d attempts failed: %v", attempts, err)
			}
		}
		if attempts == 1 {
			t.Fatal("Send returned no error although the destination failed")
		}
		wantMessages(t, d, messages(Records(0, 4)))
	})

	t.Run("the encoding depends on the record alone, and Send does not change the batch", func(t *testing.T) {
		s, _ := newSink(t)
		records := Records(0, 3)
		batch := Batch(s, records)
		before := bytes.Clone(batch.Data)
		if err := s.Send(t.Context(), batch); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(before, batch.Data) {
			t.Error("Send changed the batch")
		}
		if other, _ := newSink(t); !bytes.Equal(before, Batch(other, records).Data) || !bytes.Equal(before, Batch(s, Records(0, 3)).Data) {
			t.Error("the same records have a different encoding")
		}
	})

	t.Run("the context ends a hanging attempt", func(t *testing.T) {
		s, d := newSink(t)
		d.Hang()
		ctx, cancel := context.WithCancel(t.Context())
		sent := make(chan error, 1)
		go func() { sent <- s.Send(ctx, Batch(s, Records(0, 1))) }()
		select {
		case err := <-sent:
			t.Fatalf("Send returned %v before its context ended", err)
		case <-time.After(50 * time.Millisecond): // it hangs, as expected
		}
		cancel()
		select {
		case err := <-sent:
			if err == nil {
				t.Error("Send returned no error although nothing was accepted")
			}
		case <-time.After(10 * time.Second):
			t.Fatal("Send has not returned 10 s after its context ended")
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})

	t.Run("a broken destination is a permanent error", func(t *testing.T) {
		s, d := newSink(t)
		if !d.Break() {
			t.Skip("this destination cannot break")
		}
		err := s.Send(t.Context(), Batch(s, Records(0, 1)))
		var why *sink.Error
		if !errors.As(err, &why) || !why.Permanent {
			t.Errorf("Send returned %v, want a permanent *sink.Error", err)
		}
		if why != nil && why.Unwrap() == nil {
			t.Error("the error has no cause")
		}
	})
}

// Records returns n records of different Events, numbered from from. Each number is in the
// message.
func Records(from, n int) []event.Record {
	records := make([]event.Record, n)
	start := metav1.Unix(1563534000, 0) // July 2019
	for i := range records {
		number := from + i
		at := metav1.NewTime(start.Add(time.Duration(number) * time.Second))
		records[i] = event.New(&corev1.Event{
			ObjectMeta: metav1.ObjectMeta{
				Namespace:         "team-a",
				Name:              fmt.Sprintf("web-0.%d", number),
				UID:               types.UID(fmt.Sprintf("00000000-0000-0000-0000-%012d", number)),
				ResourceVersion:   fmt.Sprint(1000 + number),
				CreationTimestamp: at,
			},
			InvolvedObject: corev1.ObjectReference{Kind: "Pod", Namespace: "team-a", Name: "web-0"},
			Reason:         "Pulled",
			Message:        fmt.Sprintf("record-%d.", number),
			Type:           corev1.EventTypeNormal,
			FirstTimestamp: at,
			LastTimestamp:  at,
			Count:          1,
		})
	}
	return records
}

// Batch returns a batch of records of one stream.
func Batch(s sink.Sink, records []event.Record) *sink.Batch {
	b := &sink.Batch{}
	for i := range records {
		b.Stream = string(s.AppendStream(nil, &records[i]))
		b.Data = s.AppendRecord(b.Data, &records[i])
		b.Ends = append(b.Ends, len(b.Data))
	}
	return b
}

func send(t *testing.T, s sink.Sink, from, n int) []string {
	t.Helper()
	records := Records(from, n)
	if err := s.Send(t.Context(), Batch(s, records)); err != nil {
		t.Fatalf("send records %d to %d: %v", from, from+n-1, err)
	}
	return messages(records)
}

func messages(records []event.Record) (m []string) {
	for i := range records {
		m = append(m, records[i].Event.Message)
	}
	return m
}

// wantMessages checks that each message was received once, and their order.
func wantMessages(t *testing.T, d Destination, want []string) {
	t.Helper()
	rest := d.Received()
	for _, m := range want {
		if n := strings.Count(d.Received(), m); n != 1 {
			t.Errorf("%q was received %d times, want once", m, n)
		}
		_, after, found := strings.Cut(rest, m)
		if !found {
			t.Fatalf("%q was received out of order", m)
		}
		rest = after
	}
}
