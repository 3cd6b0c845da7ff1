package query

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/hindsight-events/hindsight/event/format"
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
func (s *Loki) Range(ctx context.Context, from, to time.Time, f func(format.Entry) error) error {
	return s.Client.Range(ctx, s.Selection.LogQL(s.Layout), from, to, loki.Forward, f)
}

// States implements Source.
func (s *Loki) States(ctx context.Context, uids []string, from, to time.Time, f func(format.Entry) error) error {
	return s.Client.Range(ctx, s.Selection.statesLogQL(s.Layout, uids), from, to, loki.Backward, f)
}

// Newest implements newestFirst.
func (s *Loki) Newest(ctx context.Context, from, to time.Time, f func(format.Entry) error) error {
	return s.Client.Range(ctx, s.Selection.LogQL(s.Layout), from, to, loki.Backward, f)
}

const (
	// overlap is how far back is asked for again what came meanwhile: entries
	// are stored a little after the time that they are of.
	overlap = 5 * time.Minute

	// catchUpInterval is how long what Loki's tail has missed may stay missing.
	catchUpInterval = 10 * time.Second

	minBackoff = time.Second
	maxBackoff = 30 * time.Second
)

// Follow implements Source. New entries come by Loki's tail, and what that has
// missed by queries: at once after a lost connection, from 5 minutes before it,
// and every ten seconds.
func (s *Loki) Follow(ctx context.Context, from time.Time, f func(format.Entry) error) error {
	follow := &follower{Loki: s, visit: f, completeUntil: from, backoff: minBackoff}
	for {
		err := follow.followOnce(ctx)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case follow.failed != nil: // by f
			return follow.failed
		case permanent(err):
			return err
		}
		if err != nil && follow.lostSince.IsZero() {
			follow.lostSince = time.Now()
			s.Warn(err.Error() + "; trying again until it answers")
		}
		if err := pause(ctx, follow.backoff); err != nil {
			return err
		}
		follow.backoff = min(2*follow.backoff, maxBackoff)
	}
}

// permanent is of answers that stay as they are.
func permanent(err error) bool {
	var refused *loki.Error
	return errors.As(err, &refused) && refused.Status >= 400 && refused.Status < 500 && refused.Status != http.StatusTooManyRequests
}

// follower is one Follow. It belongs to one goroutine at a time.
type follower struct {
	*Loki
	visit         func(format.Entry) error
	failed        error     // of visit
	completeUntil time.Time // up to here, all that was stored by then has been visited
	lostSince     time.Time // the connection is lost; zero: it is not
	backoff       time.Duration
}

// followOnce follows for as long as one connection lasts. What came is visited by the
// goroutine of the tail or that of the queries, never by both at once.
func (s *follower) followOnce(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	entries := make(chan format.Entry)
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
		ended <- s.Client.Tail(ctx, s.Selection.LogQL(s.Layout), time.Now(), wake, wake, func(e format.Entry) error {
			select {
			case entries <- e:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		})
	}()
	err, running := error(nil), true
	tick := time.NewTicker(catchUpInterval)
	defer tick.Stop()
	connected := false
	for err == nil && running {
		select {
		case e := <-entries:
			err = s.visitEntry(e)
		case <-fill:
			connected = true
			err = s.catchUp(ctx)
		case <-tick.C:
			if connected {
				err = s.catchUp(ctx)
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

func (s *follower) visitEntry(e format.Entry) error {
	if err := s.visit(e); err != nil {
		s.failed = err
		return err
	}
	return nil
}

// catchUp visits what was stored since the last time, most of it again.
func (s *follower) catchUp(ctx context.Context) error {
	now := time.Now()
	err := s.Client.Range(ctx, s.Selection.LogQL(s.Layout), s.completeUntil.Add(-overlap), now.Add(overlap), loki.Forward, s.visitEntry)
	if err != nil {
		return err
	}
	s.completeUntil, s.backoff = now, minBackoff
	if !s.lostSince.IsZero() {
		s.Warn("loki answers again, after " + time.Since(s.lostSince).Round(time.Second).String() + "; what came meanwhile is above")
		s.lostSince = time.Time{}
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
