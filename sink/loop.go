package sink

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/grafana/loki-client-go/pkg/backoff"

	"github.com/hindsight-events/hindsight/journal"
)

// readRecords is how many records are taken from the journal at once.
const readRecords = 512

// loop is a running Delivery. All of it belongs to the goroutine of run; others
// reach it through its channels:
//
//	read ──► run ──► attempt (one goroutine a batch in flight)
//	          ▲          │
//	          └──────────┘
type loop struct {
	*Delivery
	ctx     context.Context
	started *sync.WaitGroup

	wanted  chan struct{}
	arrived chan arrival
	results chan result

	window   window
	buffered int // bytes in the window
	streams  map[string]*stream
	queue    queue
	tried    []*pending // since their first attempt, oldest first
	resting  []*stream  // without batches, known only for their rest
	blocks   blocks
	name     []byte   // room for a stream's name
	record   []byte   // and for a record
	rooms    [][]byte // and for batches in flight

	asked    bool // for entries
	drained  bool // there will be no more
	inFlight int
	accepted bool // anything, ever

	// Of the destination as a whole:
	limit  int       // batches in flight; halved on failure, regained on success
	rested time.Time // until when it is left alone
	paced  time.Time // until when what was sent takes at the rate allowed
	retry  *backoff.Backoff
	outage outage
}

type arrival struct {
	entries []journal.Entry
	err     error
}

type result struct {
	stream *stream
	batch  Batch
	began  time.Time
	err    error
}

func newLoop(ctx context.Context, d *Delivery, started *sync.WaitGroup) *loop {
	return &loop{
		Delivery: d,
		ctx:      ctx,
		started:  started,
		wanted:   make(chan struct{}, 1),
		arrived:  make(chan arrival),
		results:  make(chan result),
		streams:  make(map[string]*stream),
		queue:    queue{wait: d.BatchWait},
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

// read takes entries from the journal whenever the loop wants some, and waits
// for them until ctx ends.
func (l *loop) read(ctx context.Context) {
	for {
		select {
		case <-l.wanted:
		case <-l.ctx.Done():
			return
		}
		entries, err := l.Consumer.Next(ctx, readRecords)
		if err != nil && ctx.Err() != nil {
			entries, err = nil, nil // nothing is left
		}
		select {
		case l.arrived <- arrival{entries, err}:
		case <-l.ctx.Done():
			return
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

// take sorts entries into batches.
func (l *loop) take(a arrival) error {
	l.asked = false
	if a.err != nil {
		return fmt.Errorf("read journal: %w", a.err)
	}
	l.drained = len(a.entries) == 0
	now := time.Now()
	for i := range a.entries {
		e := &a.entries[i]
		number := l.window.add(e.Offset)
		if r := &e.Record; r.PositionOnly() || (!r.Gap && !l.Match(r)) {
			l.window.settle(number)
			continue
		}
		l.name = l.Sink.AppendStream(l.name[:0], &e.Record)
		s := l.streams[string(l.name)]
		if s == nil {
			s = &stream{name: string(l.name), index: -1}
			l.streams[s.name] = s
		}
		b := s.room(l.BatchBytes)
		if b == nil {
			b = &pending{stream: s.name, opened: now}
			s.batches = append(s.batches, b)
		}
		l.record = l.Sink.AppendRecord(l.record[:0], &e.Record)
		b.data = l.blocks.add(b.data, l.record)
		b.ends = append(b.ends, b.size()+len(l.record))
		b.numbers = append(b.numbers, number)
		b.full = b.size() >= l.BatchBytes
		l.buffered += len(l.record)
		if !s.inFlight {
			l.queue.put(s)
		}
	}
	return l.acknowledge()
}

// dispatch sends what is due and may be sent, and returns when to look again.
func (l *loop) dispatch() (next time.Time) {
	now := time.Now()
	next = now.Add(time.Hour)
	if l.inFlight >= l.limit {
		return next // a result will come
	}
	for l.inFlight < l.limit && l.queue.Len() > 0 {
		hold := l.rested
		if l.paced.After(hold) {
			hold = l.paced
		}
		s := l.queue.streams[0]
		if due := s.due(l.BatchWait); !l.hurry(s) && due.After(hold) {
			hold = due
		}
		if hold.After(now) {
			return hold
		}
		l.queue.pop()
		l.send(s, now)
	}
	return next
}

// hurry reports whether a stream's batch need not wait to be filled.
func (l *loop) hurry(s *stream) bool {
	return (l.drained || l.full()) && !s.rested.After(time.Now())
}

// settle draws the consequences of an attempt. Its error means that delivery
// cannot go on.
func (l *loop) settle(r result) error {
	now := time.Now()
	s, b := r.stream, r.stream.batches[0]
	s.inFlight = false
	l.inFlight--
	l.keepRoom(r.batch.Data)

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
		l.queue.put(s)
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
		s.rested = r.began.Add(takes(l.Size(&r.batch), l.StreamRate))
	}
	for _, number := range b.numbers {
		l.window.settle(number)
	}
	l.buffered -= b.size()
	l.blocks.release(b.data)
	b.settled = true
	s.batches = s.batches[1:]
	if len(s.batches) > 0 {
		l.queue.put(s)
	} else {
		l.forget(s, now)
	}
	return l.acknowledge()
}

// forget lets go of a stream without batches once it has rested.
func (l *loop) forget(s *stream, now time.Time) {
	l.resting = append(l.resting, s)
	for len(l.resting) > 0 && !l.resting[0].rested.After(now) {
		if s := l.resting[0]; len(s.batches) == 0 {
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
		s.grow(l.BatchBytes, &l.blocks)
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
		if err := l.streams[b.stream].outage.err; err != nil {
			s.Err = err
		}
	}
	l.setState(s)
}
