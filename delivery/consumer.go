package delivery

import (
	"context"

	"github.com/hindsight-events/hindsight/event"
	"github.com/hindsight-events/hindsight/journal"
)

// Consumer is the part of the journal that a delivery needs; journal.Consumer documents
// the methods.
type Consumer interface {
	Next(ctx context.Context, max int, visit func(journal.Entry)) (int, error)
	Read(locations []journal.Location, visit func(*event.Record)) error
	Ack(offset uint64) error
}
