package wait

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

func TestSleep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		if err := Sleep(t.Context(), time.Minute); err != nil || time.Since(begin) != time.Minute {
			t.Errorf("slept %v: %v", time.Since(begin), err)
		}

		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		begin = time.Now()
		if err := Sleep(ctx, time.Minute); !errors.Is(err, context.DeadlineExceeded) || time.Since(begin) != time.Second {
			t.Errorf("with a deadline in one second, slept %v: %v", time.Since(begin), err)
		}
		if err := Sleep(ctx, 0); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("no time, context done: %v", err)
		}
		if err := Sleep(t.Context(), -time.Second); err != nil {
			t.Errorf("no time: %v", err)
		}
	})
}

func TestNotify(t *testing.T) {
	c := make(chan struct{}, 1)
	Notify(c)
	Notify(c)
	<-c
	select {
	case <-c:
		t.Error("two notifications before a read wake the reader twice")
	default:
	}
	Notify(c)
	<-c
}
