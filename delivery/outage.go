package delivery

import (
	"context"
	"log/slog"
	"time"
)

// outageEndsAfter is the time without a failed attempt after which an outage ends. So
// occasional failures are one outage.
const outageEndsAfter = 30 * time.Second

// outage is a period in which attempts fail. Its first failure and its end are logged,
// further failures at debug.
type outage struct {
	log       *slog.Logger
	began     time.Time // zero: there is no outage
	recovered time.Time // zero: attempts fail
	failures  int
	err       error // of the last attempt; nil if it succeeded
}

func (o *outage) noteFailure(r result, delay time.Duration) {
	level := slog.LevelDebug
	if o.began.IsZero() {
		o.began = r.began
		level = slog.LevelWarn
	}
	o.recovered = time.Time{}
	o.failures++
	o.err = r.err
	o.log.Log(context.Background(), level, "send failed; retrying until it succeeds", "stream", r.stream.name, "records", r.stream.batch.len(),
		"attempt", o.failures, "pause", delay.Round(time.Millisecond), "err", r.err)
}

// noteRecovery notes that an attempt was accepted.
func (o *outage) noteRecovery(now time.Time) {
	if !o.began.IsZero() && o.recovered.IsZero() {
		o.recovered, o.err = now, nil
	}
}

// end ends an outage that has recovered by the given time.
func (o *outage) end(by time.Time) {
	if o.recovered.IsZero() || o.recovered.After(by) {
		return
	}
	o.log.Info("sending succeeds again", "after", o.recovered.Sub(o.began).Round(time.Millisecond), "failed_attempts", o.failures)
	*o = outage{log: o.log}
}

// noteStreamRecovery notes that a stream was accepted after a failure.
func (l *loop) noteStreamRecovery(now time.Time) {
	for _, s := range l.parking.streams {
		if s.failure != nil {
			return
		}
	}
	for s := range l.failing {
		if s.failure.ownFault || s.failure.streamOnly {
			return
		}
	}
	l.streamOutage.noteRecovery(now)
}

// endOutages ends the outages that are over, and returns when to call it again.
func (l *loop) endOutages(now time.Time) (next time.Time) {
	next = now.Add(time.Hour)
	for _, o := range []*outage{l.outage, l.streamOutage} {
		o.end(now.Add(-outageEndsAfter))
		if end := o.recovered.Add(outageEndsAfter); !o.recovered.IsZero() && end.Before(next) {
			next = end
		}
	}
	return next
}
