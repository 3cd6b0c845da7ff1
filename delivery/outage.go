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
	log           *slog.Logger
	failed, ended string // messages

	began      time.Time // zero: there is no outage
	recovered  time.Time // zero: attempts fail
	recovering bool      // it is in loop.recovering
	failures   int
	err        error // of the last attempt; nil if it succeeded
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
	o.log.Log(context.Background(), level, o.failed, "stream", r.stream.name, "records", r.stream.batch.len(),
		"attempt", o.failures, "pause", delay.Round(time.Millisecond), "err", r.err)
}

// noteRecovery notes that an attempt was accepted.
func (l *loop) noteRecovery(o *outage, now time.Time) {
	if o.began.IsZero() || !o.recovered.IsZero() {
		return
	}
	o.recovered, o.err = now, nil
	if !o.recovering {
		o.recovering = true
		l.recovering = append(l.recovering, o)
	}
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
	l.noteRecovery(l.streamOutage, now)
}

// endOutages ends the outages that are over, and returns when to call it again.
func (l *loop) endOutages(now time.Time) (next time.Time) {
	next = now.Add(time.Hour)
	rest := l.recovering[:0]
	for _, o := range l.recovering {
		switch end := o.recovered.Add(outageEndsAfter); {
		case o.recovered.IsZero():
			o.recovering = false // it failed again
		case end.After(now):
			rest = append(rest, o)
			if end.Before(next) {
				next = end
			}
		default:
			o.end()
		}
	}
	clear(l.recovering[len(rest):])
	l.recovering = rest
	return next
}

// endAllOutages ends the outages that have recovered, when the delivery ends.
func (l *loop) endAllOutages() {
	for _, o := range l.recovering {
		if !o.recovered.IsZero() {
			o.end()
		}
	}
}

func (o *outage) end() {
	o.log.Info(o.ended, "after", o.recovered.Sub(o.began).Round(time.Millisecond), "failed_attempts", o.failures)
	*o = outage{log: o.log, failed: o.failed, ended: o.ended}
}
