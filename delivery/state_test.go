package delivery_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hindsight-events/hindsight/delivery"
	"github.com/hindsight-events/hindsight/delivery/parked"
	"github.com/hindsight-events/hindsight/event"
	"github.com/hindsight-events/hindsight/sink"
	"github.com/hindsight-events/hindsight/sink/sinktest"
)

func TestReady(t *testing.T) {
	const (
		ready = iota
		unready
		unreadyAfterFiveMinutes
	)
	for name, c := range map[string]struct {
		accepted bool // the destination has accepted a batch before
		err      error
		want     int
	}{
		"accepted":                          {want: ready},
		"no connection since the start":     {err: errors.New("refused"), want: unready},
		"no connection after a success":     {accepted: true, err: errors.New("refused"), want: unreadyAfterFiveMinutes},
		"wrong credentials after a success": {accepted: true, err: &sink.Error{Reason: sink.ReasonUnauthorized, Err: errors.New("no")}, want: unready},
		"disk full after a success":         {accepted: true, err: &sink.Error{Reason: sink.ReasonNoSpace, Err: errors.New("no")}, want: unready},
		"rate limited after a success":      {accepted: true, err: &sink.Error{Reason: sink.ReasonRateLimited, Err: errors.New("no")}, want: unreadyAfterFiveMinutes},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				in, out := newJournal(), &fakeSink{}
				d, wait := start(ctx, delivery.Options{Consumer: in, Sink: out})
				if c.accepted {
					in.add(sinktest.Records(0, 1))
					synctest.Wait()
				}
				out.setAnswer(func(context.Context, *sink.Batch) error { return c.err })
				in.add(sinktest.Records(1, 1))
				synctest.Wait()
				if err := d.Ready(); (err != nil) != (c.want == unready) {
					t.Errorf("Ready returns %v at once", err)
				}
				time.Sleep(5 * time.Minute)
				if err := d.Ready(); (err != nil) != (c.want != ready) {
					t.Errorf("Ready returns %v after five minutes", err)
				}
				out.setAnswer(nil)
				time.Sleep(time.Minute)
				if err := d.Ready(); err != nil {
					t.Errorf("Ready returns %v after everything was accepted", err)
				}
				cancel()
				if err := wait(); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// Without its record at the destination, a gap would be a silent loss.
func TestMissingGapRecordMakesTheSinkUnready(t *testing.T) {
	gap := event.NewGap(event.Gap{Namespace: "ns-0", Cause: event.CauseTooOld})
	for name, answer := range map[string]answer{
		"rejected": func(_ context.Context, b *sink.Batch) error {
			for i := range b.Len() {
				if string(b.Record(i)) == gap.Event.Message {
					return &sink.Error{Rejected: []sink.Rejection{{Index: i, Reason: "too old"}}, Err: errors.New("400")}
				}
			}
			return nil
		},
		"in a faulty stream": func(_ context.Context, b *sink.Batch) error {
			if strings.Contains(string(b.Data), gap.Event.Message) {
				return &sink.Error{Reason: sink.ReasonUnavailable, StreamOnly: true, Err: errors.New("too old")}
			}
			return nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				in, out := newJournal(), &fakeSink{takes: time.Millisecond, answer: answer}
				d, _ := start(t.Context(), delivery.Options{Consumer: in, Sink: out, Parked: parked.NewMemory(0)})
				in.add(append(inNamespaces(2, sinktest.Records(0, 2)), gap))
				for i := range 20 {
					time.Sleep(10 * time.Second)
					in.add(inNamespace("other", 10+i))
				}
				if err := d.Ready(); err == nil || !strings.Contains(err.Error(), "too old") {
					t.Errorf("Ready returns %v", err)
				}
			})
		})
	}
}
