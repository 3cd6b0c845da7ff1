package delivery

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/grafana/loki-client-go/pkg/backoff"

	"github.com/hindsight-events/hindsight/journal"
)

// loop is a running Delivery. The goroutine of run owns its state; the others communicate
// with it through channels:
//
//	fetch ──► run ──► sendOnce (a goroutine for each batch in flight)
//	           ▲          │
//	           └──────────┘
//
// Records that wait to be sent stay in the journal, which is read twice: to find the
// stream of a record, and to build a batch of that stream. So more records can wait than
// memory can hold, and batches are large even with many streams.
type loop struct {
	*Delivery
	ctx        context.Context
	goroutines *sync.WaitGroup
	began      time.Time

	requests chan struct{}
	fetched  chan *fetched
	results  chan result

	window       window
	pendingBytes int // of matching incomplete entries, in the journal
	streams      map[string]*stream
	queue        dueQueue
	faulty       dueQueue  // of faulty streams; see failure
	attempted    []*batch  // incomplete batches, by their first attempt
	idle         []*stream // without entries, kept until their delay has passed
	locations    []journal.Location
	freeBuffers  []buffer

	ackOffset uint64    // of the last completed entry before the window
	ackBy     time.Time // when to acknowledge it to the journal; zero: it is acknowledged

	requested      bool     // entries were requested from fetch
	drained        bool     // the journal will have no more entries
	inFlight       inFlight // batches of queue
	faultyInFlight inFlight // batches of faulty

	// Attempts are numbered in the order of their start, which shows whether an attempt
	// began after the end of another.
	attempts     uint64    // started so far
	lastAccepted uint64    // the highest accepted one
	acceptedAt   time.Time // of the last accepted one; zero: none was
	failing      map[*stream]struct{}

	// State of the destination as a whole.
	concurrency       int // bound of batches in flight; halved by a failure, raised by a success
	backoff           *backoff.Backoff
	backoffUntil      time.Time
	rateUntil         time.Time // when Rate permits the next batch
	burstUntil        time.Time // batches that are due before are sent
	failures          int       // consecutive
	attemptsAtFailure uint64    // number of attempts started when one failed last
	outage            *outage
	gapErr            error // a gap record was rejected
	journalErr        error // ends the delivery

	streamOutage *outage // of faulty streams
	parking      parking
}

func newLoop(ctx context.Context, d *Delivery, goroutines *sync.WaitGroup) *loop {
	return &loop{
		Delivery:     d,
		ctx:          ctx,
		goroutines:   goroutines,
		began:        time.Now(),
		requests:     make(chan struct{}, 1),
		fetched:      make(chan *fetched),
		results:      make(chan result),
		streams:      make(map[string]*stream),
		failing:      make(map[*stream]struct{}),
		concurrency:  d.Concurrency,
		backoff:      newBackoff(ctx, d.MinBackoff, d.MaxBackoff),
		outage:       &outage{log: d.Logger.With("scope", "destination")},
		streamOutage: &outage{log: d.Logger.With("scope", "faulty streams")},
		parking:      parking{streams: make(map[string]*stream)},
	}
}

// run delivers until ctx ends or, after Drain, until no records are left. Its error
// ends the delivery.
func (l *loop) run() (err error) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	defer func() {
		err = errors.Join(err, l.writeAck())
		l.outage.end(time.Now())
		l.streamOutage.end(time.Now())
	}()
	if err := l.resumeParked(); err != nil {
		return err
	}
	for {
		l.requestMore()
		next := l.sendDue()
		if !l.ackBy.IsZero() && l.ackBy.Before(next) {
			next = l.ackBy
		}
		timer.Reset(time.Until(next))
		if l.journalErr != nil {
			return l.journalErr
		}
		l.updateState()
		if l.drained && l.window.len() == 0 && l.canLeaveParked() {
			return nil
		}
		select {
		case f := <-l.fetched:
			if err := l.addFetched(f); err != nil {
				return err
			}
		case r := <-l.results:
			if err := l.complete(r); err != nil {
				return err
			}
		case <-timer.C:
			if err := l.acknowledge(); err != nil {
				return err
			}
		case <-l.ctx.Done():
			return nil
		}
	}
}
