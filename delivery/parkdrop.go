package delivery

import (
	"cmp"
	"errors"

	"github.com/hindsight-events/hindsight/delivery/parked"
	"github.com/hindsight-events/hindsight/event"
	"github.com/hindsight-events/hindsight/sink"
)

// dropExcess drops the oldest records of the largest queue while all parked records
// together exceed the bound.
func (l *loop) dropExcess() {
	l.parking.dropping.Lock()
	defer l.parking.dropping.Unlock()
	for {
		q, over := l.Parked.Excess()
		if q == nil {
			return
		}
		records, err := q.Peek(1, int(min(over, int64(l.BatchBytes))))
		switch {
		case errors.Is(err, parked.ErrDamaged):
			l.dropDamaged(q, err)
			continue
		case err != nil:
			l.Logger.Warn("parked records exceed their bound and cannot be read", "stream", q.Name(), "err", err)
			return
		}
		if !l.parking.overflowing {
			l.parking.overflowing = true
			l.Logger.Error("parked records exceed their bound; dropping the oldest", "stream", q.Name())
		}
		l.dropRecords(q, records, droppedParkedOverflow, "the stream is refused, and too many records are parked")
	}
}

// dropDamaged drops the records of a queue that cannot be read.
func (d *Delivery) dropDamaged(q *parked.Queue, err error) {
	n, dropErr := q.DropAll()
	d.Logger.Error("parked records are damaged; dropping them", "stream", q.Name(), "records", n, "err", err, "drop_err", dropErr)
	d.metrics.countDropped(droppedDamaged, n)
}

// DropParked drops all parked records if they are kept in memory, and returns their
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
			oldest, err := q.Peek(1, d.BatchBytes)
			if err != nil || len(oldest) == 0 {
				break
			}
			d.dropRecords(q, oldest, droppedParkedLost, reason)
			records += len(oldest)
		}
	}
	return records
}

// dropRecords removes records from their queue and counts them by the label. They become
// dead letters if the sink stores those; otherwise their number is logged.
func (d *Delivery) dropRecords(q *parked.Queue, records []parked.Record, label, reason string) {
	d.metrics.countDropped(label, len(records))
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
		d.Logger.Error("dropping parked records", "stream", q.Name(), "records", len(records), "reason", reason)
	}
	if err := q.Drop(records); err != nil {
		d.Logger.Warn("cannot remove dropped records from their queue; a restart may send them", "stream", q.Name(), "err", err)
	}
}
