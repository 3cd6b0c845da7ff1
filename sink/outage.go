package sink

import (
	"context"
	"log/slog"
	"time"
)

// outage is a time in which attempts fail. Its beginning and its end are logged,
// what lies between at debug.
type outage struct {
	since    time.Time // zero: there is none
	last     time.Time // when a failure last counted
	attempts int
	err      error // of the last
}

func (o *outage) failed(log *slog.Logger, r result, pause time.Duration) {
	level := slog.LevelDebug
	if o.since.IsZero() {
		o.since = r.began
		level = slog.LevelWarn
	}
	o.attempts++
	o.err = r.err
	log.Log(context.Background(), level, "sending failed and will be repeated until it succeeds", "records", r.stream.batch.len(), "attempt", o.attempts, "pause", pause.Round(time.Millisecond), "err", r.err)
}

func (o *outage) over(log *slog.Logger, what string, now time.Time) {
	if o.since.IsZero() {
		return
	}
	log.Info(what, "after", now.Sub(o.since).Round(time.Millisecond), "failed_attempts", o.attempts)
	*o = outage{}
}
