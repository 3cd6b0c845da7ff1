package sink

// Batch is a number of consecutive records of one stream.
type Batch struct {
	Stream string

	// Isolate is set if the last attempt of the stream failed and the destination has
	// accepted other streams since. Then some of the records probably cause the
	// failure, and a Sink may isolate and reject them.
	Isolate bool

	Data []byte // the records as AppendRecord encoded them, concatenated
	Ends []int  // the end of each record in Data
}

// Len returns the number of records.
func (b *Batch) Len() int { return len(b.Ends) }

// Record returns the i-th record.
func (b *Batch) Record(i int) []byte {
	start := 0
	if i > 0 {
		start = b.Ends[i-1]
	}
	return b.Data[start:b.Ends[i]]
}
