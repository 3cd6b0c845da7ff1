package delivery_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hindsight-events/hindsight/delivery"
	"github.com/hindsight-events/hindsight/sink"
	"github.com/hindsight-events/hindsight/sink/sinktest"
)

// A replica that may have been deposed sends nothing more, although there is
// something, and stops when it is told to.
func TestDeliveryWithoutPermitSendsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		permitted := true
		ctx, stop := context.WithCancel(t.Context())
		in, out := newSource(), &scripted{}
		_, wait := start(ctx, delivery.Options{
			Consumer: in, Sink: out,
			Fence: func() (time.Time, bool) { return time.Now().Add(time.Minute), permitted },
		})
		in.add(sinktest.Records(0, 3))
		synctest.Wait()
		if n := len(out.messages()); n != 3 {
			t.Fatalf("%d records sent while it was permitted, want 3", n)
		}
		permitted = false
		in.add(sinktest.Records(3, 5))
		time.Sleep(time.Hour)
		if n := len(out.messages()); n != 3 {
			t.Errorf("%d records sent, want none after the first 3", n)
		}
		stop()
		if err := wait(); err != nil {
			t.Error(err)
		}
		if got := in.lastAck(); got != 3 {
			t.Errorf("acknowledged up to %d, want 3", got)
		}
	})
}

func TestDeliveryEndsAnAttemptWithItsPermit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		in, out := newSource(), &hanging{}
		in.add(sinktest.Records(0, 1))
		d, wait := start(t.Context(), delivery.Options{
			Consumer: in, Sink: out,
			Limits: sink.Limits{Timeout: 10 * time.Second, MinBackoff: time.Millisecond, MaxBackoff: time.Millisecond},
			Fence:  func() (time.Time, bool) { return time.Now().Add(4 * time.Second), true },
		})
		d.Drain()
		if err := wait(); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("an attempt that hung was given up after %v, want 4s as permitted", took)
		}
	})
}
