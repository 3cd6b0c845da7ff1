package loki

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	jsoniter "github.com/json-iterator/go"

	"github.com/hindsight-events/hindsight/event/format"
)

// The first page has a thousand entries, later ones about pageBytes. By default Loki
// does not answer with more than 4 MiB, because messages between its components are
// limited to that size (grpc_server_max_send_msg_size): it closes the connection
// after a minute instead. max_entries_limit_per_query is 5000:
// https://github.com/grafana/loki/blob/v3.7.8/pkg/validation/limits.go
const (
	firstPage = 1000
	leastPage = 8
	mostPage  = 5000
	pageBytes = 2 << 20
)

// fetcher reads pages of a log query. It is safe for concurrent use.
type fetcher struct {
	client *Client
	query  string

	mu    sync.Mutex // guards limit and most
	limit int        // entries of the next page
	most  int        // the largest limit that may still work
}

// pageLimit returns the number of entries that the next page may have.
func (f *fetcher) pageLimit() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.limit
}

// larger returns the limit for a page again after n entries were not enough; n if
// there is no larger one.
func (f *fetcher) larger(n int) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return max(min(2*n, f.most), n)
}

// answered adapts the limit to the average size of entries: as many as fit into a
// page, but at most twice the number that has worked.
func (f *fetcher) answered(entries, bytes int) {
	if entries == 0 {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	fit := pageBytes / (bytes/entries + 1)
	f.limit = max(min(fit, max(2*entries, f.limit), f.most), leastPage)
}

// failed lowers the limit below that of a page which Loki did not answer, and reports
// whether that was possible.
func (f *fetcher) failed(limit int) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if limit <= leastPage {
		return false
	}
	f.most = min(f.most, max(limit/2, leastPage))
	f.limit = min(f.limit, f.most)
	return true
}

// busy is the number of retries of a query that Loki was too busy to answer.
const busy = 5

// page reads the newest entries between from (included) and to (excluded), newest
// first. It is full if there may be more.
func (f *fetcher) page(ctx context.Context, limit int, from, to time.Time) (page []format.Entry, full bool, err error) {
	wait := time.Second
	for attempt := 1; ; {
		page, bytes, err := f.client.page(ctx, f.query, before(from), to, limit)
		if err == nil {
			f.answered(len(page), bytes)
			full = len(page) >= limit
			n := len(page)
			if n > 0 && !page[0].Time.Before(to) {
				return nil, false, fmt.Errorf("query loki at %s: it answers with an entry of %s, which is not before the end of the query, %s",
					f.client.URL(), page[0].Time.Format(time.RFC3339Nano), to.UTC().Format(time.RFC3339Nano))
			}
			for n > 0 && page[n-1].Time.Before(from) {
				n--
			}
			return page[:n], full && n == len(page), nil
		}
		var refused *Error
		switch {
		case ctx.Err() != nil:
			return nil, false, ctx.Err()
		case errors.As(err, &refused) && refused.Status == http.StatusTooManyRequests && attempt < busy:
			attempt++
			if err := sleep(ctx, jitter(max(wait, min(refused.RetryAfter, time.Minute)))); err != nil {
				return nil, false, err
			}
			wait *= 2
		case tooMuch(err) && f.failed(limit):
			limit = min(max(limit/2, leastPage), f.pageLimit())
		default:
			return nil, false, err
		}
	}
}

// jitter adds up to a quarter to d, so that clients that were refused at the same time
// do not retry at the same time.
func jitter(d time.Duration) time.Duration { return d + rand.N(d/4+1) }

// tooMuch reports whether a smaller page may succeed after this error: Loki failed,
// closed the connection or took too long.
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

// page queries once, newest first. bytes is the approximate size of the entries in
// messages between Loki's components.
func (c *Client) page(ctx context.Context, query string, from, to time.Time, limit int) (page []format.Entry, bytes int, err error) {
	q := span(from, to)
	q.Set("query", query)
	q.Set("limit", strconv.Itoa(limit))
	q.Set("direction", "backward")
	resp, cancel, err := c.ask(ctx, "query_range", q)
	if err != nil {
		return nil, 0, err
	}
	defer cancel()
	defer resp.Body.Close()
	body := &faultyReader{Reader: resp.Body}
	d := decoder{Iterator: jsoniter.Parse(jsoniter.ConfigDefault, body, 64<<10)}
	status, resultType := d.answer(func(s stream) {
		page = slices.Grow(page, len(s.Values))
		bytes += pairsSize(s.Stream) // a stream has one entry if metadata is among the labels
		for _, v := range s.Values {
			e := s.entry(v)
			bytes += size(e)
			page = append(page, e)
		}
	})
	switch {
	case body.err != nil:
		return nil, 0, fmt.Errorf("read the answer of loki at %s: %w", c.base.String(), body.err)
	case d.Error != nil && d.Error != io.EOF:
		return nil, 0, fmt.Errorf("%s does not answer as Loki does: %w", c.base.String(), d.Error)
	case status != "success":
		return nil, 0, fmt.Errorf("%s does not answer as Loki does: its status is %q", c.base.String(), status)
	case resultType != "streams":
		return nil, 0, fmt.Errorf("query loki: %s returns no entries, but a %s", query, resultType)
	}
	slices.SortStableFunc(page, func(a, b format.Entry) int { return b.Time.Compare(a.Time) })
	return page, bytes, nil
}

// faultyReader keeps the error, other than EOF, that ended it.
type faultyReader struct {
	io.Reader
	err error
}

func (r *faultyReader) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	if err != nil && err != io.EOF {
		r.err = err
	}
	return n, err
}

// size returns the approximate size of an entry in a message between Loki's
// components.
func size(e format.Entry) int { return 48 + len(e.Line) + pairsSize(e.Metadata) }

func pairsSize(pairs map[string]string) (n int) {
	for name, value := range pairs {
		n += len(name) + len(value) + 8
	}
	return n
}
