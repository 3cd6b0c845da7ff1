package delivery

import (
	"context"

	"github.com/hindsight-events/hindsight/event"
	"github.com/hindsight-events/hindsight/journal"
)

// Consumer is the part of journal.Consumer that a delivery needs. One goroutine calls Next,
// another one Read and Ack.
type Consumer interface {
	// Next visits up to limit entries after those it has visited before. It waits for one
	// until ctx ends, and visits the available ones even then.
	Next(ctx context.Context, limit int, visit func(journal.Entry)) (int, error)

	// Read visits records that Next has visited and that are not acknowledged, in the order
	// of their locations. It stops at a record that cannot be read, with an error.
	Read(locations []journal.Location, visit func(*event.Record)) error

	// Ack acknowledges all entries up to an offset. An error ends the delivery.
	Ack(offset uint64) error
}
