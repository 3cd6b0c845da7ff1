package delivery

import (
	"github.com/hindsight-events/hindsight/delivery/parked"
	"github.com/hindsight-events/hindsight/event"
)

// resumeParked resumes the streams that an earlier delivery parked.
func (l *loop) resumeParked() error {
	for _, q := range l.Parked.Queues() {
		if err := l.reassignParked(q); err != nil {
			return err
		}
	}
	for _, q := range l.Parked.Queues() {
		s := &stream{name: q.Name(), index: -1, queue: q}
		l.parking.streams[s.name] = s
		l.schedule(s)
	}
	if n, _ := l.Parked.Size(); n > 0 {
		l.Logger.Info("resuming parked records", "records", n, "streams", len(l.parking.streams))
	}
	l.updateParked()
	return nil
}

// reassignParked moves the records of a queue to the queues of their streams, if a new
// configuration gives them other streams.
func (l *loop) reassignParked(q *parked.Queue) error {
	var reader event.Reader
	records, err := q.Peek(1, 0)
	if err != nil || len(records) == 0 {
		return nil // sending it reports the damage
	}
	if r, err := reader.Read(records[0].Data); err != nil || string(l.Sink.AppendStream(nil, r)) == q.Name() {
		return nil
	}
	// Records that stay, and those that cannot be decoded, move to the end of the queue.
	for left := q.Len(); left > 0; {
		records, err := q.Peek(1, l.BatchBytes)
		if err != nil {
			return nil
		}
		records = records[:min(len(records), left)]
		left -= len(records)
		for _, p := range records {
			name := q.Name()
			if r, err := reader.Read(p.Data); err == nil {
				name = string(l.Sink.AppendStream(nil, r))
			}
			if err := l.Parked.Queue(name).Append(p.Data, []int{len(p.Data)}, p.ParkedAt); err != nil {
				return err
			}
		}
		if err := q.Drop(records); err != nil {
			return err
		}
	}
	_, err = q.Remove()
	return err
}
