package loki

import (
	"context"
	"errors"
	"fmt"
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
	// window is the longest range of one query: Loki's default for
	// max_query_length is 721h.
	// https://github.com/grafana/loki/blob/v3.7.8/pkg/validation/limits.go
	window = 30 * 24 * time.Hour

	// inFlight is how many queries run at the same time, and one more where the
	// one that is waited for was not among them.
	inFlight = 3

	// ahead is for how many parts pages are read at most before the first of them
	// is visited.
	ahead = 6

	// fillPercent is how full a page is planned to be, so that few parts have
	// more entries than fit.
	fillPercent = 75

	// growth and shrink are how many times longer and shorter a part may be than
	// the one before it.
	growth = 8
	shrink = 64
)

// Range calls f for each entry that a log query finds from from to before to, in
// order of time, once. Entries of one time come in any order. The range may be of
// any length. An error of f ends it and is returned. Range calls f from the
// calling goroutine only.
//
// Range runs up to 4 queries at the same time and holds up to 6 pages of about
// 2 MiB, and some more where a few seconds have far more entries than those around
// them.
//
// If Loki fails to answer, Range asks for smaller pages, and if Loki is busy,
// later. Then it returns the error of the last attempt.
func (c *Client) Range(ctx context.Context, query string, from, to time.Time, d Direction, f func(format.Entry) error) error {
	if !from.Before(to) {
		return nil
	}
	ctx, cancel := context.WithCancel(ctx)
	r := &ranger{
		fetcher:   &fetcher{client: c, query: query, limit: firstPage, most: mostPage},
		direction: d,
		parts:     []*part{{from: from, to: to}},
		length:    window,
		longest:   window,
	}
	defer r.wait()
	defer cancel()
	for len(r.parts) > 0 {
		r.start(ctx)
		page, err := r.next()
		if err != nil {
			return err
		}
		r.start(ctx) // Loki works on the next pages while f works on this one
		for _, e := range page {
			if err := f(e); err != nil {
				return err
			}
		}
	}
	return nil
}

// ranger reads one range. It cuts the range into parts that do not overlap, so
// that the entries of each fit into a page, and reads several parts at the same
// time. Pages are read newest first, whatever the direction: only the end of a
// query can be any nanosecond (see before). It belongs to one goroutine.
type ranger struct {
	*fetcher
	direction Direction
	parts     []*part       // not visited yet, in the order of the direction
	length    time.Duration // of a part, so that its entries fit into a page
	longest   time.Duration // of a part that Loki takes
}

// part is a range of time.
type part struct {
	from, to time.Time
	page     chan page // nil: not started
	rest     bool      // its page was read with an earlier part
}

// page is the newest entries of a part, newest first.
type page struct {
	entries []format.Entry
	begins  time.Time // the part has no other entries from here on
	err     error
}

// next waits for the first part, and returns its entries in the order of the
// direction: all of them, or none if others have to be visited before them.
func (r *ranger) next() ([]format.Entry, error) {
	head := r.parts[0]
	got := <-head.page
	r.parts = r.parts[1:]
	if r.tooLong(head, got.err) {
		r.parts = slices.Insert(r.parts, 0, &part{from: head.from, to: head.to})
		return nil, nil
	}
	if got.err != nil {
		return nil, got.err
	}
	complete := !got.begins.After(head.from)
	if !head.rest {
		r.learn(head, got)
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

// start starts the queries of the next parts, and cuts off the ends of parts that
// are too long.
func (r *ranger) start(ctx context.Context) {
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
		if i > 0 && (running >= inFlight || running+held >= ahead) { // the first is waited for
			return
		}
		p := r.parts[i]
		if p.page != nil {
			continue
		}
		if rest := r.cut(p); rest != nil {
			r.parts = slices.Insert(r.parts, i+1, rest)
		}
		p.page = make(chan page, 1)
		go func() { p.page <- r.fetch(ctx, p.from, p.to) }()
		running++
	}
}

// cut shortens a part that is too long and returns what it has cut off, else nil.
func (r *ranger) cut(p *part) (rest *part) {
	length := min(r.length, r.longest)
	if p.to.Sub(p.from) <= length {
		return nil
	}
	at := p.from.Add(length)
	if r.direction == Backward {
		at = p.to.Add(-length)
	}
	// A query that begins within a millisecond reads the beginning of it too.
	if even := at.Truncate(tick); even.After(p.from) {
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

// wait returns when no query runs any more.
func (r *ranger) wait() {
	for _, p := range r.parts {
		if p.page != nil {
			<-p.page
		}
	}
}

// learn adapts the length of parts to how many entries were found in how long a
// time. The end of a part may be far denser than its beginning, so a part becomes
// at most shrink times shorter.
func (r *ranger) learn(p *part, got page) {
	read, whole := p.to.Sub(got.begins), p.to.Sub(p.from)
	entries, wanted := len(got.entries), r.pageLimit()*fillPercent/100
	switch {
	case read < whole:
		r.length = time.Duration(float64(read) * float64(wanted) / float64(entries))
		r.length = max(r.length, whole/shrink, 1)
	case entries < wanted/2:
		r.length = max(r.length, min(read, r.longest/growth)*growth)
	}
}

// tooLong reports whether Loki has refused a part for its length, and sees to
// shorter ones.
func (r *ranger) tooLong(p *part, err error) bool {
	var refused *Error
	if !errors.As(err, &refused) || refused.Status != http.StatusBadRequest ||
		!strings.Contains(refused.Message, "query time range exceeds the limit") || r.longest <= time.Hour {
		return false
	}
	r.longest = min(r.longest, max(p.to.Sub(p.from)/2, time.Hour))
	return true
}

// tick is the resolution in which Loki knows when a chunk ends. A query that
// begins in the millisecond of a chunk's last entries does not find them
// (TestLongRanges), so every query begins before that millisecond.
const tick = time.Millisecond

func before(t time.Time) time.Time { return t.Truncate(tick).Add(-1) }

// fetch reads the newest entries of a part.
func (f *fetcher) fetch(ctx context.Context, from, to time.Time) page {
	for limit := f.pageLimit(); ; {
		entries, full, err := f.page(ctx, limit, from, to)
		switch {
		case err != nil:
			return page{err: err}
		case !full:
			return page{entries: entries, begins: from}
		}
		// There may be more of its last time.
		last := entries[len(entries)-1].Time
		n := len(entries)
		for n > 0 && entries[n-1].Time.Equal(last) {
			n--
		}
		if n > 0 {
			return page{entries: entries[:n], begins: last.Add(1)}
		}
		if limit = f.larger(len(entries)); limit <= len(entries) {
			return page{err: fmt.Errorf("query loki: more than %d entries of the time %s: no page is large enough; narrow the range or the selection", len(entries), last.Format(time.RFC3339Nano))}
		}
	}
}
