package query

import (
	"context"
	"time"

	"github.com/hindsight-events/hindsight/event/format"
)

// Source is a place in which Events were stored. It knows the Selection and visits at least the
// entries that match it; it may visit others.
type Source interface {
	// Range calls f for the entries from from to before to, oldest first. An error of f ends it
	// and is returned.
	Range(ctx context.Context, from, to time.Time, f func(format.Entry) error) error

	// States is like Range in any order. Its entries may be reduced to uid and version, time, and
	// the fields that the Selection needs. With uids, entries of other Events may be omitted.
	States(ctx context.Context, uids []string, from, to time.Time, f func(format.Entry) error) error

	// Follow calls f for entries as they are stored, starting with those from from on, until ctx
	// ends or f returns an error. It may visit an entry more than once.
	Follow(ctx context.Context, from time.Time, f func(format.Entry) error) error
}

// newestFirst is a Source that can be read from its end.
type newestFirst interface {
	// Newest is like Range, newest first.
	Newest(ctx context.Context, from, to time.Time, f func(format.Entry) error) error
}

// Printer writes records one after the other.
type Printer interface {
	Print(r *format.Record) error
	// Flush writes the records that Print has buffered.
	Flush() error
}

// Request describes a query: which Events, and how they are printed.
type Request struct {
	Source    Source
	Parser    format.Parser
	Selection *Selection

	From, To time.Time // with Follow, To is when following begins
	Limit    int       // the newest n; 0: all
	States   bool      // print every state of an Event, not only its latest
	Follow   bool      // then print new states as they are stored

	Printer  Printer
	Progress *Progress // nil: none
	// Warn shows a warning to the user.
	Warn func(message string)
}

// Result counts the entries of a query.
type Result struct {
	Rows    int // printed
	Entries int // read
	Foreign int // of these, foreign lines
}

// maxClockSkew is how far in the future followed entries may be, because of another clock.
const maxClockSkew = time.Hour

// Run prints the matching Events, oldest first: each Event once, in its matching state of the
// highest version, or with States each state. Without States it reads the range twice, first in
// short form, to learn the highest versions; it holds up to 40 bytes for each of at most maxTracked
// Events. With a Limit it holds that many records.
//
// An error of the context is returned unchanged.
func Run(ctx context.Context, q Request) (Result, error) {
	run := &run{Request: q, printed: newRecentKeys(recentStates)}
	if run.Warn == nil {
		run.Warn = func(string) {}
	}
	if q.Follow {
		run.To = q.To.Add(maxClockSkew)
	}
	err := run.printRange(ctx)
	q.Progress.Clear()
	if flushErr := q.Printer.Flush(); err == nil {
		err = flushErr
	}
	if err == nil && q.Follow {
		if q.Limit > 0 && run.result.Rows == q.Limit {
			run.From = run.oldest // older records were omitted
		}
		err = q.Source.Follow(ctx, q.To, func(e format.Entry) error {
			return run.visitEntry(e, func(r *format.Record) error {
				if r.Time.Before(run.From) || run.printed.add(stateKey(r)) {
					return nil
				}
				if err := run.print(r); err != nil {
					return err
				}
				return q.Printer.Flush()
			})
		})
	}
	return run.result, err
}

// run is one execution of a Request.
type run struct {
	Request
	result  Result
	printed *recentKeys // states that were printed or skipped
	oldest  time.Time   // time of the first row
}

func (q *run) printRange(ctx context.Context) error {
	source, backwards := q.Source.(newestFirst)
	switch {
	case q.Limit > 0 && backwards:
		return q.printNewest(ctx, source)
	case q.Limit > 0:
		last := newLastN(q.Limit)
		if err := q.visitOldestFirst(ctx, func(r *format.Record) error { last.add(*r); return nil }); err != nil {
			return err
		}
		return last.each(q.print)
	default:
		return q.visitOldestFirst(ctx, q.print)
	}
}

// visitOldestFirst visits the records to print, oldest first.
func (q *run) visitOldestFirst(ctx context.Context, row func(*format.Record) error) error {
	latest := Latest{taken: q.printed}
	if !q.States {
		latest.versions = newLatestOnly()
		if err := q.readVersions(ctx, latest.versions, nil, q.From, q.To); err != nil {
			return err
		}
		q.warnIfFull(latest.versions)
	}
	return q.Source.Range(ctx, q.From, q.To, func(e format.Entry) error {
		return q.visitInRange(e, func(r *format.Record) error {
			if !latest.Take(r) {
				return nil
			}
			return row(r)
		})
	})
}

// readVersions reads the versions of a part of the range.
func (q *run) readVersions(ctx context.Context, latest *latestOnly, uids []string, from, to time.Time) error {
	before := q.result
	defer func() { q.result = before }() // these entries are read a second time
	return q.Source.States(ctx, uids, from, to, func(e format.Entry) error {
		return q.visitInRange(e, func(r *format.Record) error { latest.observe(r); return nil })
	})
}

func (q *run) warnIfFull(latest *latestOnly) {
	if latest.full {
		q.Warn("too many Events to find the latest state of each; some have several rows: narrow the range or use --states")
	}
}

func (q *run) print(r *format.Record) error {
	q.Progress.Clear()
	if q.result.Rows == 0 {
		q.oldest = r.Time
	}
	q.result.Rows++
	return q.Printer.Print(r)
}

// visitEntry parses an entry and visits the record if it matches.
func (q *run) visitEntry(e format.Entry, visit func(*format.Record) error) error {
	q.result.Entries++
	r, err := q.Parser.Parse(e)
	if err != nil {
		q.result.Foreign++
		return nil
	}
	q.Progress.Update(r.Time, q.result.Entries)
	if !q.Selection.Match(&r) {
		return nil
	}
	return visit(&r)
}

func (q *run) visitInRange(e format.Entry, visit func(*format.Record) error) error {
	return q.visitEntry(e, func(r *format.Record) error {
		if r.Time.Before(q.From) || !r.Time.Before(q.To) {
			return nil
		}
		return visit(r)
	})
}
