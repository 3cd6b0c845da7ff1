package delivery_test

import (
	"context"
	"testing"

	"github.com/hindsight-events/hindsight/delivery"
	"github.com/hindsight-events/hindsight/event"
	"github.com/hindsight-events/hindsight/journal"
	"github.com/hindsight-events/hindsight/sink"
	"github.com/hindsight-events/hindsight/sink/sinktest"
)

// accepting accepts everything.
type accepting struct{ scripted }

func (*accepting) Send(context.Context, *sink.Batch) error { return nil }

// endless is a journal of n records that are the same few.
type endless struct {
	records []event.Record
	n, next int
	acked   uint64
}

func (e *endless) Next(ctx context.Context, most int, visit func(journal.Entry)) (int, error) {
	if e.next == e.n {
		<-ctx.Done()
		return 0, ctx.Err()
	}
	most = min(most, e.n-e.next)
	for range most {
		e.next++
		visit(journal.Entry{
			Offset: uint64(e.next), Record: &e.records[e.next%len(e.records)],
			Location: journal.Location{Start: uint32(e.next), Bytes: 450},
		})
	}
	return most, nil
}

func (e *endless) Read(places []journal.Location, visit func(*event.Record)) error {
	for _, p := range places {
		visit(&e.records[int(p.Start)%len(e.records)])
	}
	return nil
}

func (e *endless) ReplaceWithGap(uint64) event.Record {
	return event.NewGap(event.Gap{Cause: event.CauseDamage})
}

func (e *endless) Ack(offset uint64) error {
	e.acked = offset
	return nil
}

// BenchmarkDelivery is what the delivery costs a record, without the journal and the
// destination.
func BenchmarkDelivery(b *testing.B) {
	in := &endless{records: inNamespaces(500, sinktest.Records(0, 1000)), n: b.N}
	d, wait := start(b.Context(), delivery.Options{Consumer: in, Sink: &accepting{}, Limits: sink.Limits{Concurrency: 16, BatchBytes: 512}})
	b.ReportAllocs()
	b.ResetTimer()
	d.Drain()
	if err := wait(); err != nil {
		b.Fatal(err)
	}
	if in.acked != uint64(b.N) {
		b.Fatalf("acknowledged %d of %d", in.acked, b.N)
	}
}
