package loki

import (
	"context"
	"fmt"
	"slices"

	"github.com/hindsight-events/hindsight/sink"
)

// batchState is the progress of a batch that Loki did not accept in one push.
//
// A push that fails without a reason for single entries is retried unchanged at first, then in
// halves, until the entry that causes the failure is alone. That entry becomes a dead letter
// only if Loki accepts another entry of the stream after each of its rejections: otherwise the
// cause is an outage or a wrong address, and all entries are kept.
type batchState struct {
	size           int    // entries of the batch; it may grow between two Sends
	checksum       uint64 // of these entries, to detect a Send of other ones
	pending        []int  // entries that are neither stored nor rejected, in order
	pushEntries    int    // bound of the next push
	maxPushEntries int    // bound of every push: larger ones were too large
	rejected       []sink.Rejection
	statusCodes    []int // of the responses that rejected them

	failures    int // Sends that ended with a push that failed as a whole
	confirmed   int // rejections of pending[0] alone after which another entry was accepted
	probes      int // other entries that were sent after a rejection of pending[0]
	storedEntry int // any entry that is stored; -1: none is known
}

const (
	// wholeAttempts is how often a push fails as a whole before it is halved: most of
	// these failures are outages. One attempt is enough if Loki accepts other streams
	// or the push timed out.
	wholeAttempts = 3
	// isolatedAttempts is how often an entry is rejected alone, once for each Send,
	// before it becomes a dead letter; isolatedRetryAttempts is the same for responses
	// that are typical of outages.
	isolatedAttempts      = 5
	isolatedRetryAttempts = 10
)

func newBatchState() *batchState { return &batchState{storedEntry: -1} }

// grow adds the entries that are new at the end of a batch of n.
func (p *batchState) grow(n int) {
	for i := p.size; i < n; i++ {
		p.pending = append(p.pending, i)
	}
	if p.maxPushEntries == p.size {
		p.maxPushEntries = n // no push was too large so far
	}
	if p.pushEntries == p.size {
		p.pushEntries = n
	}
	p.size = n
}

// nextPush returns the entries of the next push: the oldest pending ones.
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

// pushAll pushes until every entry is stored or rejected.
func (s *Sink) pushAll(ctx context.Context, b *sink.Batch, p *batchState) error {
	for len(p.pending) > 0 {
		entries := p.nextPush(b)
		r, err := s.push(ctx, b, entries)
		if err != nil {
			return err
		}
		switch r.outcome {
		case pushAccepted:
			p.accept(entries[len(entries)-1], len(entries))
			continue
		case pushPartlyRejected:
			applied, err := s.applyPartial(b, p, entries, r)
			if err != nil {
				return err
			}
			if applied {
				continue
			}
		case pushRetrySmaller:
			if len(entries) > 1 {
				p.pushEntries = len(entries) / 2
				return r.err
			}
		case pushTooLarge:
			if len(entries) > 1 {
				p.maxPushEntries = len(entries) / 2
				p.pushEntries = p.maxPushEntries
				continue
			}
		}

		// The push failed as a whole.
		if len(entries) > 1 {
			if p.halve(r, b.Isolate, len(entries)) {
				continue
			}
			return r.err
		}
		if err := s.isolate(ctx, b, p, r); err != nil {
			return err
		}
	}
	return nil
}

// halve makes the next push smaller after enough pushes of n entries have failed as a whole. It
// reports whether to send the next one without backoff.
func (p *batchState) halve(r result, isolate bool, n int) bool {
	p.failures++
	attempts := wholeAttempts
	if isolate || r.timedOut {
		attempts = 1
	}
	if p.failures <= attempts {
		return false
	}
	p.pushEntries = n / 2
	return !r.timedOut && (isolate || r.outcome == pushRejected)
}

// accept marks the first n pending entries, up to last, as stored.
func (p *batchState) accept(last, n int) {
	p.pending = p.pending[n:]
	p.pushEntries = min(max(p.pushEntries, 2*n), p.maxPushEntries)
	p.storedEntry = last
	p.confirmed, p.probes = 0, 0
}

// isolate handles the rejection of the first pending entry, which was sent alone. It returns nil
// once the entry is a dead letter, and the error of this Send before that.
func (s *Sink) isolate(ctx context.Context, b *sink.Batch, p *batchState, r result) error {
	attempts := isolatedAttempts
	if r.outcome == pushRetry || r.outcome == pushRetrySmaller {
		attempts = isolatedRetryAttempts
	}
	if p.confirmed >= attempts-1 {
		p.reject(p.pending[0], r.status, r.err.Error())
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
	p.failures++
	e := *r.err
	e.StreamOnly = e.StreamOnly || accepted
	return &e
}

// probe reports whether Loki accepts another entry of the stream after it has rejected the first
// pending one. Each call takes the next entry, since several may be bad. If no other entry is
// pending, a stored one is sent again.
func (s *Sink) probe(ctx context.Context, b *sink.Batch, p *batchState) (accepted bool, err error) {
	k := 0
	if others := len(p.pending) - 1; others > 0 {
		k = 1 + p.probes%others
	}
	entry := p.storedEntry
	if k > 0 {
		entry = p.pending[k]
	}
	if entry < 0 {
		return false, nil
	}
	p.probes++
	r, err := s.push(ctx, b, []int{entry})
	if err != nil || r.outcome != pushAccepted {
		return false, err
	}
	p.storedEntry = entry
	if k > 0 {
		p.pending = slices.Delete(p.pending, k, k+1)
	}
	return true, nil
}

// applyPartial applies a rejection of single entries of a push. It returns false if the rejection
// does not match the entries, and an error if some of them have to be sent later.
func (s *Sink) applyPartial(b *sink.Batch, p *batchState, pushed []int, r result) (applied bool, err error) {
	entries := make([]entry, len(pushed))
	for k, i := range pushed {
		if entries[k], err = decode(b.Record(i)); err != nil {
			return false, err
		}
	}
	statuses, ok := r.rejection.statuses(entries)
	if !ok {
		return false, nil
	}
	incomplete := false
	done := make(map[int]bool, len(pushed))
	for k, st := range statuses {
		switch st.state {
		case entryPending:
			incomplete = true
			continue
		case entryRejected:
			p.reject(pushed[k], r.status, st.reason)
		case entryStored:
			p.storedEntry = pushed[k]
		case entryUnknown:
			p.reject(pushed[k], r.status, "may be stored, Loki does not identify all rejected entries: "+st.reason)
		}
		done[pushed[k]] = true
	}
	n := len(pushed)
	p.pending = slices.DeleteFunc(p.pending, func(i int) bool { return done[i] })
	switch {
	case incomplete && r.rejection.metadataDisallowed > 0:
		return true, r.err
	case incomplete && r.rejection.rateLimited:
		p.pushEntries = max(1, n/2)
		r.err.Reason, r.err.StreamOnly = sink.ReasonRateLimited, true
		return true, r.err
	}
	return true, nil
}

// reject records the rejection of an entry. Its dead letter is written when the batch is complete.
func (p *batchState) reject(i, statusCode int, reason string) {
	p.rejected = append(p.rejected, sink.Rejection{Index: i, Reason: reason})
	p.statusCodes = append(p.statusCodes, statusCode)
}

// push sends some entries of a batch in one push.
func (s *Sink) push(ctx context.Context, b *sink.Batch, indexes []int) (result, error) {
	ctx, cancel, err := sink.BeginRequest(ctx)
	if err != nil {
		return result{}, fmt.Errorf("push to %s: %w", s.client.redactedURL, err)
	}
	defer cancel()
	entries := [][]byte{b.Data}
	if len(indexes) < b.Len() {
		entries = make([][]byte, len(indexes))
		for k, i := range indexes {
			entries[k] = b.Record(i)
		}
	}
	return s.client.attempt(ctx, encode(b.Stream, entries...))
}
