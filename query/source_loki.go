package query

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/hindsight-events/hindsight/query/line"
	"github.com/hindsight-events/hindsight/query/loki"
)

// Loki is the Source that a Loki is.
type Loki struct {
	Client *loki.Client
	Layout Layout

	Selection *Selection

	// Warn tells of a connection that was lost, and of its being back.
	Warn func(message string)
}

// Range implements Source.
func (s *Loki) Range(ctx context.Context, from, to time.Time, f func(line.Entry) error) error {
	return s.Client.Range(ctx, s.Selection.LogQL(s.Layout), from, to, loki.Forward, f)
}

// States implements Source.
func (s *Loki) States(ctx context.Context, uids []string, from, to time.Time, f func(line.Entry) error) error {
	return s.Client.Range(ctx, s.Selection.statesLogQL(s.Layout, uids), from, to, loki.Backward, f)
}

// Newest implements newestFirst.
func (s *Loki) Newest(ctx context.Context, from, to time.Time, f func(line.Entry) error) error {
	return s.Client.Range(ctx, s.Selection.LogQL(s.Layout), from, to, loki.Backward, f)
}

const (
	// overlap is how far back is asked for again what came meanwhile: entries
	// are stored a little after the time that they are of.
	overlap = 5 * time.Minute

	// fillEvery is how long what Loki's tail has missed may stay missing.
	fillEvery = 10 * time.Second

	retryFirst = time.Second
	retryMost  = 30 * time.Second
)

// Follow implements Source. New entries come by Loki's tail, and what that has
// missed by queries: at once after a lost connection, from 5 minutes before it,
// and every ten seconds.
func (s *Loki) Follow(ctx context.Context, from time.Time, f func(line.Entry) error) error {
	follow := &follower{Loki: s, visit: f, good: from, wait: retryFirst}
	for {
		err := follow.once(ctx)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case follow.failed != nil: // by f
			return follow.failed
		case final(err):
			return err
		}
		if err != nil && follow.since.IsZero() {
			follow.since = time.Now()
			s.Warn(err.Error() + "; trying again until it answers")
		}
		if err := pause(ctx, follow.wait); err != nil {
			return err
		}
		follow.wait = min(2*follow.wait, retryMost)
	}
}

// final is of answers that stay as they are.
func final(err error) bool {
	var refused *loki.Error
	return errors.As(err, &refused) && refused.Status >= 400 && refused.Status < 500 && refused.Status != http.StatusTooManyRequests
}

// follower is one Follow. It belongs to one goroutine at a time.
type follower struct {
	*Loki
	visit  func(line.Entry) error
	failed error     // of visit
	good   time.Time // up to here, all that was stored by then has been visited
	since  time.Time // the connection is lost; zero: it is not
	wait   time.Duration
}

// once follows for as long as one connection lasts. What came is visited by the
// goroutine of the tail or that of the queries, never by both at once.
func (s *follower) once(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	entries := make(chan line.Entry)
	fill := make(chan struct{}, 1)
	wake := func() error {
		select {
		case fill <- struct{}{}:
		default:
		}
		return nil
	}
	ended := make(chan error, 1)
	go func() {
		ended <- s.Client.Tail(ctx, s.Selection.LogQL(s.Layout), time.Now(), wake, wake, func(e line.Entry) error {
			select {
			case entries <- e:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		})
	}()
	err, running := error(nil), true
	tick := time.NewTicker(fillEvery)
	defer tick.Stop()
	connected := false
	for err == nil && running {
		select {
		case e := <-entries:
			err = s.take(e)
		case <-fill:
			connected = true
			err = s.fill(ctx)
		case <-tick.C:
			if connected {
				err = s.fill(ctx)
			}
		case err = <-ended:
			running = false
		}
	}
	cancel()
	if running {
		<-ended
	}
	return err
}

func (s *follower) take(e line.Entry) error {
	if err := s.visit(e); err != nil {
		s.failed = err
		return err
	}
	return nil
}

// fill visits what was stored since the last time, most of it again.
func (s *follower) fill(ctx context.Context) error {
	now := time.Now()
	err := s.Client.Range(ctx, s.Selection.LogQL(s.Layout), s.good.Add(-overlap), now.Add(overlap), loki.Forward, s.take)
	if err != nil {
		return err
	}
	s.good, s.wait = now, retryFirst
	if !s.since.IsZero() {
		s.Warn("loki answers again, after " + time.Since(s.since).Round(time.Second).String() + "; what came meanwhile is above")
		s.since = time.Time{}
	}
	return nil
}

func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
