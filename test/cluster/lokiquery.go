package cluster

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// LokiEntry is a line that a query has found.
type LokiEntry struct {
	Time     time.Time
	Line     string
	Labels   map[string]string // of its stream
	Metadata map[string]string // structured
}

// LokiSample is a value that a query has computed.
type LokiSample struct {
	Labels map[string]string
	Value  float64
}

const (
	lokiPage    = 1000           // a page of more than 4 MiB is never answered
	lokiMaxPage = 5000           // max_entries_limit_per_query
	lokiRange   = 30 * 24 * 3600 // seconds; max_query_length is 721h
)

// Entries returns all entries that a log query finds from start to before end, oldest first.
// Entries with equal times are in Loki's order.
func (l *Loki) Entries(ctx context.Context, query string, start, end time.Time) ([]LokiEntry, error) {
	var all []LokiEntry
	for from := start; from.Before(end); {
		to := from.Add(lokiRange * time.Second)
		if to.After(end) {
			to = end
		}
		part, err := l.pages(ctx, query, from, to)
		if err != nil {
			return nil, fmt.Errorf("query loki for %s: %w", query, err)
		}
		all = append(all, part...)
		from = to
	}
	return all, nil
}

// pages reads the pages of one range. A page starts at the millisecond of the last entry of the
// previous page, which may have more: a query that starts within the millisecond in which a chunk
// ends does not find the rest.
func (l *Loki) pages(ctx context.Context, query string, from, to time.Time) (all []LokiEntry, err error) {
	seen := map[string]bool{} // entries of the last millisecond
	dense := false            // it has more than a page
	limit, most := lokiPage, lokiMaxPage
	for {
		start := from.Truncate(time.Millisecond).Add(-1)
		if dense {
			start = all[len(all)-1].Time
		}
		page, err := l.page(ctx, query, start, to, limit)
		if err != nil {
			var refused *lokiError
			if ctx.Err() == nil && limit > 10 && (!errors.As(err, &refused) || refused.status >= 500) {
				limit /= 2 // it was too much
				most = limit
				continue
			}
			return nil, err
		}
		fresh := 0
		for _, e := range page {
			key := e.key()
			if e.Time.Before(from) || seen[key] {
				continue
			}
			if at := e.Time.Truncate(time.Millisecond); at.After(from) {
				clear(seen)
				from, dense = at, false
			}
			seen[key] = true
			all = append(all, e)
			fresh++
		}
		switch {
		case len(page) < limit:
			return all, nil
		case fresh == 0 && limit >= most && dense:
			return nil, fmt.Errorf("more than %d entries of the time %s", limit, start)
		case fresh == 0 && limit >= most:
			dense = true
		case fresh == 0:
			limit = min(2*limit, most)
		}
	}
}

func (e *LokiEntry) key() string {
	pairs := func(m map[string]string) string {
		var b strings.Builder
		for _, name := range slices.Sorted(maps.Keys(m)) {
			fmt.Fprintf(&b, "%s=%q,", name, m[name])
		}
		return b.String()
	}
	return strconv.FormatInt(e.Time.UnixNano(), 10) + pairs(e.Labels) + "|" + pairs(e.Metadata) + "|" + e.Line
}

func (l *Loki) page(ctx context.Context, query string, from, to time.Time, limit int) ([]LokiEntry, error) {
	var data struct {
		Result []struct {
			Stream map[string]string
			Values [][]json.RawMessage
		}
	}
	err := l.get(ctx, "/loki/api/v1/query_range", url.Values{
		"query":     {query},
		"start":     {strconv.FormatInt(from.UnixNano(), 10)},
		"end":       {strconv.FormatInt(to.UnixNano(), 10)},
		"limit":     {strconv.Itoa(limit)},
		"direction": {"forward"},
	}, &data)
	if err != nil {
		return nil, err
	}
	var page []LokiEntry
	for _, s := range data.Result {
		for _, v := range s.Values {
			e := LokiEntry{Labels: s.Stream}
			var at string
			var apart struct{ StructuredMetadata map[string]string }
			parts := []any{&at, &e.Line, &apart}
			for i := range min(len(v), len(parts)) {
				if err := json.Unmarshal(v[i], parts[i]); err != nil {
					return nil, fmt.Errorf("decode an entry: %w", err)
				}
			}
			nanos, err := strconv.ParseInt(at, 10, 64)
			if err != nil {
				return nil, fmt.Errorf("decode an entry: %w", err)
			}
			e.Time, e.Metadata = time.Unix(0, nanos).UTC(), apart.StructuredMetadata
			page = append(page, e)
		}
	}
	slices.SortStableFunc(page, func(a, b LokiEntry) int { return a.Time.Compare(b.Time) })
	return page, nil
}

// Samples returns the result of an instant metric query, the largest value first.
func (l *Loki) Samples(ctx context.Context, query string, at time.Time) ([]LokiSample, error) {
	var data struct {
		Result []struct {
			Metric map[string]string
			Value  [2]json.RawMessage
		}
	}
	err := l.get(ctx, "/loki/api/v1/query", url.Values{
		"query": {query},
		"time":  {strconv.FormatInt(at.UnixNano(), 10)},
	}, &data)
	if err != nil {
		return nil, fmt.Errorf("query loki for %s: %w", query, err)
	}
	var samples []LokiSample
	for _, r := range data.Result {
		var text string
		if err := json.Unmarshal(r.Value[1], &text); err != nil {
			return nil, fmt.Errorf("query loki for %s: decode a value: %w", query, err)
		}
		value, err := strconv.ParseFloat(text, 64)
		if err != nil {
			return nil, fmt.Errorf("query loki for %s: %w", query, err)
		}
		samples = append(samples, LokiSample{Labels: r.Metric, Value: value})
	}
	slices.SortStableFunc(samples, func(a, b LokiSample) int { return cmp.Compare(b.Value, a.Value) })
	return samples, nil
}

// Streams returns the labels of all streams that match and have entries from
// start to end.
func (l *Loki) Streams(ctx context.Context, match string, start, end time.Time) (streams []map[string]string, err error) {
	err = l.get(ctx, "/loki/api/v1/series", url.Values{
		"match[]": {match},
		"start":   {strconv.FormatInt(start.UnixNano(), 10)},
		"end":     {strconv.FormatInt(end.UnixNano(), 10)},
	}, &streams)
	if err != nil {
		return nil, fmt.Errorf("query the streams of %s: %w", match, err)
	}
	return streams, nil
}

// get decodes the data of an answer.
func (l *Loki) get(ctx context.Context, path string, query url.Values, data any) error {
	body, err := l.do(ctx, http.MethodGet, path, query)
	if err != nil {
		return err
	}
	answer := struct {
		Status string
		Data   any
	}{Data: data}
	if err := json.Unmarshal(body, &answer); err != nil {
		return fmt.Errorf("decode the answer of %s: %w", path, err)
	}
	if answer.Status != "success" {
		return fmt.Errorf("%s answers with status %q", path, answer.Status)
	}
	return nil
}

// Answer returns the result of a single log query from start to before end, oldest first,
// including duplicates, which Entries removes where pages overlap. More than 5000 entries, the
// limit of Loki, are an error.
func (l *Loki) Answer(ctx context.Context, query string, start, end time.Time) ([]LokiEntry, error) {
	all, err := l.page(ctx, query, start, end, lokiMaxPage)
	if err != nil {
		return nil, fmt.Errorf("query loki for %s: %w", query, err)
	}
	if len(all) >= lokiMaxPage {
		return nil, fmt.Errorf("query loki for %s: more than %d entries from %s to %s", query, lokiMaxPage-1, start, end)
	}
	return all, nil
}
