package journal

import "time"

// Stats is the content of a journal and the progress of its consumers.
type Stats struct {
	Bytes          int64  // of all segments, acknowledged records included
	MaxBytes       int64  // the capacity
	Records        uint64 // that a consumer needs
	TruncatedBytes int64  // by recovery

	// Blocked is the total time in which nothing could be appended. BlockedSince and
	// BlockedReason are set while that is so.
	Blocked       time.Duration
	BlockedSince  time.Time
	BlockedReason string

	Consumers map[string]ConsumerStats
}

// ConsumerStats is the progress of one consumer.
type ConsumerStats struct {
	Behind uint64        // records not acknowledged
	Lag    time.Duration // since the oldest of them was appended
}

// Stats may be called at any time. It does not access files.
func (j *Journal) Stats() Stats {
	j.mu.Lock()
	defer j.mu.Unlock()
	now := time.Now()
	s := Stats{
		Bytes:          j.used,
		MaxBytes:       j.maxBytes,
		Records:        j.next - j.keepFrom(),
		TruncatedBytes: j.truncatedBytes,
		Blocked:        j.blocked.total,
		Consumers:      make(map[string]ConsumerStats, len(j.consumers)),
	}
	if since := j.blocked.since; !since.IsZero() {
		s.Blocked += now.Sub(since)
		s.BlockedSince, s.BlockedReason = since, j.blockedReason()
	}
	for name, c := range j.consumers {
		s.Consumers[name] = c.stats(now)
	}
	return s
}

// stats is called with Journal.mu held.
func (c *Consumer) stats(now time.Time) ConsumerStats {
	s := ConsumerStats{Behind: c.j.next - min(c.j.next, c.cursor.Offset)}
	_, oldest, ok := c.inflight.oldest()
	if !ok {
		oldest = c.unreadSince
	}
	if s.Behind > 0 && !oldest.IsZero() {
		s.Lag = max(0, now.Sub(oldest))
	}
	return s
}
