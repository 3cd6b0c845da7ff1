package delivery

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/grafana/loki-client-go/pkg/backoff"

	"github.com/hindsight-events/hindsight/sink"
)

// newBackoff returns an exponential backoff.
func newBackoff(ctx context.Context, from, to time.Duration) *backoff.Backoff {
	return backoff.New(ctx, backoff.BackoffConfig{MinBackoff: from, MaxBackoff: to})
}

// retryDelay returns the delay after a failure: the longer of Retry-After and the backoff.
// Both have jitter, so that clients which failed at the same time do not retry at the
// same time.
func retryDelay(b *backoff.Backoff, why *sink.Error) time.Duration {
	return max(b.NextDelay(), withJitter(retryAfter(why)))
}

// retryAfter returns the delay that the destination requested, or 0.
func retryAfter(why *sink.Error) time.Duration {
	if why == nil {
		return 0
	}
	return why.RetryAfter
}

// withJitter adds up to a tenth to d; the bound of the addition is at least half a second
// and at most half a minute.
func withJitter(d time.Duration) time.Duration {
	if d <= 0 {
		return 0
	}
	return d + rand.N(min(max(d/10, time.Second/2), time.Minute/2))
}
