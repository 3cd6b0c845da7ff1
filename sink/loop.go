package sink

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/grafana/loki-client-go/pkg/backoff"

	"github.com/hindsight-events/hindsight/event"
	"github.com/hindsight-events/hindsight/journal"
)

// loop is a running Delivery. All of it belongs to the goroutine of run; others
// reach it through its channels:
//
//	read ──► run ──► attempt (one goroutine a batch in flight)
//	          ▲          │
//	          └──────────┘
//
// What waits to be sent stays in the journal. It is read twice: to find out which
// stream it belongs to, and when a batch of that stream is sent. So much more can
// wait than memory would hold, and with many streams a batch has many records all
// the same.
type loop struct {
	*Delivery
	ctx     context.Context
	started *sync.WaitGroup
	began   time.Time

	wanted  chan struct{}
	arrived chan *arrival
	results chan result

	window   window
	buffered int                      // bytes in the journal of what is wanted and not settled
	kept     map[uint64]*event.Record // by number, what is not in the journal
	streams  map[string]*stream
	queue    dueQueue
	tried    []*pending // since their first attempt, oldest first
	resting  []*stream  // without entries, known only for their rest
	places   []journal.Place
	rooms    []room // for batches

	asked    bool // for entries
	drained  bool // there will be no more
	inFlight int  // batches
	flying   int  // their bytes
	accepted bool // anything, ever

	// Of the destination as a whole:
	limit  int       // batches in flight; halved on failure, regained on success
	rested time.Time // until when it is left alone
	paced  time.Time // until when what was sent takes at the rate allowed
	retry  *backoff.Backoff
	outage outage
}

type result struct {
	stream *stream
	began  time.Time
	err    error
}

func newLoop(ctx context.Context, d *Delivery, started *sync.WaitGroup) *loop {
	return &loop{
		Delivery: d,
		ctx:      ctx,
		started:  started,
		began:    time.Now(),
		wanted:   make(chan struct{}, 1),
		arrived:  make(chan *arrival),
		results:  make(chan result),
		kept:     make(map[uint64]*event.Record),
		streams:  make(map[string]*stream),
		limit:    d.Concurrency,
		retry:    d.newBackoff(ctx),
	}
}

func (d *Delivery) newBackoff(ctx context.Context) *backoff.Backoff {
	return backoff.New(ctx, backoff.BackoffConfig{MinBackoff: d.MinBackoff, MaxBackoff: d.MaxBackoff})
}

func (l *loop) run() error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		l.want()
		timer.Reset(time.Until(l.dispatch()))
		l.publish()
		if l.drained && l.window.len() == 0 {
			return nil
		}
		select {
		case a := <-l.arrived:
			if err := l.take(a); err != nil {
				return err
			}
		case r := <-l.results:
			if err := l.settle(r); err != nil {
				return err
			}
		case <-timer.C:
		case <-l.ctx.Done():
			return nil
		}
	}
}

// full reports whether the window has no room. Waiting for batches to fill makes
// no sense then.
func (l *loop) full() bool {
	return l.buffered >= l.WindowBytes || l.window.len() >= windowRecords
}

// want asks for entries if there is room for them.
func (l *loop) want() {
	if !l.asked && !l.drained && !l.full() {
		l.asked = true
		l.wanted <- struct{}{}
	}
}

// dispatch sends what is due and may be sent, and returns when to look again.
func (l *loop) dispatch() (next time.Time) {
	now := time.Now()
	next = now.Add(time.Hour)
	for l.mayFly() && l.queue.Len() > 0 { // else a result will come
		hold := l.rested
		if l.paced.After(hold) {
			hold = l.paced
		}
		s := l.queue[0]
		if due := l.began.Add(s.due); !l.hurry(s, now) && due.After(hold) {
			hold = due
		}
		if hold.After(now) {
			return hold
		}
		l.send(l.queue.pop(), now)
	}
	return next
}

// mayFly reports whether another batch may be sent.
func (l *loop) mayFly() bool {
	return l.inFlight == 0 || l.inFlight < l.limit && l.flying < flightBytes
}

// hurry reports whether a stream's batch need not wait to be filled.
func (l *loop) hurry(s *stream, now time.Time) bool {
	return (l.drained || l.full()) && !s.rested.After(now)
}

// settle draws the consequences of an attempt. Its error means that delivery
// cannot go on.
func (l *loop) settle(r result) error {
	now := time.Now()
	s, b := r.stream, r.stream.batch
	s.inFlight = false
	l.inFlight--
	l.flying -= len(b.data)

	var why *Error
	errors.As(r.err, &why)
	switch {
	case r.err == nil:
		l.metrics.sent.Add(float64(b.len()))
	case why != nil && len(why.Refused) > 0:
		l.metrics.sent.Add(float64(b.len() - len(why.Refused)))
		l.metrics.refused.Add(float64(len(why.Refused)))
		l.Logger.Error("records were refused for good and are dropped", "stream", s.name, "records", len(why.Refused), "first", why.Refused[0].Reason)
	case why != nil && why.Permanent:
		return r.err
	default:
		l.failed(r, why, now)
		l.enqueue(s)
		return nil
	}

	l.accepted = true
	l.limit = min(l.limit+1, l.Concurrency)
	l.outage.over(l.Logger, "sending works again", now)
	s.outage.over(l.Logger.With("stream", s.name), "the stream is accepted again", now)
	l.retry.Reset()
	l.rested = time.Time{}
	s.retry = nil
	if l.StreamRate > 0 {
		s.rested = r.began.Add(takes(len(b.data), l.StreamRate))
	}
	for range b.len() {
		e := l.window.at(s.first)
		if e.place.Bytes == 0 {
			delete(l.kept, s.first)
		}
		s.len--
		s.bytes -= int(e.place.Bytes)
		l.buffered -= int(e.place.Bytes)
		s.first += uint64(e.next)
		e.next = settled
	}
	l.keepRoom(b.room)
	b.room, b.settled = room{}, true
	s.batch = nil
	if s.len > 0 {
		l.enqueue(s)
	} else {
		l.forget(s, now)
	}
	return l.acknowledge()
}

// forget lets go of a stream without batches once it has rested.
func (l *loop) forget(s *stream, now time.Time) {
	l.resting = append(l.resting, s)
	for len(l.resting) > 0 && !l.resting[0].rested.After(now) {
		if s := l.resting[0]; s.len == 0 && l.streams[s.name] == s { // it may rest twice
			delete(l.streams, s.name)
		}
		l.resting = l.resting[1:]
	}
}

// failed makes the stream, or the whole destination, wait before the next
// attempt.
func (l *loop) failed(r result, why *Error, now time.Time) {
	l.metrics.retries(why).Inc()
	s := r.stream
	if why != nil && why.StreamOnly {
		if s.retry == nil {
			s.retry = l.newBackoff(l.ctx)
		}
		s.rested = now.Add(pause(s.retry, why))
		// There may be many such streams: their batches are read again.
		s.batch.grows = true
		l.keepRoom(s.batch.room)
		s.batch.room = room{}
		s.outage.failed(l.Logger.With("stream", s.name), r, s.rested.Sub(now))
		return
	}
	// Of several attempts that were under way together, the first to fail
	// counts: their failures are one.
	if r.began.After(l.outage.last) {
		l.limit = max(1, l.limit/2)
		l.rested = now.Add(pause(l.retry, why))
		l.outage.last = now
	}
	l.outage.failed(l.Logger, r, l.rested.Sub(now))
}

func pause(retry *backoff.Backoff, why *Error) time.Duration {
	d := retry.NextDelay()
	if why != nil && why.RetryAfter > 0 {
		d = why.RetryAfter
	}
	return d
}

// acknowledge moves the journal's cursor.
func (l *loop) acknowledge() error {
	offset, moved := l.window.advance()
	if !moved {
		return nil
	}
	if err := l.Consumer.Ack(offset); err != nil {
		return fmt.Errorf("acknowledge to journal: %w", err)
	}
	return nil
}

// publish says what the delivery is doing.
func (l *loop) publish() {
	for len(l.tried) > 0 && l.tried[0].settled {
		l.tried = l.tried[1:]
	}
	s := State{Err: l.outage.err, Accepted: l.accepted}
	if len(l.tried) > 0 {
		b := l.tried[0]
		s.Since = b.tried
		if err := b.stream.outage.err; err != nil {
			s.Err = err
		}
	}
	l.setState(s)
}
