package sink

import "time"

// Limits describe the load that a destination can bear.
type Limits struct {
	BatchBytes  int // bound of Batch.Data, unless a single record is larger; default 512 KiB
	Concurrency int // batches in flight at the same time; default 1

	// BatchWait is the longest wait for a batch to fill; default 0. NormalBatchWait is that of
	// a batch in which all records are Events of type Normal; at least BatchWait.
	BatchWait, NormalBatchWait time.Duration

	// Timeout bounds one attempt; 0: none.
	Timeout time.Duration

	// MultiRequest means that Send makes several requests and calls BeginRequest
	// before each. For any other sink, the fence bounds the whole Send.
	MultiRequest bool

	// Rate bounds the bytes a second of all streams, counted by Size; StreamRate the
	// bytes of Batch.Data a second of one stream; 0: no bound.
	Rate, StreamRate float64

	// Size returns the bytes that the destination counts for a batch; nil: the length
	// of Batch.Data. One goroutine calls it.
	Size func(*Batch) int

	// WindowBytes bounds the records that were read from the journal and are not
	// completed, by their bytes in the journal; default 64 MiB. The window takes little
	// memory, but a full journal that drops its oldest records keeps these.
	WindowBytes int

	// MinBackoff and MaxBackoff bound the delay after a failure; defaults 500 ms and
	// 30 s.
	MinBackoff, MaxBackoff time.Duration
}
