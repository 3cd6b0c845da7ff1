package sink

// blockBytes is how much a block holds: about as much as a record, for there are
// as many blocks half empty as there are streams.
const blockBytes = 1 << 10

// blocks hold the records that wait to be sent. There are some MB of them, in as
// many pieces as there are streams, and each comes and goes within a second or
// two: slices that grow with them were two thirds of all that was allocated.
type blocks struct {
	free [][]byte
}

// add copies data to the end of what is in held.
func (b *blocks) add(held [][]byte, data []byte) [][]byte {
	for len(data) > 0 {
		if len(held) == 0 || len(held[len(held)-1]) == blockBytes {
			held = append(held, b.take())
		}
		last := &held[len(held)-1]
		n := min(len(data), blockBytes-len(*last))
		*last = append(*last, data[:n]...)
		data = data[n:]
	}
	return held
}

func (b *blocks) take() []byte {
	if len(b.free) == 0 {
		return make([]byte, 0, blockBytes)
	}
	last := len(b.free) - 1
	taken := b.free[last]
	b.free = b.free[:last]
	return taken
}

// release lets go of what is in held.
func (b *blocks) release(held [][]byte) {
	for _, block := range held {
		b.free = append(b.free, block[:0])
	}
}
