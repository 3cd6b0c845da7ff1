package query

import (
	"context"
	"time"

	"github.com/hindsight-events/hindsight/event/format"
)

// Source is where Events were stored. Its entries are those that may be asked
// for, and often some more.
type Source interface {
	// Range calls f for the entries from from to before to, oldest first, and
	// may add others. What f returns ends it and is returned.
	Range(ctx context.Context, from, to time.Time, f func(format.Entry) error) error

	// States is Range in any order, of entries that may be cut down to what
	// identifies a state (uid and version), its time and what is asked for. With
	// uids, entries of other Events may be left out.
	States(ctx context.Context, uids []string, from, to time.Time, f func(format.Entry) error) error

	// Follow calls f for entries as they are stored, beginning with those from
	// from on, until ctx ends or f returns an error. An entry may come again.
	Follow(ctx context.Context, from time.Time, f func(format.Entry) error) error
}

// newestFirst is a Source that can be read from its end.
type newestFirst interface {
	// Newest is Range, newest first.
	Newest(ctx context.Context, from, to time.Time, f func(format.Entry) error) error
}

// Printer writes records one after the other.
type Printer interface {
	Print(r *format.Record) error
	// Flush writes what Print has held back.
	Flush() error
}

// Request is what to find and how to show it.
type Request struct {
	Source    Source
	Parser    format.Parser
	Selection *Selection

	From, To time.Time // with Follow, To is when it begins
	Limit    int       // the newest so many; 0: all
	States   bool      // each state of an Event by itself, instead of the latest
	Follow   bool      // and then each state that comes

	Printer  Printer
	Progress *Progress // nil: none
	// Warn tells the person who asks of something.
	Warn func(message string)
}

// Result says what was found.
type Result struct {
	Rows    int // printed
	Entries int // read
	Foreign int // of them, lines that say nothing of an Event
}

// ahead is how far in the future what is followed may be, by another clock.
const ahead = time.Hour

// Run prints what is asked for, oldest first: each Event once, in its state of the
// highest version among those asked for, or with States each state. It reads the
// range once for States, else a second time in short form, to know the highest
// versions; of them it holds up to 40 bytes for each of at most maxFolded Events.
// With a Limit it holds so many records.
//
// An error of the context is returned as it is.
func Run(ctx context.Context, q Request) (Result, error) {
	run := &run{Request: q, shown: newRecent(recentStates)}
	if run.Warn == nil {
		run.Warn = func(string) {}
	}
	if q.Follow {
		run.To = q.To.Add(ahead)
	}
	err := run.printRange(ctx)
	q.Progress.Clear()
	if flushErr := q.Printer.Flush(); err == nil {
		err = flushErr
	}
	if err == nil && q.Follow {
		if q.Limit > 0 && run.result.Rows == q.Limit {
			run.From = run.oldest // what is before it was left out
		}
		err = q.Source.Follow(ctx, q.To, func(e format.Entry) error {
			return run.visitEntry(e, func(r *format.Record) error {
				if r.Time.Before(run.From) || run.shown.add(stateKey(r)) {
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

// run is one Request being answered.
type run struct {
	Request
	result Result
	shown  *recent   // states that were printed, or left out for good
	oldest time.Time // of the first row
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

// visitOldestFirst visits rows oldest first.
func (q *run) visitOldestFirst(ctx context.Context, row func(*format.Record) error) error {
	var fold *latestOnly
	if !q.States {
		fold = newLatestOnly()
		if err := q.readVersions(ctx, fold, nil, q.From, q.To); err != nil {
			return err
		}
		q.warnIfFull(fold)
	}
	return q.Source.Range(ctx, q.From, q.To, func(e format.Entry) error {
		return q.visitInRange(e, func(r *format.Record) error {
			if q.shown.add(stateKey(r)) || fold.hides(r) {
				return nil
			}
			fold.markShown(r)
			return row(r)
		})
	})
}

// readVersions reads the versions of a part of the range into a fold.
func (q *run) readVersions(ctx context.Context, fold *latestOnly, uids []string, from, to time.Time) error {
	before := q.result
	defer func() { q.result = before }() // they are read again
	return q.Source.States(ctx, uids, from, to, func(e format.Entry) error {
		return q.visitInRange(e, func(r *format.Record) error { fold.observe(r); return nil })
	})
}

func (q *run) warnIfFull(fold *latestOnly) {
	if fold.full {
		q.Warn("there are more Events than can be folded; some have a row for each of their states: narrow the range, or ask for --states")
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

// visitEntry reads an entry and visits it if it is asked for.
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
