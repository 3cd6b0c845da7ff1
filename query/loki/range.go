package loki

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/hindsight-events/hindsight/event/format"
)

// Direction is the order in which Range visits entries.
type Direction string

const (
	Forward  Direction = "forward"  // oldest first
	Backward Direction = "backward" // newest first
)

const (
	// window is the longest range of one query: Loki's default for max_query_length is 721h.
	// https://github.com/grafana/loki/blob/v3.7.8/pkg/validation/limits.go
	window = 30 * 24 * time.Hour

	// maxQueries run at the same time, and one more if the first part's query was not among them.
	maxQueries = 3

	// maxParts are read before the first of them is visited.
	maxParts = 6

	// fillPercent is the planned share of a page, so that few parts have more entries than fit.
	fillPercent = 75

	// A part is at most maxGrowth times as long as the previous one, and at least one maxShrink-th.
	maxGrowth = 8
	maxShrink = 64
)

// Range calls f once for each entry that a log query finds from from to before to, in order of
// time; entries of equal times in any order. The range may be of any length. An error of f ends
// Range and is returned. f is called by the calling goroutine only.
//
// Range runs up to 4 queries at the same time and holds up to 6 pages of about 2 MiB, and more
// where a few seconds have far more entries than their surroundings.
//
// If Loki fails, Range retries with smaller pages; if Loki is busy, after a backoff. Then it
// returns the error of the last attempt.
func (c *Client) Range(ctx context.Context, query string, from, to time.Time, d Direction, f func(format.Entry) error) error {
	if !from.Before(to) {
		return nil
	}
	ctx, cancel := context.WithCancel(ctx)
	r := &rangeReader{
		pager:     &pager{client: c, query: query, limit: firstPage, maxLimit: maxPage},
		direction: d,
		parts:     []*part{{from: from, to: to}},
		length:    window,
		maxLength: window,
	}
	defer r.waitForQueries()
	defer cancel()
	for len(r.parts) > 0 {
		r.startQueries(ctx)
		entries, err := r.nextEntries()
		if err != nil {
			return err
		}
		r.startQueries(ctx) // Loki works on the next pages while f works on this one
		for _, e := range entries {
			if err := f(e); err != nil {
				return err
			}
		}
	}
	return nil
}

// rangeReader reads one range. It cuts the range into parts that do not overlap, sized so that the
// entries of each fit into a page, and reads several parts at the same time. It reads pages newest
// first in both directions, because only the end of a query is exact to the nanosecond (see
// queryStart). It belongs to one goroutine.
type rangeReader struct {
	*pager
	direction Direction
	parts     []*part       // not visited yet, in the order of the direction
	length    time.Duration // of a part, so that its entries fit into a page
	maxLength time.Duration // that Loki accepts
}

// part is a part of the time range.
type part struct {
	from, to time.Time
	page     chan page // nil: its query was not started
	rest     bool      // its page was read with an earlier part
}

// page holds the newest entries of a part, newest first.
type page struct {
	entries []format.Entry
	begins  time.Time // the part has no other entries from this time on
	err     error
}

// nextEntries waits for the page of the first part and returns its entries in the order of the
// direction; none if other entries must be visited before them.
func (r *rangeReader) nextEntries() ([]format.Entry, error) {
	head := r.parts[0]
	got := <-head.page
	r.parts = r.parts[1:]
	if r.reduceLength(head, got.err) {
		r.parts = slices.Insert(r.parts, 0, &part{from: head.from, to: head.to})
		return nil, nil
	}
	if got.err != nil {
		return nil, got.err
	}
	complete := !got.begins.After(head.from)
	if !head.rest {
		r.adaptLength(head, got)
	}
	if r.direction == Forward {
		if !complete {
			read := &part{from: got.begins, to: head.to, page: head.page, rest: true}
			read.page <- got
			r.parts = slices.Insert(r.parts, 0, &part{from: head.from, to: got.begins}, read)
			return nil, nil
		}
		slices.Reverse(got.entries)
	} else if !complete {
		r.parts = slices.Insert(r.parts, 0, &part{from: head.from, to: got.begins})
	}
	return got.entries, nil
}

// startQueries starts the queries of the next parts, and splits parts that are too long.
func (r *rangeReader) startQueries(ctx context.Context) {
	running, held := 0, 0
	for _, p := range r.parts {
		switch {
		case p.page == nil:
		case len(p.page) == 0:
			running++
		case !p.rest:
			held++
		}
	}
	for i := 0; i < len(r.parts); i++ {
		if i > 0 && (running >= maxQueries || running+held >= maxParts) { // the first is always started
			return
		}
		p := r.parts[i]
		if p.page != nil {
			continue
		}
		if rest := r.split(p); rest != nil {
			r.parts = slices.Insert(r.parts, i+1, rest)
		}
		p.page = make(chan page, 1)
		go func() { p.page <- r.readPart(ctx, p.from, p.to) }()
		running++
	}
}

// split shortens a part that is too long and returns the remainder, or nil.
func (r *rangeReader) split(p *part) (rest *part) {
	length := min(r.length, r.maxLength)
	if p.to.Sub(p.from) <= length {
		return nil
	}
	at := p.from.Add(length)
	if r.direction == Backward {
		at = p.to.Add(-length)
	}
	// A query that starts within a millisecond also reads the beginning of that millisecond.
	if even := at.Truncate(chunkResolution); even.After(p.from) {
		at = even
	}
	rest = &part{from: at, to: p.to}
	if r.direction == Backward {
		rest.from, rest.to, p.from = p.from, at, at
	} else {
		p.to = at
	}
	return rest
}

// waitForQueries returns when no query is running.
func (r *rangeReader) waitForQueries() {
	for _, p := range r.parts {
		if p.page != nil {
			<-p.page
		}
	}
}

// adaptLength adapts the length of parts to the density of entries in a page. The end of a part may
// be far denser than its beginning, so a part shrinks by a factor of at most maxShrink.
func (r *rangeReader) adaptLength(p *part, got page) {
	read, whole := p.to.Sub(got.begins), p.to.Sub(p.from)
	entries, wanted := len(got.entries), r.pageLimit()*fillPercent/100
	switch {
	case read < whole:
		r.length = time.Duration(float64(read) * float64(wanted) / float64(entries))
		r.length = max(r.length, whole/maxShrink, 1)
	case entries < wanted/2:
		r.length = max(r.length, min(read, r.maxLength/maxGrowth)*maxGrowth)
	}
}

// reduceLength reports whether Loki refused a part because of its length, and reduces maxLength.
func (r *rangeReader) reduceLength(p *part, err error) bool {
	var response *Error
	if !errors.As(err, &response) || response.Status != http.StatusBadRequest ||
		!strings.Contains(response.Message, "query time range exceeds the limit") || r.maxLength <= time.Hour {
		return false
	}
	r.maxLength = min(r.maxLength, max(p.to.Sub(p.from)/2, time.Hour))
	return true
}

// chunkResolution is the resolution in which Loki stores the end of a chunk. A query that starts
// within the millisecond of a chunk's last entries does not find them (TestLongRanges), so every
// query starts before that millisecond.
const chunkResolution = time.Millisecond

func queryStart(t time.Time) time.Time { return t.Truncate(chunkResolution).Add(-1) }
