package canary

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/hindsight-events/hindsight/internal/mask"
)

const (
	// askEvery is how often Loki is asked while something is awaited: about as
	// exactly is known when it was there.
	askEvery = 2 * time.Second
	// lokiAnswersWithin bounds each query.
	lokiAnswersWithin = 10 * time.Second
	maxLokiAnswer     = 1 << 20 // bytes
)

// ask looks for what is awaited.
func (c *Canary) ask(ctx context.Context) {
	for _, wanted := range c.loki.wanted() {
		found, err := c.o.Loki.has(ctx, wanted)
		if ctx.Err() != nil {
			return
		}
		c.loki.asked(err)
		if err != nil {
			return
		}
		if found {
			c.loki.arrived(wanted.version)
			return
		}
	}
}

// has reports whether Loki shows a state.
func (l *Loki) has(ctx context.Context, s state) (bool, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, lokiAnswersWithin, fmt.Errorf("no answer within %v", lokiAnswersWithin))
	defer cancel()
	u := l.URL.JoinPath("/loki/api/v1/query_range")
	u.RawQuery = url.Values{
		"query": {s.query},
		// The record's time is that of its entry.
		"start": {strconv.FormatInt(s.time.Add(-time.Second).UnixNano(), 10)},
		"end":   {strconv.FormatInt(s.time.Add(time.Second).UnixNano(), 10)},
		"limit": {"1"},
	}.Encode()
	// Errors never repeat the address, which may hold a password.
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return false, fmt.Errorf("query %s: the address cannot be used", s.query)
	}
	for name, values := range l.Header {
		request.Header[name] = values
	}
	client := l.Client
	if client == nil {
		client = http.DefaultClient
	}
	response, err := client.Do(request)
	if err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return false, fmt.Errorf("query %s: %w", s.query, mask.Error(err))
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, maxLokiAnswer))
	if err != nil {
		return false, fmt.Errorf("query %s: read the answer: %w", s.query, err)
	}
	if response.StatusCode != http.StatusOK {
		return false, fmt.Errorf("query %s: loki answers %s: %s", s.query, response.Status, excerpt(body))
	}
	var answer struct {
		Data struct{ Result []json.RawMessage }
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return false, fmt.Errorf("query %s: decode the answer: %w", s.query, err)
	}
	return len(answer.Data.Result) > 0, nil
}

// excerpt is as much of an answer as belongs into an error.
func excerpt(body []byte) string {
	s := strings.TrimSpace(string(body))
	if len(s) > 300 {
		s = strings.ToValidUTF8(s[:300], "") + "…"
	}
	return s
}
