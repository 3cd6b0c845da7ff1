package delivery_test

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hindsight-events/hindsight/delivery"
	"github.com/hindsight-events/hindsight/sink"
	"github.com/hindsight-events/hindsight/sink/sinktest"
)

// A replica that may have lost leadership sends nothing more, and stops with its context.
func TestNothingIsSentPastTheFence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		leader := true
		ctx, stop := context.WithCancel(t.Context())
		in, out := newJournal(), &fakeSink{}
		_, wait := start(ctx, delivery.Options{
			Consumer: in, Sink: out,
			Fence: func() (time.Time, bool) { return time.Now().Add(time.Minute), leader },
		})
		in.add(sinktest.Records(0, 3))
		synctest.Wait()
		wantMessages(t, out, numbered(0, 1, 2)...)
		leader = false
		in.add(sinktest.Records(3, 5))
		time.Sleep(time.Hour)
		wantMessages(t, out, numbered(0, 1, 2)...)
		stop()
		if err := wait(); err != nil {
			t.Error(err)
		}
		wantAck(t, in, 3)
	})
}

func TestFenceEndsAnAttempt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		in, out := newJournal(), &fakeSink{answer: hangOnce()}
		in.add(sinktest.Records(0, 1))
		d, wait := start(t.Context(), delivery.Options{
			Consumer: in, Sink: out,
			Limits: sink.Limits{Timeout: 10 * time.Second, MinBackoff: time.Millisecond, MaxBackoff: time.Millisecond},
			Fence:  func() (time.Time, bool) { return time.Now().Add(4 * time.Second), true },
		})
		finish(t, d, wait)
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("a hanging attempt ended after %v, want 4s", took)
		}
	})
}

// multiRequestSink makes three requests in each Send.
type multiRequestSink struct {
	fakeSink
	hang bool
}

func (s *multiRequestSink) requests() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.attempts)
}

func (s *multiRequestSink) Send(ctx context.Context, _ *sink.Batch) error {
	for range 3 {
		request, cancel, err := sink.BeginRequest(ctx)
		if err != nil {
			return fmt.Errorf("begin: %w", err)
		}
		s.mu.Lock()
		s.attempts = append(s.attempts, time.Now())
		s.mu.Unlock()
		if s.hang {
			<-request.Done()
		} else {
			time.Sleep(time.Second)
		}
		cancel()
		if err := request.Err(); s.hang && err != nil {
			return err
		}
	}
	return nil
}

func TestEachRequestChecksTheFence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		in, out := newJournal(), &multiRequestSink{}
		in.add(sinktest.Records(0, 1))
		start(t.Context(), delivery.Options{
			Consumer: in, Sink: out, Limits: sink.Limits{MultiRequest: true},
			Fence: func() (time.Time, bool) {
				return time.Now().Add(time.Minute), time.Since(began) < 1500*time.Millisecond
			},
		})
		time.Sleep(time.Hour)
		if n := out.requests(); n != 2 {
			t.Errorf("%d requests, want 2 before the fence closed", n)
		}
		wantAck(t, in, 0)
	})
}

func TestFenceEndsEachRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in, out := newJournal(), &multiRequestSink{hang: true}
		in.add(sinktest.Records(0, 1))
		start(t.Context(), delivery.Options{
			Consumer: in, Sink: out, Limits: sink.Limits{MultiRequest: true, MinBackoff: time.Second, MaxBackoff: time.Second},
			Fence: func() (time.Time, bool) { return time.Now().Add(4 * time.Second), true },
		})
		time.Sleep(time.Minute)
		if n := out.requests(); n < 10 {
			t.Errorf("%d hanging requests in a minute; each must end after 4s", n)
		}
	})
}
