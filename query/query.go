package query

import (
	"context"
	"time"

	"github.com/hindsight-events/hindsight/query/line"
)

// Source is where Events were stored. Its entries are those that may be asked
// for, and often some more.
type Source interface {
	// Range calls f for the entries from from to before to, oldest first, and
	// may add others. What f returns ends it and is returned.
	Range(ctx context.Context, from, to time.Time, f func(line.Entry) error) error

	// Repeated is Range, but may leave out the first state of an Event.
	Repeated(ctx context.Context, from, to time.Time, f func(line.Entry) error) error

	// Follow calls f for entries as they are stored, beginning with those from
	// from on, until ctx ends or f returns an error. An entry may come again.
	Follow(ctx context.Context, from time.Time, f func(line.Entry) error) error
}

// newestFirst is a Source that can be read from its end.
type newestFirst interface {
	Newest(ctx context.Context, from, to time.Time, f func(line.Entry) error) error
}

// Printer writes records one after the other.
type Printer interface {
	Print(r *line.Record) error
	// Flush writes what Print has held back.
	Flush() error
}

// Request is what to find and how to show it.
type Request struct {
	Source    Source
	Parser    line.Parser
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

// Run prints what is asked for, oldest first. It reads the range once for each
// state, or with folding a second time for the states that are repetitions, and
// holds of them no more than 40 bytes for each Event that was repeated, at most
// maxRepeated; with a Limit, so many records.
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
	err := run.list(ctx)
	q.Progress.Clear()
	if flushErr := q.Printer.Flush(); err == nil {
		err = flushErr
	}
	if err == nil && q.Follow {
		if q.Limit > 0 && run.result.Rows == q.Limit {
			run.From = run.oldest // what is before it was left out
		}
		err = q.Source.Follow(ctx, q.To, func(e line.Entry) error {
			return run.each(e, func(r *line.Record) error {
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

func (q *run) list(ctx context.Context) error {
	source, backwards := q.Source.(newestFirst)
	switch {
	case q.Limit > 0 && backwards:
		return q.newest(ctx, source)
	case q.Limit > 0:
		last := newTail(q.Limit)
		if err := q.forward(ctx, func(r *line.Record) error { last.add(*r); return nil }); err != nil {
			return err
		}
		return last.each(q.print)
	default:
		return q.forward(ctx, q.print)
	}
}

// forward visits rows oldest first.
func (q *run) forward(ctx context.Context, row func(*line.Record) error) error {
	var fold *fold
	if !q.States {
		fold = newFold()
		err := q.Source.Repeated(ctx, q.From, q.To, func(e line.Entry) error {
			return q.inRange(e, func(r *line.Record) error { fold.note(r); return nil })
		})
		if err != nil {
			return err
		}
		if fold.full {
			q.Warn("more Events were repeated than can be folded; some have a row for each of their states: narrow the range, or ask for --states")
		}
	}
	q.result = Result{}
	return q.Source.Range(ctx, q.From, q.To, func(e line.Entry) error {
		return q.inRange(e, func(r *line.Record) error {
			if hidden := fold.hides(r); q.shown.add(stateKey(r)) || hidden {
				return nil
			}
			return row(r)
		})
	})
}

// newest visits the newest rows of a source that can be read from its end.
func (q *run) newest(ctx context.Context, source newestFirst) error {
	var rows []line.Record
	events := map[key]bool{} // of the rows
	err := source.Newest(ctx, q.From, q.To, func(e line.Entry) error {
		return q.inRange(e, func(r *line.Record) error {
			if k, ok := eventKey(r); ok && !q.States {
				if events[k] {
					q.shown.add(stateKey(r)) // not to be shown by Follow either
					return nil
				}
				events[k] = true
			}
			if q.shown.add(stateKey(r)) {
				return nil
			}
			rows = append(rows, *r)
			if len(rows) == q.Limit {
				return errEnough
			}
			return nil
		})
	})
	if err != nil && err != errEnough {
		return err
	}
	for i := len(rows) - 1; i >= 0; i-- {
		if err := q.print(&rows[i]); err != nil {
			return err
		}
	}
	return nil
}

func (q *run) print(r *line.Record) error {
	q.Progress.Clear()
	if q.result.Rows == 0 {
		q.oldest = r.Time
	}
	q.result.Rows++
	return q.Printer.Print(r)
}

// each reads an entry and visits it if it is asked for.
func (q *run) each(e line.Entry, visit func(*line.Record) error) error {
	q.result.Entries++
	r, err := q.Parser.Parse(e)
	if err != nil {
		q.result.Foreign++
		return nil
	}
	q.Progress.Seen(r.Time, q.result.Entries)
	if !q.Selection.Match(&r) {
		return nil
	}
	return visit(&r)
}

func (q *run) inRange(e line.Entry, visit func(*line.Record) error) error {
	return q.each(e, func(r *line.Record) error {
		if r.Time.Before(q.From) || !r.Time.Before(q.To) {
			return nil
		}
		return visit(r)
	})
}
