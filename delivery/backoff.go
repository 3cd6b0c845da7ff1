package delivery

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/grafana/loki-client-go/pkg/backoff"
	"github.com/hindsight-events/hindsight/sink"
)

func newBackoff(ctx context.Context, from, to time.Duration) *backoff.Backoff {
	return backoff.New(ctx, backoff.BackoffConfig{MinBackoff: from, MaxBackoff: to})
}

// pause returns how long to wait after a failure: the longer of Retry-After and the
// growing backoff. Both are jittered, so that clients refused at the same time do not
// retry at the same time.
func pause(retry *backoff.Backoff, why *sink.Error) time.Duration {
	return max(retry.NextDelay(), jittered(retryAfter(why)))
}

func retryAfter(why *sink.Error) time.Duration {
	if why == nil {
		return 0
	}
	return why.RetryAfter
}

// jittered adds a random part of a tenth of d, where the tenth is at least half a
// second and at most half a minute.
func jittered(d time.Duration) time.Duration {
	if d <= 0 {
		return 0
	}
	return d + rand.N(min(max(d/10, time.Second/2), time.Minute/2))
}
