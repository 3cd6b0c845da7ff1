package loki

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/hindsight-events/hindsight/query/line"
)

// Direction is the order in which Range visits entries.
type Direction string

const (
	Forward  Direction = "forward"  // oldest first
	Backward Direction = "backward" // newest first
)

// Pages begin with a thousand entries, and hold about pageBytes: Loki never
// answers with more than 4 MiB by default, since parts of it talk to each other
// in messages of that size (grpc_server_max_send_msg_size), and closes the
// connection after a minute instead. max_entries_limit_per_query is 5000, and
// max_query_length 721h:
// https://github.com/grafana/loki/blob/v3.7.8/pkg/validation/limits.go
const (
	firstPage = 1000
	leastPage = 8
	mostPage  = 5000
	pageBytes = 1 << 20
	window    = 30 * 24 * time.Hour
)

// Range calls f for each entry that a log query finds from from to before to, in
// order of time, once, and holds no more than a page, or what is of a single
// millisecond. The range may be of any
// length. Entries of one time come in Loki's order. What f returns ends it and is
// returned.
//
// An answer that Loki fails to give is asked for again in smaller pages, and
// later where Loki says that it is busy; then the error of the last attempt is
// returned.
func (c *Client) Range(ctx context.Context, query string, from, to time.Time, d Direction, f func(line.Entry) error) error {
	r := &pager{client: c, query: query, direction: d, limit: firstPage, most: mostPage, longest: window, visit: f}
	for from.Before(to) {
		start, end := from, to
		if end.Sub(start) > r.longest {
			if d == Forward {
				end = start.Add(r.longest)
			} else {
				start = end.Add(-r.longest)
			}
		}
		err := r.pages(ctx, start, end)
		var refused *Error
		if errors.As(err, &refused) && refused.Status == http.StatusBadRequest &&
			strings.Contains(refused.Message, "query time range exceeds the limit") && r.longest > time.Hour && r.fresh {
			r.longest = max(end.Sub(start)/2, time.Hour)
			continue
		}
		if err != nil {
			return err
		}
		if d == Forward {
			from = end
		} else {
			to = start
		}
	}
	return nil
}

// pager follows the pages of one range. It belongs to one goroutine.
type pager struct {
	client    *Client
	query     string
	direction Direction
	limit     int           // entries of the next page
	most      int           // entries of any page, as far as is known
	longest   time.Duration // of a window
	visit     func(line.Entry) error
	fresh     bool // nothing of the window has been visited
}

// tick is the resolution in which Loki knows when a chunk ends. A query that
// begins in the millisecond of a chunk's last entries does not find them there
// (TestLongRanges), so every query begins before that millisecond.
const tick = time.Millisecond

func before(t time.Time) time.Time { return t.Truncate(tick).Add(-1) }

// pages visits what is in one window. A page begins before the millisecond of the
// last entry of the one before, of which there may be more; those that were seen
// are told by all they have.
func (r *pager) pages(ctx context.Context, from, to time.Time) error {
	r.fresh = true
	seen := map[key]bool{} // the entries of the millisecond border
	var border, last time.Time
	start, end := before(from), to
	for {
		page, limit, err := r.page(ctx, start, end)
		if err != nil {
			return err
		}
		visited := false
		for _, e := range page {
			if e.Time.Before(from) {
				continue
			}
			if at := e.Time.Truncate(tick); !at.Equal(border) {
				clear(seen)
				border = at
			}
			last = e.Time
			k := identity(e)
			if seen[k] {
				continue
			}
			seen[k] = true
			visited, r.fresh = true, false
			if err := r.visit(e); err != nil {
				return err
			}
		}
		if len(page) < limit || last.IsZero() {
			return nil
		}
		switch {
		case visited:
		case limit < r.most:
			// A page of nothing but what is known already.
			r.limit = min(2*limit, r.most)
		case r.direction == Forward:
			if err := r.millisecond(ctx, border, seen); err != nil {
				return err
			}
			clear(seen)
			last = border.Add(tick)
			border = last
		default:
			return fmt.Errorf("query loki: more than %d entries of the time %s: no page is large enough; ask for fewer", limit, last.Format(time.RFC3339Nano))
		}
		if r.direction == Forward {
			start, from = before(last), border // what lies between was visited
		} else {
			end = last.Add(1)
		}
	}
}

// millisecond visits what was not seen of a millisecond that has more entries
// than any page: from its end, where each page can begin at the nanosecond that
// the one before ended at. It holds them all.
func (r *pager) millisecond(ctx context.Context, at time.Time, seen map[key]bool) error {
	var rest []line.Entry
	back := &pager{client: r.client, query: r.query, direction: Backward, limit: r.most, most: r.most, visit: func(e line.Entry) error {
		if !seen[identity(e)] {
			rest = append(rest, e)
		}
		return nil
	}}
	if err := back.pages(ctx, at, at.Add(tick)); err != nil {
		return err
	}
	for _, e := range slices.Backward(rest) {
		if err := r.visit(e); err != nil {
			return err
		}
	}
	return nil
}

type key [16]byte

// identity is what makes two entries one. Loki stores an entry that was sent
// twice once, or shows it once.
func identity(e line.Entry) (k key) {
	b, _ := json.Marshal([]any{e.Time.UnixNano(), e.Labels, e.Metadata, e.Line}) // sorts keys, cannot fail
	sum := sha256.Sum256(b)
	copy(k[:], sum[:])
	return k
}

// busy is how often an answer is asked for again that Loki was too busy for.
const busy = 5

// page asks for a page until it is answered, and returns its limit with it.
func (r *pager) page(ctx context.Context, from, to time.Time) ([]line.Entry, int, error) {
	wait := time.Second
	for attempt := 1; ; {
		limit := r.limit
		page, bytes, err := r.client.page(ctx, r.query, from, to, limit, r.direction)
		if err == nil {
			if len(page) > 0 {
				// As many as fit, but not many more than are known to.
				fit := pageBytes / (bytes/len(page) + 1)
				r.limit = max(min(fit, 2*limit, firstPage, r.most), leastPage)
			}
			return page, limit, nil
		}
		var refused *Error
		answered := errors.As(err, &refused)
		switch {
		case ctx.Err() != nil:
			return nil, 0, ctx.Err()
		case answered && refused.Status == http.StatusTooManyRequests && attempt < busy:
			attempt++
			if err := sleep(ctx, max(wait, min(refused.RetryAfter, time.Minute))); err != nil {
				return nil, 0, err
			}
			wait *= 2
		case tooMuch(err) && limit > leastPage:
			r.most = max(limit/2, leastPage)
			r.limit = r.most
		default:
			return nil, 0, err
		}
	}
}

// tooMuch reports whether a smaller page may be answered where this one was not:
// Loki failed, or closed the connection, or took too long.
func tooMuch(err error) bool {
	var refused *Error
	if errors.As(err, &refused) {
		return refused.Status >= 500 || refused.Status == http.StatusBadRequest && strings.Contains(refused.Message, "max entries limit")
	}
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) ||
		errors.Is(err, syscall.ECONNRESET) || errors.Is(err, context.DeadlineExceeded)
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// page asks once. Bytes is about what the page took.
func (c *Client) page(ctx context.Context, query string, from, to time.Time, limit int, d Direction) (page []line.Entry, bytes int, err error) {
	q := span(from, to)
	q.Set("query", query)
	q.Set("limit", strconv.Itoa(limit))
	q.Set("direction", string(d))
	var data struct {
		ResultType string
		Result     []stream
	}
	if err := c.get(ctx, "query_range", q, &data); err != nil {
		return nil, 0, err
	}
	if data.ResultType != "streams" {
		return nil, 0, fmt.Errorf("query loki: %s finds no entries, but a %s", query, data.ResultType)
	}
	for _, s := range data.Result {
		for _, v := range s.Values {
			bytes += len(v.Line) + 200
			page = append(page, s.entry(v))
		}
	}
	slices.SortStableFunc(page, func(a, b line.Entry) int {
		if d == Backward {
			a, b = b, a
		}
		return a.Time.Compare(b.Time)
	})
	return page, bytes, nil
}

// stream is one of an answer.
type stream struct {
	Stream map[string]string
	Values []value
}

func (s *stream) entry(v value) line.Entry {
	return line.Entry{Time: v.Time, Line: v.Line, Labels: s.Stream, Metadata: v.Metadata}
}

// value is [time, line, {"structuredMetadata":{…}}].
type value struct {
	Time     time.Time
	Line     string
	Metadata map[string]string
}

// UnmarshalJSON implements json.Unmarshaler.
func (v *value) UnmarshalJSON(b []byte) error {
	var (
		at    string
		apart struct{ StructuredMetadata map[string]string }
		parts = []any{&at, &v.Line, &apart}
	)
	if err := json.Unmarshal(b, &parts); err != nil {
		return fmt.Errorf("decode an entry: %w", err)
	}
	n, err := strconv.ParseInt(at, 10, 64)
	if err != nil {
		return fmt.Errorf("decode an entry: its time: %w", err)
	}
	v.Time, v.Metadata = time.Unix(0, n).UTC(), apart.StructuredMetadata
	return nil
}
