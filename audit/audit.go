// Package audit compares the Events in the API server with the stored lines. For each Event it
// checks that the latest state is stored, once, under the right time and with the right content.
//
// The package is independent of the code that exports Events, so that a bug there cannot hide
// itself: it has its own selectors, redaction and rules for times (rules.go, state.go), and imports
// only the packages that read lines back, and small helpers. TestIsIndependent checks that. It
// cannot see states that were overwritten before the audit, Events that the API server has deleted,
// and fields that it does not compare.
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
	"github.com/hindsight-events/hindsight/internal/wait"
)

// Options of an audit.
type Options struct {
	// Client lists Events: see NewClient.
	Client rest.Interface

	// Namespace of the Events; empty: all.
	Namespace string

	Store  Store
	Parser format.Parser
	Rules  Rules

	// Settle is the time in which a state must be stored. A younger one that is missing is searched
	// for again until that time has passed.
	Settle time.Duration

	// Limit is the maximum number of listed findings of one kind and reason; 0: no limit. All are
	// counted.
	Limit int

	// Notify is called with progress messages for the user. It may be nil.
	Notify func(message string)
}

const (
	margin     = time.Hour           // of a search around the times of states
	wideMargin = 24 * time.Hour      // of the last search for single states
	maxAge     = 30 * 24 * time.Hour // of entries to search

	// maxUIDs is the maximum number of Events that are searched for by uid.
	maxUIDs = 100
)

// Run audits once. It holds about half a kilobyte for each Event, and a page of stored entries. An
// error means that nothing was compared; differences are not an error.
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
		return nil, fmt.Errorf("read the stored entries: %w", err)
	}
	return c.result(), nil
}

// comparison is one audit. It belongs to one goroutine.
type comparison struct {
	Options
	began  time.Time
	states []state

	read       int               // entries
	identified int               // of these, entries with uid and version
	streams    map[string]string // interned labels
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
		return errors.New("the lines have neither uid nor resourceVersion, like those of the format text in a file, and cannot be compared")
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

// span returns the time range in which the entries of states should be.
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

// missing returns the states that are neither found nor explained.
func (c *comparison) missing() (indices []int) {
	for i := range c.states {
		if s := &c.states[i]; s.found == 0 && s.reason == "" {
			indices = append(indices, i)
		}
	}
	return indices
}

// recheck searches for missing states until all of them had Settle to be stored, with increasing
// pauses, because most are stored soon.
func (c *comparison) recheck(ctx context.Context) error {
	for step := c.Settle / 8; ; step *= 2 {
		missing := c.missing()
		if len(missing) == 0 {
			return nil
		}
		remaining := c.unsettled(missing)
		if remaining > 0 && step == c.Settle/8 {
			c.Notify(fmt.Sprintf("%s not stored yet; waiting for up to %s", count(len(missing), "Event is", "Events are"), remaining.Round(time.Second)))
		}
		last := remaining <= step
		if err := wait.Sleep(ctx, min(remaining, step)); err != nil {
			return err
		}
		if err := c.searchFor(ctx, missing, last); err != nil || last {
			return err
		}
	}
}

// unsettled returns the time until all of the states had Settle to be stored.
func (c *comparison) unsettled(indices []int) (remaining time.Duration) {
	now := time.Now()
	for _, i := range indices {
		// At most Settle from the list on, also if the clock of the API server is ahead.
		written := c.states[i].written
		if written.After(c.began) {
			written = c.began
		}
		remaining = max(remaining, c.Settle-now.Sub(written))
	}
	return remaining
}

// searchFor searches for single states, the last time with a wider time range.
func (c *comparison) searchFor(ctx context.Context, indices []int, last bool) error {
	wanted := make(map[string]int, len(indices))
	search := Search{Namespace: c.Namespace}
	search.From, search.To = c.span(indices)
	for _, i := range indices {
		wanted[c.states[i].uid] = i
	}
	if len(indices) <= maxUIDs {
		search.UIDs = slices.Sorted(maps.Keys(wanted))
		if last {
			search.From, search.To = search.From.Add(-wideMargin), search.To.Add(wideMargin)
		}
	}
	return c.find(ctx, search, wanted)
}

// insideGaps explains the missing states that are inside a declared gap.
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
			if s := &c.states[i]; g.contains(s) {
				s.reason, s.detail = InsideGap, g.String()
			}
		}
	}
	return err
}

var errFound = errors.New("found")

// beforeStart explains the missing states that are older than the oldest entry.
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
		return fmt.Errorf("%s is empty: check address or path, tenant, job and cluster", c.Store)
	}
	for _, i := range missing {
		if s := &c.states[i]; s.at.Before(oldest) {
			s.reason, s.detail = BeforeStart, "the oldest entry has the time "+timestamp(oldest)
		}
	}
	return nil
}

// result counts and lists the findings.
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

// hint returns a likely cause why a state is missing.
func (c *comparison) hint(s *state) string {
	const (
		tooOld    = 7 * 24 * time.Hour // reject_old_samples_max_age
		tooFarOff = 10 * time.Minute   // creation_grace_period
	)
	switch age := c.began.Sub(s.at); {
	case s.at.IsZero():
		return "it has no time"
	case age > tooOld, age < -tooFarOff:
		return "its time is far from now, which Loki refuses by default"
	}
	return "the reason is not known"
}
