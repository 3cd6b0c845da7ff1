package delivery

import (
	"context"
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

func (f *flight) end(b *pending) { f.batches--; f.bytes -= len(b.data) }

// mayTake reports whether another batch may be sent.
func (f *flight) mayTake(limit int) bool {
	return f.batches == 0 || f.batches < limit && f.bytes < flightBytes
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
