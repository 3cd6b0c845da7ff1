package delivery

import (
	"context"
	"log/slog"
	"time"
)

// quietAfter is for how long no attempt may fail before an outage is over. So a
// destination that fails now and then is one outage, not many a second.
const quietAfter = 30 * time.Second

// outage is a time in which attempts fail, of the destination or of streams. Its beginning and its end are logged,
// what lies between at debug.
type outage struct {
	log          *slog.Logger
	begins, over string // what is logged

	since    time.Time // zero: there is none
	quiet    time.Time // since when attempts succeed again; zero: they do not
	listed   bool      // among those that may be over
	attempts int       // that failed
	err      error     // of the last attempt; nil if it succeeded
}

func (o *outage) failed(r result, pause time.Duration) {
	level := slog.LevelDebug
	if o.since.IsZero() {
		o.since = r.began
		level = slog.LevelWarn
	}
	o.quiet = time.Time{}
	o.attempts++
	o.err = r.err
	o.log.Log(context.Background(), level, o.begins, "stream", r.stream.name, "records", r.stream.batch.len(), "attempt", o.attempts, "pause", pause.Round(time.Millisecond), "err", r.err)
}

// heal says that an attempt has succeeded.
func (l *loop) heal(o *outage, now time.Time) {
	if o.since.IsZero() || !o.quiet.IsZero() {
		return
	}
	o.quiet, o.err = now, nil
	if !o.listed {
		o.listed = true
		l.healing = append(l.healing, o)
	}
}

// healStreams says that a stream is accepted again.
func (l *loop) healStreams(now time.Time) {
	for _, s := range l.parking.streams {
		if s.failing != nil {
			return
		}
	}
	for s := range l.failing {
		if s.failing.alone || s.failing.streamed {
			return
		}
	}
	l.heal(l.streamOutage, now)
}

// checkOutages ends those that are over, and returns when to look again.
func (l *loop) checkOutages(now time.Time) (next time.Time) {
	next = now.Add(time.Hour)
	rest := l.healing[:0]
	for _, o := range l.healing {
		switch over := o.quiet.Add(quietAfter); {
		case o.quiet.IsZero():
			o.listed = false // it fails again
		case over.After(now):
			rest = append(rest, o)
			if over.Before(next) {
				next = over
			}
		default:
			o.end()
		}
	}
	clear(l.healing[len(rest):])
	l.healing = rest
	return next
}

// endOutages ends those that have not come back, at the end of the delivery.
func (l *loop) endOutages() {
	for _, o := range l.healing {
		if !o.quiet.IsZero() {
			o.end()
		}
	}
}

func (o *outage) end() {
	o.log.Info(o.over, "after", o.quiet.Sub(o.since).Round(time.Millisecond), "failed_attempts", o.attempts)
	*o = outage{log: o.log, begins: o.begins, over: o.over}
}
