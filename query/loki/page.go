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
	"github.com/hindsight-events/hindsight/internal/wait"
)

// The first page has a thousand entries, later ones about pageBytes. By default Loki cannot respond
// with more than 4 MiB, because messages between its components are limited to that size
// (grpc_server_max_send_msg_size): it closes the connection after a minute instead.
// max_entries_limit_per_query is 5000:
// https://github.com/grafana/loki/blob/v3.7.8/pkg/validation/limits.go
const (
	firstPage = 1000
	minPage   = 8
	maxPage   = 5000
	pageBytes = 2 << 20
)

// maxAttempts of a query that Loki refuses with 429.
const maxAttempts = 5

// pager reads pages of a log query. It is safe for concurrent use.
type pager struct {
	client *Client
	query  string

	mu       sync.Mutex // guards the following
	limit    int        // entries of the next page
	maxLimit int        // the largest limit that may succeed
}

// pageLimit returns the limit of the next page.
func (p *pager) pageLimit() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.limit
}

// largerLimit returns the limit for a second query after n entries were too few; n if there is no
// larger one.
func (p *pager) largerLimit(n int) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return max(min(2*n, p.maxLimit), n)
}

// adaptLimit sets the limit to as many entries of the average size as fit into a page, but at most
// twice the number that succeeded.
func (p *pager) adaptLimit(entries, bytes int) {
	if entries == 0 {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	fit := pageBytes / (bytes/entries + 1)
	p.limit = max(min(fit, max(2*entries, p.limit), p.maxLimit), minPage)
}

// reduceLimit lowers the limit after a page failed, and reports whether it could.
func (p *pager) reduceLimit(failed int) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if failed <= minPage {
		return false
	}
	p.maxLimit = min(p.maxLimit, max(failed/2, minPage))
	p.limit = min(p.limit, p.maxLimit)
	return true
}

// readPart reads the newest entries of a part.
func (p *pager) readPart(ctx context.Context, from, to time.Time) page {
	for limit := p.pageLimit(); ; {
		entries, full, err := p.readPage(ctx, limit, from, to)
		switch {
		case err != nil:
			return page{err: err}
		case !full:
			return page{entries: entries, begins: from}
		}
		// There may be more entries of the oldest time: they are read with the rest of the part.
		last := entries[len(entries)-1].Time
		n := len(entries)
		for n > 0 && entries[n-1].Time.Equal(last) {
			n--
		}
		if n > 0 {
			return page{entries: entries[:n], begins: last.Add(1)}
		}
		if limit = p.largerLimit(len(entries)); limit <= len(entries) {
			return page{err: fmt.Errorf("query loki: more than %d entries have the time %s, which no page can hold; narrow the range or the selection", len(entries), last.Format(time.RFC3339Nano))}
		}
	}
}

// readPage reads the newest entries between from (included) and to (excluded), newest first,
// and retries. It is full if there may be more.
func (p *pager) readPage(ctx context.Context, limit int, from, to time.Time) (entries []format.Entry, full bool, err error) {
	backoff := time.Second
	for attempt := 1; ; {
		entries, bytes, err := p.client.queryPage(ctx, p.query, queryStart(from), to, limit)
		if err == nil {
			p.adaptLimit(len(entries), bytes)
			full = len(entries) >= limit
			n := len(entries)
			if n > 0 && !entries[0].Time.Before(to) {
				return nil, false, fmt.Errorf("query loki at %s: the response has an entry of %s, which is not before the end of the query, %s",
					p.client.URL(), entries[0].Time.Format(time.RFC3339Nano), to.UTC().Format(time.RFC3339Nano))
			}
			for n > 0 && entries[n-1].Time.Before(from) {
				n--
			}
			return entries[:n], full && n == len(entries), nil
		}
		var response *Error
		switch {
		case ctx.Err() != nil:
			return nil, false, ctx.Err()
		case errors.As(err, &response) && response.Status == http.StatusTooManyRequests && attempt < maxAttempts:
			attempt++
			if err := wait.Sleep(ctx, jitter(max(backoff, min(response.RetryAfter, time.Minute)))); err != nil {
				return nil, false, err
			}
			backoff *= 2
		case pageTooLarge(err) && p.reduceLimit(limit):
			limit = min(max(limit/2, minPage), p.pageLimit())
		default:
			return nil, false, err
		}
	}
}

// jitter adds up to a quarter to d, so that clients refused at the same time do not retry at the
// same time.
func jitter(d time.Duration) time.Duration { return d + rand.N(d/4+1) }

// pageTooLarge reports whether a smaller page may succeed after this error: Loki failed, closed the
// connection or timed out.
func pageTooLarge(err error) bool {
	var response *Error
	if errors.As(err, &response) {
		return response.Status >= 500 || response.Status == http.StatusBadRequest && strings.Contains(response.Message, "max entries limit")
	}
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) ||
		errors.Is(err, syscall.ECONNRESET) || errors.Is(err, context.DeadlineExceeded)
}

// queryPage queries once, newest first. bytes is the approximate size of the entries in messages
// between Loki's components.
func (c *Client) queryPage(ctx context.Context, query string, from, to time.Time, limit int) (entries []format.Entry, bytes int, err error) {
	params := rangeParams(from, to)
	params.Set("query", query)
	params.Set("limit", strconv.Itoa(limit))
	params.Set("direction", "backward")
	resp, cancel, err := c.get(ctx, "query_range", params)
	if err != nil {
		return nil, 0, err
	}
	defer cancel()
	defer resp.Body.Close()
	body := &errorReader{Reader: resp.Body}
	d := decoder{Iterator: jsoniter.Parse(jsoniter.ConfigDefault, body, 64<<10)}
	status, resultType := d.response(func(s stream) {
		entries = slices.Grow(entries, len(s.Values))
		bytes += pairsSize(s.Stream) // a stream has one entry if metadata is among the labels
		for _, v := range s.Values {
			e := s.entry(v)
			bytes += entrySize(e)
			entries = append(entries, e)
		}
	})
	switch {
	case body.err != nil:
		return nil, 0, c.readError(body.err)
	case d.Error != nil && !errors.Is(d.Error, io.EOF):
		return nil, 0, c.formatError(d.Error)
	case status != "success":
		return nil, 0, c.formatError(statusError(status))
	case resultType != "streams":
		return nil, 0, fmt.Errorf("query loki: %s returns no entries, but a %s", query, resultType)
	}
	slices.SortStableFunc(entries, func(a, b format.Entry) int { return b.Time.Compare(a.Time) })
	return entries, bytes, nil
}

// errorReader keeps the error, other than EOF, of the last read: the decoder loses it.
type errorReader struct {
	io.Reader
	err error
}

func (r *errorReader) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	if err != nil && err != io.EOF {
		r.err = err
	}
	return n, err
}

// entrySize returns the approximate size of an entry in a message between Loki's components.
func entrySize(e format.Entry) int { return 48 + len(e.Line) + pairsSize(e.Metadata) }

func pairsSize(pairs map[string]string) (n int) {
	for name, value := range pairs {
		n += len(name) + len(value) + 8
	}
	return n
}
