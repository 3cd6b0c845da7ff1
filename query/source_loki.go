package query

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/hindsight-events/hindsight/event/format"
	"github.com/hindsight-events/hindsight/internal/wait"
	"github.com/hindsight-events/hindsight/query/loki"
)

// Loki is the Source that reads the streams of a Loki sink.
type Loki struct {
	Client *loki.Client
	Layout Layout

	Selection *Selection

	// Warn shows a warning to the user when the connection of Follow is lost, and when it is back.
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
	// overlap is how far each query reaches behind the previous one: an entry is stored some time
	// after its own time.
	overlap = 5 * time.Minute

	// catchUpInterval bounds how late entries that the tail missed are visited.
	catchUpInterval = 10 * time.Second

	minBackoff = time.Second
	maxBackoff = 30 * time.Second
)

// Follow implements Source. New entries arrive by Loki's tail; queries find those that the tail
// missed: every ten seconds, and after a reconnect at once, from 5 minutes before the connection
// was lost.
func (s *Loki) Follow(ctx context.Context, from time.Time, f func(format.Entry) error) error {
	follow := &follower{Loki: s, visit: f, completeUntil: from, backoff: minBackoff}
	for {
		err := follow.followOnce(ctx)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case follow.visitErr != nil:
			return follow.visitErr
		case permanent(err):
			return err
		}
		if err != nil && follow.lostSince.IsZero() {
			follow.lostSince = time.Now()
			s.Warn(err.Error() + "; retrying")
		}
		if err := wait.Sleep(ctx, follow.backoff); err != nil {
			return err
		}
		follow.backoff = min(2*follow.backoff, maxBackoff)
	}
}

// permanent reports whether a retry would get the same response.
func permanent(err error) bool {
	var response *loki.Error
	return errors.As(err, &response) && response.Status >= 400 && response.Status < 500 && response.Status != http.StatusTooManyRequests
}

// follower is one call of Follow. It belongs to one goroutine.
type follower struct {
	*Loki
	visit         func(format.Entry) error
	visitErr      error
	completeUntil time.Time // all entries stored until then were visited
	lostSince     time.Time // zero: connected
	backoff       time.Duration
}

// followOnce follows until one connection ends. Entries of the tail and of queries are visited by
// this goroutine.
func (s *follower) followOnce(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	entries := make(chan format.Entry)
	missed := make(chan struct{}, 1)
	notify := func() error { wait.Notify(missed); return nil }
	ended := make(chan error, 1)
	go func() {
		ended <- s.Client.Tail(ctx, s.Selection.LogQL(s.Layout), time.Now(), notify, notify, func(e format.Entry) error {
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
		case <-missed:
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
		s.visitErr = err
		return err
	}
	return nil
}

// catchUp visits the entries stored since the last call, and the overlap again.
func (s *follower) catchUp(ctx context.Context) error {
	now := time.Now()
	err := s.Client.Range(ctx, s.Selection.LogQL(s.Layout), s.completeUntil.Add(-overlap), now.Add(overlap), loki.Forward, s.visitEntry)
	if err != nil {
		return err
	}
	s.completeUntil, s.backoff = now, minBackoff
	if !s.lostSince.IsZero() {
		s.Warn("loki is reachable again after " + time.Since(s.lostSince).Round(time.Second).String() + "; Events stored meanwhile are above")
		s.lostSince = time.Time{}
	}
	return nil
}
