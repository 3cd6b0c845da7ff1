package loki

import (
	"context"
	"fmt"
	"slices"

	"github.com/hindsight-events/hindsight/sink"
)

// batchState is how far a batch has got that was not accepted as a whole.
//
// A push that fails without a word about single entries, whatever the answer is, is
// tried again as it is; then in smaller and smaller parts, until the entry that is to
// blame is alone. That entry is given up only if another one of its stream is
// accepted each time after it was refused: otherwise this is an outage or the wrong
// address, and nothing is given up at all.
type batchState struct {
	size           int    // entries of the batch; it may come back longer
	checksum       uint64 // of those, so that it is noticed if others come
	pending        []int  // entries that are neither stored nor refused, in order
	pushEntries    int    // entries in the next push
	maxPushEntries int    // entries in any push, for all that is known
	rejected       []sink.Rejection

	wholeRejections int // Sends that ended with a refusal of a push as a whole
	confirmed       int // refusals of open[0] alone after which another entry was accepted
	probes          int // other entries that were tried after a refusal of open[0]
	storedEntry     int // an entry that is stored; -1: none is known
}

const (
	// wholeAttempts is how often a push is refused as a whole before it is taken
	// apart: most refusals of that kind are outages. Once is enough where others are
	// accepted, or it is not answered in time.
	wholeAttempts = 3
	// isolatedAttempts is how often a single entry is refused, in as many Sends, before
	// it is given up; laterTries is the same where the answer is one of those that
	// an outage has.
	isolatedAttempts      = 5
	isolatedRetryAttempts = 10
)

func newBatchState() *batchState { return &batchState{storedEntry: -1} }

// grow takes notice of entries that are new at the end of the batch.
func (p *batchState) grow(n int) {
	for i := p.size; i < n; i++ {
		p.pending = append(p.pending, i)
	}
	if p.maxPushEntries == p.size {
		p.maxPushEntries = n // nothing was too large so far
	}
	if p.pushEntries == p.size {
		p.pushEntries = n
	}
	p.size = n
}

// nextPush returns the entries of the next push: as many of the oldest as may be
// sent at once.
func (p *batchState) nextPush(b *sink.Batch) []int {
	n, bytes := 0, 0
	for n < min(p.pushEntries, len(p.pending)) {
		bytes += len(b.Record(p.pending[n]))
		if n > 0 && bytes > pushBytes {
			break
		}
		n++
	}
	return p.pending[:n]
}

// pushAll pushes until every entry is stored or given up.
func (s *Sink) pushAll(ctx context.Context, b *sink.Batch, p *batchState) error {
	for len(p.pending) > 0 {
		part := p.nextPush(b)
		v, err := s.push(ctx, b, part)
		if err != nil {
			return err
		}
		switch v.outcome {
		case pushAccepted:
			p.accept(part[len(part)-1], len(part))
			continue
		case pushPartlyRejected:
			understood, err := s.applyPartial(b, p, part, v)
			if err != nil {
				return err
			}
			if understood {
				continue
			}
		case pushRetrySmaller:
			if len(part) > 1 {
				p.pushEntries = len(part) / 2
				return v.err
			}
		case pushTooLarge:
			if len(part) > 1 {
				p.maxPushEntries = len(part) / 2
				p.pushEntries = p.maxPushEntries
				continue
			}
		}

		// The push failed as a whole.
		if len(part) > 1 {
			if p.halve(v, b.Isolate, len(part)) {
				continue
			}
			return v.err
		}
		if err := s.isolate(ctx, b, p, v); err != nil {
			return err
		}
	}
	return nil
}

// halve makes the next push smaller than one of n entries that has failed as a whole,
// if that may help. It reports whether the next one may be made at once.
func (p *batchState) halve(v result, alone bool, n int) bool {
	p.wholeRejections++
	tries := wholeAttempts
	if alone || v.timedOut {
		tries = 1
	}
	if p.wholeRejections <= tries {
		return false
	}
	p.pushEntries = n / 2
	// What takes its time, or may be an outage, is not asked again and again.
	return !v.timedOut && (alone || v.outcome == pushRejected)
}

// settle takes the first n open entries, up to last, for stored.
func (p *batchState) accept(last, n int) {
	p.pending = p.pending[n:]
	p.pushEntries = min(max(p.pushEntries, 2*n), p.maxPushEntries)
	p.storedEntry = last
	p.confirmed, p.probes = 0, 0
}

// isolate decides about the first open entry, which was refused alone. It returns
// nil if the entry is settled.
func (s *Sink) isolate(ctx context.Context, b *sink.Batch, p *batchState, v result) error {
	tries := isolatedAttempts
	if v.outcome == pushRetry || v.outcome == pushRetrySmaller {
		tries = isolatedRetryAttempts
	}
	if p.confirmed >= tries-1 {
		e, err := decode(b.Record(p.pending[0]))
		if err != nil {
			return err
		}
		s.deadLetterEntry(p, p.pending[0], b.Stream, e, v, v.err.Error())
		p.pending = p.pending[1:]
		p.confirmed, p.probes = 0, 0
		return nil
	}
	accepted, err := s.probe(ctx, b, p)
	if err != nil {
		return err
	}
	if accepted {
		p.confirmed++
	}
	p.pushEntries = 1
	p.wholeRejections++
	e := *v.err
	e.StreamOnly = e.StreamOnly || accepted
	return &e
}

// probe finds out whether the destination takes another entry of the stream, now
// that it has refused the first open one. They take turns, in case another is
// bad as well. If none is left, one that is stored is sent once more.
func (s *Sink) probe(ctx context.Context, b *sink.Batch, p *batchState) (accepted bool, err error) {
	k := 0
	if others := len(p.pending) - 1; others > 0 {
		k = 1 + p.probes%others
	}
	other := p.storedEntry
	if k > 0 {
		other = p.pending[k]
	}
	if other < 0 {
		return false, nil
	}
	p.probes++
	v, err := s.push(ctx, b, []int{other})
	if err != nil || v.outcome != pushAccepted {
		return false, err
	}
	p.storedEntry = other
	if k > 0 {
		p.pending = slices.Delete(p.pending, k, k+1)
	}
	return true, nil
}

// applyPartial settles what Loki has said of single entries of a part. It returns
// false if what it said cannot be about them, and an error if some have to be
// sent again later.
func (s *Sink) applyPartial(b *sink.Batch, p *batchState, part []int, v result) (understood bool, err error) {
	entries := make([]entry, len(part))
	for k, i := range part {
		if entries[k], err = decode(b.Record(i)); err != nil {
			return false, err
		}
	}
	fates, ok := v.rejection.statuses(entries)
	if !ok {
		return false, nil
	}
	again := false
	settled := make(map[int]bool, len(part))
	for k, f := range fates {
		switch f.kind {
		case entryPending:
			again = true
			continue
		case entryRejected:
			s.deadLetterEntry(p, part[k], b.Stream, entries[k], v, f.reason)
		case entryStored:
			p.storedEntry = part[k]
		case entryUnknown:
			s.deadLetterEntry(p, part[k], b.Stream, entries[k], v, "suspect, it may be stored: "+f.reason)
		}
		settled[part[k]] = true
	}
	size := len(part)
	p.pending = slices.DeleteFunc(p.pending, func(i int) bool { return settled[i] })
	switch {
	case again && v.rejection.metadataDisallowed > 0:
		return true, v.err
	case again && v.rejection.rateLimited:
		p.pushEntries = max(1, size/2)
		v.err.Reason, v.err.StreamOnly = sink.ReasonRateLimited, true
		return true, v.err
	}
	return true, nil
}

// deadLetterEntry writes an entry to the dead letters.
func (s *Sink) deadLetterEntry(p *batchState, i int, stream string, e entry, v result, reason string) {
	s.deadLetters.write(deadLetter{Status: v.status, Error: reason, Labels: stream, entry: e})
	p.rejected = append(p.rejected, sink.Rejection{Index: i, Reason: reason})
}

// push sends some entries of a batch in one push.
func (s *Sink) push(ctx context.Context, b *sink.Batch, part []int) (result, error) {
	ctx, cancel, err := sink.BeginRequest(ctx)
	if err != nil {
		return result{}, fmt.Errorf("push to %s: %w", s.client.redactedURL, err)
	}
	defer cancel()
	entries := [][]byte{b.Data}
	if len(part) < b.Len() {
		entries = make([][]byte, len(part))
		for k, i := range part {
			entries[k] = b.Record(i)
		}
	}
	return s.client.attempt(ctx, encode(b.Stream, entries...))
}
