// Package audit compares the Events that an API server holds with what was
// stored of them: of each Event, whether its latest state was stored, once, under
// the time that it should have, and as it is.
//
// It decides by itself what should be there. Nothing of what ships Events is used
// here, so that a fault in it cannot hide itself; only the packages that read
// back are. What it does not see: states that were overwritten since, Events that
// the API server has forgotten, and anything beyond the fields it compares.
package audit

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"k8s.io/client-go/rest"

	"github.com/hindsight-events/hindsight/event/format"
)

// Options of an audit.
type Options struct {
	// Client reads Events: see NewClient. It has to be allowed to list them.
	Client rest.Interface

	// Namespace of the Events; empty: all.
	Namespace string

	Store  Store
	Parser format.Parser
	Rules  Rules

	// Settle is how long a state may take from the API server into the store.
	// One that is missing and younger is looked for again when it is older.
	Settle time.Duration

	// Limit is how many findings of one kind and reason are listed at most; 0:
	// all. All are counted.
	Limit int

	// Notify is told what a person who waits wants to know. It may be nil.
	Notify func(message string)
}

// How far from the time that an Event should have it is looked for.
const (
	margin     = time.Hour      // at first
	wideMargin = 24 * time.Hour // in a search for single Events
	maxAge     = 30 * 24 * time.Hour

	// singleEvents is how many Events at most are asked for by their uids.
	singleEvents = 100
)

// Run audits once. It holds about half a kilobyte of each Event, and a page of what is
// stored. An error means that nothing could be compared; differences are no
// error.
func Run(ctx context.Context, o Options) (*Result, error) {
	if o.Notify == nil {
		o.Notify = func(string) {}
	}
	began := time.Now()
	states, err := list(ctx, o.Client, o.Namespace, o.Rules)
	if err != nil {
		return nil, err
	}
	c := &comparison{Options: o, began: began, states: states}
	if err := c.run(ctx); err != nil {
		return nil, fmt.Errorf("read what is stored: %w", err)
	}
	return c.result(), nil
}

// comparison is one audit. It belongs to one goroutine.
type comparison struct {
	Options
	began  time.Time
	states []state

	read       int               // entries
	identified int               // of them, those that say which state they are
	streams    map[string]string // one copy of each
}

func (c *comparison) run(ctx context.Context) error {
	all := make(map[string]int, len(c.states))
	indices := make([]int, len(c.states))
	for i := range c.states {
		all[c.states[i].uid], indices[i] = i, i
	}
	from, to := c.span(indices)
	if err := c.find(ctx, Search{Namespace: c.Namespace, From: from, To: to}, all); err != nil {
		return err
	}
	if c.read > 0 && c.identified == 0 {
		return errors.New("the lines do not say which Events they are of (neither uid nor resourceVersion), as those of the format text in a file; they cannot be compared")
	}
	if err := c.recheck(ctx); err != nil {
		return err
	}
	missing := c.missing()
	if len(missing) == 0 {
		return nil
	}
	if err := c.insideGaps(ctx, missing, from, to); err != nil {
		return err
	}
	return c.beforeStart(ctx, c.missing())
}

// span is where the entries of states should be.
func (c *comparison) span(indices []int) (from, to time.Time) {
	from, to = c.began, c.began
	for _, i := range indices {
		at := c.states[i].at
		if at.Before(from) {
			from = at
		}
		if at.After(to) {
			to = at
		}
	}
	from, to = from.Add(-margin), to.Add(margin)
	if bound := c.began.Add(-maxAge); from.Before(bound) {
		from = bound
	}
	if bound := c.began.Add(wideMargin); to.After(bound) {
		to = bound
	}
	return from, to
}

// missing are those of which it is not known why they are.
func (c *comparison) missing() (indices []int) {
	for i := range c.states {
		if s := &c.states[i]; s.found == 0 && s.reason == "" {
			indices = append(indices, i)
		}
	}
	return indices
}

// recheck looks for what is missing a second time: when it may be expected to have
// arrived, with some looks before that, for most arrives soon.
func (c *comparison) recheck(ctx context.Context) error {
	for step := c.Settle / 8; ; step *= 2 {
		missing := c.missing()
		if len(missing) == 0 {
			return nil
		}
		wait := c.unsettled(missing)
		if wait > 0 && step == c.Settle/8 {
			c.Notify(fmt.Sprintf("%s not stored yet; looking again, for %s at most", count(len(missing), "Event is", "Events are"), wait.Round(time.Second)))
		}
		last := wait <= step
		if err := sleep(ctx, min(wait, step)); err != nil {
			return err
		}
		if err := c.searchFor(ctx, missing, last); err != nil || last {
			return err
		}
	}
}

// unsettled is how long it takes until all of the states have had the time to
// arrive.
func (c *comparison) unsettled(indices []int) (wait time.Duration) {
	now := time.Now()
	for _, i := range indices {
		// No longer than that since the list, if the API server's clock is ahead.
		written := c.states[i].written
		if written.After(c.began) {
			written = c.began
		}
		wait = max(wait, c.Settle-now.Sub(written))
	}
	return wait
}

// searchFor looks for single states, the last time also further from the time
// that they should have.
func (c *comparison) searchFor(ctx context.Context, indices []int, last bool) error {
	wanted := make(map[string]int, len(indices))
	search := Search{Namespace: c.Namespace}
	search.From, search.To = c.span(indices)
	for _, i := range indices {
		wanted[c.states[i].uid] = i
	}
	if len(indices) <= singleEvents {
		search.UIDs = slices.Sorted(maps.Keys(wanted))
		if last {
			search.From, search.To = search.From.Add(-wideMargin), search.To.Add(wideMargin)
		}
	}
	return c.find(ctx, search, wanted)
}

// insideGaps finds out which of the missing states lie inside of a gap that was
// declared.
func (c *comparison) insideGaps(ctx context.Context, missing []int, from, to time.Time) error {
	var gaps []gap
	err := c.Store.Find(ctx, Search{Gaps: true, From: from.Add(-wideMargin), To: to}, func(e format.Entry) error {
		if r, err := c.Parser.Parse(e); err == nil && r.Gap {
			gaps = append(gaps, parseGap(r.Event, r.Time))
		}
		return nil
	})
	for _, g := range gaps {
		if g.open && slices.ContainsFunc(gaps, g.endedBy) {
			continue
		}
		for _, i := range missing {
			if s := &c.states[i]; g.holds(s) {
				s.reason, s.detail = InsideGap, g.String()
			}
		}
	}
	return err
}

var errFound = errors.New("found")

// beforeStart finds out which of the missing states are older than all that is
// stored.
func (c *comparison) beforeStart(ctx context.Context, missing []int) error {
	if len(missing) == 0 {
		return nil
	}
	var oldest time.Time
	err := c.Store.Find(ctx, Search{From: c.began.Add(-maxAge), To: c.began.Add(wideMargin)}, func(e format.Entry) error {
		r, err := c.Parser.Parse(e)
		if err != nil || r.Time.IsZero() {
			return nil
		}
		oldest = r.Time
		return errFound
	})
	if err != nil && !errors.Is(err, errFound) {
		return err
	}
	if oldest.IsZero() {
		return fmt.Errorf("there is nothing in %s: is it the right place, tenant, job and cluster?", c.Store)
	}
	for _, i := range missing {
		if s := &c.states[i]; s.at.Before(oldest) {
			s.reason, s.detail = BeforeStart, "the oldest entry is of "+timestamp(oldest)
		}
	}
	return nil
}

// result puts together what was found out.
func (c *comparison) result() *Result {
	r := &Result{Time: c.began.UTC(), Compared: len(c.states), Explained: map[string]int{}, Findings: []Finding{}, limit: c.Limit, listed: map[group]int{}}
	for i := range c.states {
		s := &c.states[i]
		if s.found > 0 {
			r.Found++
		}
		switch {
		case s.found == 0 && s.reason != "":
			r.Explained[s.reason]++
			r.add(s, Explained, s.reason, s.detail)
		case s.found == 0:
			r.Missing++
			r.add(s, Missing, "", c.hint(s))
		case s.found > 1:
			r.Repeated++
			r.add(s, Repeated, "", fmt.Sprintf("%d times: they %s", s.found, s.repeated))
		}
		if s.found > 0 && !s.timely {
			r.Mistimed++
			r.add(s, Mistimed, "", fmt.Sprintf("stored under %s, %s", timestamp(s.first.time), distance(s.first.time.Sub(s.at))))
		}
		if s.altered != "" {
			r.Altered++
			r.add(s, Altered, "", s.altered)
		}
	}
	slices.SortStableFunc(r.Findings, func(a, b Finding) int { return a.Time.Compare(b.Time) })
	return r
}

// hint says of a missing state what a person should know.
func (c *comparison) hint(s *state) string {
	const (
		tooOld    = 7 * 24 * time.Hour // reject_old_samples_max_age
		tooFarOff = 10 * time.Minute   // creation_grace_period
	)
	switch age := c.began.Sub(s.at); {
	case s.at.IsZero():
		return "it has no time at all"
	case age > tooOld, age < -tooFarOff:
		return "its time is far from now, which Loki refuses by default"
	}
	return "the reason is not known"
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
