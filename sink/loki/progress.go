package loki

import (
	"context"
	"fmt"
	"slices"

	"github.com/hindsight-events/hindsight/sink"
)

// progress is how far a batch has got that was not accepted as a whole.
//
// A push that fails without a word about single entries, whatever the answer is, is
// tried again as it is; then in smaller and smaller parts, until the entry that is to
// blame is alone. That entry is given up only if another one of its stream is
// accepted each time after it was refused: otherwise this is an outage or the wrong
// address, and nothing is given up at all.
type progress struct {
	known   int    // entries of the batch; it may come back longer
	sum     uint64 // of those, so that it is noticed if others come
	open    []int  // entries that are neither stored nor refused, in order
	most    int    // entries in the next push
	ceiling int    // entries in any push, for all that is known
	refused []sink.Rejection

	whole  int // Sends that ended with a refusal of a push as a whole
	proven int // refusals of open[0] alone after which another entry was accepted
	probes int // other entries that were tried after a refusal of open[0]
	stored int // an entry that is stored; -1: none is known
}

const (
	// wholeTries is how often a push is refused as a whole before it is taken
	// apart: most refusals of that kind are outages. Once is enough where others are
	// accepted, or it is not answered in time.
	wholeTries = 3
	// loneTries is how often a single entry is refused, in as many Sends, before
	// it is given up; laterTries is the same where the answer is one of those that
	// an outage has.
	loneTries  = 5
	laterTries = 10
)

func newProgress() *progress { return &progress{stored: -1} }

// grow takes notice of entries that are new at the end of the batch.
func (p *progress) grow(n int) {
	for i := p.known; i < n; i++ {
		p.open = append(p.open, i)
	}
	if p.ceiling == p.known {
		p.ceiling = n // nothing was too large so far
	}
	if p.most == p.known {
		p.most = n
	}
	p.known = n
}

// next returns the entries of the next push: as many of the oldest as may be
// sent at once.
func (p *progress) next(b *sink.Batch) []int {
	n, bytes := 0, 0
	for n < min(p.most, len(p.open)) {
		bytes += len(b.Record(p.open[n]))
		if n > 0 && bytes > pushBytes {
			break
		}
		n++
	}
	return p.open[:n]
}

// settle pushes until every entry is stored or given up.
func (s *Sink) settle(ctx context.Context, b *sink.Batch, p *progress) error {
	for len(p.open) > 0 {
		part := p.next(b)
		v, err := s.push(ctx, b, part)
		if err != nil {
			return err
		}
		switch v.outcome {
		case stored:
			p.settle(part[len(part)-1], len(part))
			continue
		case partly:
			understood, err := s.takeApart(b, p, part, v)
			if err != nil {
				return err
			}
			if understood {
				continue
			}
		case busy:
			if len(part) > 1 {
				p.most = len(part) / 2
				return v.err
			}
		case tooLarge:
			if len(part) > 1 {
				p.ceiling = len(part) / 2
				p.most = p.ceiling
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
		if err := s.lone(ctx, b, p, v); err != nil {
			return err
		}
	}
	return nil
}

// halve makes the next push smaller than one of n entries that has failed as a whole,
// if that may help. It reports whether the next one may be made at once.
func (p *progress) halve(v verdict, alone bool, n int) bool {
	p.whole++
	tries := wholeTries
	if alone || v.slow {
		tries = 1
	}
	if p.whole <= tries {
		return false
	}
	p.most = n / 2
	// What takes its time, or may be an outage, is not asked again and again.
	return !v.slow && (alone || v.outcome == refused)
}

// settle takes the first n open entries, up to last, for stored.
func (p *progress) settle(last, n int) {
	p.open = p.open[n:]
	p.most = min(max(p.most, 2*n), p.ceiling)
	p.stored = last
	p.proven, p.probes = 0, 0
}

// lone decides about the first open entry, which was refused alone. It returns
// nil if the entry is settled.
func (s *Sink) lone(ctx context.Context, b *sink.Batch, p *progress, v verdict) error {
	tries := loneTries
	if v.outcome == later || v.outcome == busy {
		tries = laterTries
	}
	if p.proven >= tries-1 {
		e, err := decode(b.Record(p.open[0]))
		if err != nil {
			return err
		}
		s.giveUp(p, p.open[0], b.Stream, e, v, v.err.Error())
		p.open = p.open[1:]
		p.proven, p.probes = 0, 0
		return nil
	}
	accepted, err := s.probe(ctx, b, p)
	if err != nil {
		return err
	}
	if accepted {
		p.proven++
	}
	p.most = 1
	p.whole++
	e := *v.err
	e.StreamOnly = e.StreamOnly || accepted
	return &e
}

// probe finds out whether the destination takes another entry of the stream, now
// that it has refused the first open one. They take turns, in case another is
// bad as well. If none is left, one that is stored is sent once more.
func (s *Sink) probe(ctx context.Context, b *sink.Batch, p *progress) (accepted bool, err error) {
	k := 0
	if others := len(p.open) - 1; others > 0 {
		k = 1 + p.probes%others
	}
	other := p.stored
	if k > 0 {
		other = p.open[k]
	}
	if other < 0 {
		return false, nil
	}
	p.probes++
	v, err := s.push(ctx, b, []int{other})
	if err != nil || v.outcome != stored {
		return false, err
	}
	p.stored = other
	if k > 0 {
		p.open = slices.Delete(p.open, k, k+1)
	}
	return true, nil
}

// takeApart settles what Loki has said of single entries of a part. It returns
// false if what it said cannot be about them, and an error if some have to be
// sent again later.
func (s *Sink) takeApart(b *sink.Batch, p *progress, part []int, v verdict) (understood bool, err error) {
	entries := make([]entry, len(part))
	for k, i := range part {
		if entries[k], err = decode(b.Record(i)); err != nil {
			return false, err
		}
	}
	fates, ok := v.refusal.fates(entries)
	if !ok {
		return false, nil
	}
	again := false
	settled := make(map[int]bool, len(part))
	for k, f := range fates {
		switch f.kind {
		case open:
			again = true
			continue
		case dropped:
			s.giveUp(p, part[k], b.Stream, entries[k], v, f.reason)
		case kept:
			p.stored = part[k]
		case suspect:
			s.giveUp(p, part[k], b.Stream, entries[k], v, "suspect, it may be stored: "+f.reason)
		}
		settled[part[k]] = true
	}
	size := len(part)
	p.open = slices.DeleteFunc(p.open, func(i int) bool { return settled[i] })
	switch {
	case again && v.refusal.noMetadata > 0:
		return true, v.err
	case again && v.refusal.rateLimited:
		p.most = max(1, size/2)
		v.err.Reason, v.err.StreamOnly = sink.ReasonRateLimited, true
		return true, v.err
	}
	return true, nil
}

// giveUp writes an entry to the dead letters.
func (s *Sink) giveUp(p *progress, i int, stream string, e entry, v verdict, reason string) {
	s.dead.write(letter{Status: v.status, Error: reason, Labels: stream, entry: e})
	p.refused = append(p.refused, sink.Rejection{Index: i, Reason: reason})
}

// push sends some entries of a batch in one push.
func (s *Sink) push(ctx context.Context, b *sink.Batch, part []int) (verdict, error) {
	ctx, cancel, err := sink.BeginRequest(ctx)
	if err != nil {
		return verdict{}, fmt.Errorf("push to %s: %w", s.client.shown, err)
	}
	defer cancel()
	entries := [][]byte{b.Data}
	if len(part) < b.Len() {
		entries = make([][]byte, len(part))
		for k, i := range part {
			entries[k] = b.Record(i)
		}
	}
	return s.client.try(ctx, encode(b.Stream, entries...))
}
