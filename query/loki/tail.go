package loki

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"time"

	"github.com/coder/websocket"

	"github.com/hindsight-events/hindsight/event/format"
)

// Tail calls f for entries as Loki receives them, on one connection, until the connection ends:
// after an hour at the latest, which is a nil error. It may miss entries, such as those that arrive
// while it connects; only Range finds all. It calls connected once Loki has accepted the
// connection, and dropped if Loki reports entries that it dropped because they were not read fast
// enough.
func (c *Client) Tail(ctx context.Context, query string, from time.Time, connected, dropped func() error, f func(format.Entry) error) error {
	u := c.endpoint("tail", url.Values{"query": {query}, "start": {nanos(from)}, "limit": {"5000"}})
	dialing, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	conn, resp, err := websocket.Dial(dialing, u.String(), &websocket.DialOptions{HTTPClient: c.socket, HTTPHeader: c.header()})
	if err != nil {
		if resp != nil && resp.StatusCode != http.StatusSwitchingProtocols {
			return c.responseError(resp)
		}
		return c.requestError(err)
	}
	defer conn.CloseNow()
	conn.SetReadLimit(64 << 20)
	if err := connected(); err != nil {
		return err
	}
	for {
		_, b, err := conn.Read(ctx)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case websocket.CloseStatus(err) == websocket.StatusNormalClosure, websocket.CloseStatus(err) == websocket.StatusGoingAway, errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return fmt.Errorf("tail loki at %s: %w", c.base.String(), err)
		}
		var message struct {
			Streams []stream
			Dropped []json.RawMessage `json:"dropped_entries"`
		}
		if err := json.Unmarshal(b, &message); err != nil {
			return fmt.Errorf("tail loki at %s: %w", c.base.String(), err)
		}
		var entries []format.Entry
		for _, s := range message.Streams {
			for _, v := range s.Values {
				entries = append(entries, s.entry(v))
			}
		}
		slices.SortStableFunc(entries, func(a, b format.Entry) int { return a.Time.Compare(b.Time) })
		for _, e := range entries {
			if err := f(e); err != nil {
				return err
			}
		}
		if len(message.Dropped) > 0 {
			if err := dropped(); err != nil {
				return err
			}
		}
	}
}
