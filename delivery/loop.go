package delivery

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/grafana/loki-client-go/pkg/backoff"

	"github.com/hindsight-events/hindsight/event"
	"github.com/hindsight-events/hindsight/journal"
	"github.com/hindsight-events/hindsight/sink"
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
	aside    dueQueue   // of streams that are refused while others are accepted
	tried    []*pending // since their first attempt, oldest first
	resting  []*stream  // without entries, known only for their rest
	places   []journal.Location
	rooms    []room // for batches

	asked    bool   // for entries
	drained  bool   // there will be no more
	flight   flight // of the streams in queue
	detour   flight // of those in aside
	accepted bool   // anything, ever

	// Attempts are numbered as they begin, so that it is known which of two things
	// came first.
	attempts     uint64    // begun so far
	lastAccepted uint64    // the latest one of those that were accepted
	acceptedAt   time.Time // when an attempt was accepted last
	failing      map[*stream]struct{}

	// Of the destination as a whole:
	limit    int       // batches in flight; halved on failure, regained on success
	rested   time.Time // until when it is left alone
	paced    time.Time // until when what was sent takes at the rate allowed
	retry    *backoff.Backoff
	failures int    // in a row
	failed   uint64 // attempts begun when one last failed
	outage   *outage
	healing  []*outage // that may be over
	gapErr   error     // why a gap record was refused

	streamOutage *outage // of streams that are refused while others are accepted
	parking      parking
}

// flight is batches that have been sent and not answered.
type flight struct{ batches, bytes int }

func (f *flight) begin(b *pending) { f.batches++; f.bytes += len(b.data) }
func (f *flight) end(b *pending)   { f.batches--; f.bytes -= len(b.data) }

// mayTake reports whether another batch may be sent.
func (f *flight) mayTake(limit int) bool {
	return f.batches == 0 || f.batches < limit && f.bytes < flightBytes
}

type result struct {
	stream *stream
	number uint64 // of the attempt
	began  time.Time
	err    error
	to     *flight // which it belongs to
	parked bool    // it was not sent, but parked
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
		failing:  make(map[*stream]struct{}),
		limit:    d.Concurrency,
		retry:    newBackoff(ctx, d.MinBackoff, d.MaxBackoff),
		outage: &outage{
			log:    d.Logger,
			begins: "sending failed and will be repeated until it succeeds",
			over:   "sending works again",
		},
		streamOutage: &outage{
			log:    d.Logger,
			begins: "a stream is refused while others are accepted, and will be sent again until it is accepted",
			over:   "all streams are accepted again",
		},
		parking: parking{streams: make(map[string]*stream)},
	}
}

func (l *loop) run() error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	defer l.endOutages()
	if err := l.resumeParked(); err != nil {
		return err
	}
	for {
		l.want()
		timer.Reset(time.Until(l.dispatch()))
		l.publish()
		if l.drained && l.window.len() == 0 && l.mayLeaveParked() {
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
	look := func(at time.Time) {
		if at.Before(next) {
			next = at
		}
	}
	look(l.checkOutages(now))
	look(l.parkOverdue(now))
	look(l.dispatchParking(now))
	aside := asideFlight
	if l.failures > 1 {
		aside = 1 // the destination itself may be down
	}
	look(l.dispatchTo(&l.aside, &l.detour, aside, now))
	look(l.dispatchTo(&l.queue, &l.flight, l.limit, now))
	return next
}

// dispatchTo sends what is due in one queue. Where as much is in flight as may be, a
// result will come.
func (l *loop) dispatchTo(q *dueQueue, f *flight, limit int, now time.Time) (next time.Time) {
	for f.mayTake(limit) && q.Len() > 0 {
		hold := l.rested
		if l.paced.After(hold) {
			hold = l.paced
		}
		s := (*q)[0]
		if due := l.began.Add(s.due); !l.hurry(s, now) && due.After(hold) {
			hold = due
		}
		if hold.After(now) {
			return hold
		}
		l.send(q.pop(), f, now)
	}
	return now.Add(time.Hour)
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
	r.to.end(b)
	if r.parked {
		return l.settleParking(r, now)
	}

	var why *sink.Error
	errors.As(r.err, &why)
	refused := 0
	switch {
	case r.err == nil:
	case why != nil && len(why.Rejected) > 0:
		refused = len(why.Rejected)
		l.refused(b, why)
	case why != nil && why.Permanent:
		return r.err
	default:
		l.fail(r, why, now)
		l.enqueue(s)
		if s.queue != nil {
			l.parkMore(s)
		}
		return nil
	}
	l.metrics.sent.Add(float64(b.len() - refused))
	if refused < b.len() {
		l.wasAccepted(r, now)
	}
	recovered := s.failing != nil
	s.failing = nil
	delete(l.failing, s)
	if recovered {
		l.healStreams(now)
	}
	if r.err == nil && len(b.gaps) > 0 {
		l.gapErr = nil
	}
	s.rested = time.Time{}
	if l.StreamRate > 0 {
		s.rested = r.began.Add(takes(len(b.data), l.StreamRate))
	}
	n := b.len()
	l.keepRoom(b.room)
	b.room, b.settled = room{}, true
	s.batch = nil
	if s.queue != nil {
		return l.acceptedParked(s, b, recovered, now)
	}
	return l.release(s, n, now)
}

// refused counts the records of a batch that the destination will never accept.
func (l *loop) refused(b *pending, why *sink.Error) {
	l.metrics.refused.Add(float64(len(why.Rejected)))
	l.Logger.Error("records were refused for good and are dropped", "stream", b.stream.name, "records", len(why.Rejected), "first", why.Rejected[0].Reason)
	if l.OnRejected != nil {
		l.OnRejected(why.Rejected[0].Reason)
	}
	for _, r := range why.Rejected {
		if slices.Contains(b.gaps, r.Index) {
			l.gapRefused(b.stream.name, r.Reason)
		}
	}
}

// wasAccepted says that the destination works, unless something has failed since
// the attempt began.
func (l *loop) wasAccepted(r result, now time.Time) {
	l.accepted = true
	l.acceptedAt = now
	l.lastAccepted = max(l.lastAccepted, r.number)
	if r.number <= l.failed {
		return
	}
	l.limit = min(l.limit+1, l.Concurrency)
	l.heal(l.outage, now)
	l.failures = 0
	l.retry.Reset()
	l.rested = time.Time{}
}

// release settles the first n entries of a stream.
func (l *loop) release(s *stream, n int, now time.Time) error {
	for range n {
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
	s := State{Err: l.outage.err, Accepted: l.accepted, Mend: l.parking.mend, Parked: l.parking.err}
	if s.Mend == nil {
		s.Mend = l.gapErr
	}
	if len(l.tried) > 0 {
		b := l.tried[0]
		s.Since = b.tried
		if f := b.stream.failing; f != nil && (f.alone || f.streamed) {
			s.Err = f.err
		}
	}
	l.setState(s)
}
