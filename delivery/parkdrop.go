package delivery

import (
	"cmp"
	"errors"
	"fmt"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/hindsight-events/hindsight/delivery/parked"
	"github.com/hindsight-events/hindsight/event"
	"github.com/hindsight-events/hindsight/sink"
)

// keepBound gives up the oldest records of the largest queue as long as all parked
// records together exceed the bound.
func (l *loop) keepBound() {
	l.parking.giveUp.Lock()
	defer l.parking.giveUp.Unlock()
	for {
		q, over := l.Parked.Excess()
		if q == nil {
			return
		}
		records, err := q.Peek(1, int(min(over, int64(l.BatchBytes))))
		switch {
		case errors.Is(err, parked.ErrDamaged):
			l.loseParked(q, err)
			continue
		case err != nil:
			l.Logger.Warn("parked records exceed their bound and cannot be read", "stream", q.Name(), "err", err)
			return
		}
		if !l.parking.exceeded {
			l.parking.exceeded = true
			l.Logger.Error("parked records exceed their bound; giving up the oldest", "stream", q.Name())
		}
		l.abandon(q, records, l.metrics.overflown, "the stream is refused, and too many records are parked")
	}
}

// loseParked drops the records of a queue that cannot be read.
func (d *Delivery) loseParked(q *parked.Queue, err error) {
	n, dropErr := q.DropAll()
	d.Logger.Error("parked records are damaged and are lost", "stream", q.Name(), "records", n, "err", err, "drop_err", dropErr)
	d.metrics.damaged.Add(float64(n))
}

// DropParked gives up all parked records if they are kept in memory, and returns their
// number. It may be called only after Run has returned.
func (d *Delivery) DropParked() (records int) {
	if d.Parked.Durable() {
		return 0
	}
	reason := "the stream was refused until the end of the process"
	state := d.State()
	if err := cmp.Or(errors.Unwrap(state.NeedsOperator), state.ParkedErr, state.Err); err != nil {
		reason += ": " + err.Error()
	}
	for _, q := range d.Parked.Queues() {
		for q.Len() > 0 {
			front, err := q.Peek(1, d.BatchBytes)
			if err != nil || len(front) == 0 {
				break
			}
			d.abandon(q, front, d.metrics.ended, reason)
			records += len(front)
		}
	}
	return records
}

// abandon gives up records: it passes them to a sink that keeps dead letters, else
// logs their number, and removes them from their queue.
func (d *Delivery) abandon(q *parked.Queue, records []parked.Record, count prometheus.Counter, reason string) {
	count.Add(float64(len(records)))
	if d.OnRejected != nil {
		d.OnRejected(reason)
	}
	if to, ok := d.Sink.(sink.DeadLetterer); ok {
		var reader event.Reader
		b := sink.Batch{Stream: q.Name()}
		for _, p := range records {
			if r, err := reader.Read(p.Data); err == nil {
				b.Data = d.Sink.AppendRecord(b.Data, r)
				b.Ends = append(b.Ends, len(b.Data))
			}
		}
		to.DeadLetter(&b, reason)
	} else {
		d.Logger.Error("giving up parked records", "stream", q.Name(), "records", len(records), "reason", reason)
	}
	if err := q.Drop(records); err != nil {
		d.Logger.Warn("cannot remove records that were given up from their parking file; a restart may send them", "err", fmt.Errorf("stream %s: %w", q.Name(), err))
	}
}
