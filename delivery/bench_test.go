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

// acceptingSink accepts all batches.
type acceptingSink struct{ fakeSink }

func (*acceptingSink) Send(context.Context, *sink.Batch) error { return nil }

// repeatingJournal returns the same few records over and over, n in all.
type repeatingJournal struct {
	records []event.Record
	n, next int
	acked   uint64
}

func (j *repeatingJournal) Next(ctx context.Context, limit int, visit func(journal.Entry)) (int, error) {
	if j.next == j.n {
		<-ctx.Done()
		return 0, ctx.Err()
	}
	limit = min(limit, j.n-j.next)
	for range limit {
		j.next++
		visit(journal.Entry{
			Offset: uint64(j.next), Record: &j.records[j.next%len(j.records)],
			Location: journal.Location{Start: uint32(j.next), Bytes: 450},
		})
	}
	return limit, nil
}

func (j *repeatingJournal) Read(locations []journal.Location, visit func(*event.Record)) error {
	for _, l := range locations {
		visit(&j.records[int(l.Start)%len(j.records)])
	}
	return nil
}

func (j *repeatingJournal) Ack(offset uint64) error {
	j.acked = offset
	return nil
}

// BenchmarkDelivery measures the cost of a record without the journal and the
// destination.
func BenchmarkDelivery(b *testing.B) {
	in := &repeatingJournal{records: inNamespaces(500, sinktest.Records(0, 1000)), n: b.N}
	d, wait := start(b.Context(), delivery.Options{Consumer: in, Sink: &acceptingSink{}, Limits: sink.Limits{Concurrency: 16, BatchBytes: 512}})
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
