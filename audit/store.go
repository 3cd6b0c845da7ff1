package audit

import (
	"context"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/hindsight-events/hindsight/event/format"
	"github.com/hindsight-events/hindsight/query"
	"github.com/hindsight-events/hindsight/query/file"
	"github.com/hindsight-events/hindsight/query/loki"
)

// Search is what to look for. What is empty does not matter.
type Search struct {
	Namespace string   // of the Events
	UIDs      []string // of the Events
	Gaps      bool     // only the records of gaps
	From, To  time.Time
}

// Store is where Events were stored.
type Store interface {
	// Find calls visit for each entry that is looked for, and may for others.
	// Their order is that of time in Loki, in files about that. An error of visit
	// ends it and is returned.
	Find(ctx context.Context, s Search, visit func(format.Entry) error) error

	// String says to a person where that is.
	String() string
}

// Loki is the Store that a sink has written to.
type Loki struct {
	Client  *loki.Client
	Layout  query.Layout // of that sink
	Cluster string       // the label; empty: any
}

// Find implements Store.
func (l *Loki) Find(ctx context.Context, s Search, visit func(format.Entry) error) error {
	selection, err := l.selection(s)
	if err != nil {
		return err
	}
	return l.Client.Range(ctx, selection.LogQL(l.Layout), s.From, s.To, loki.Forward, visit)
}

func (l *Loki) selection(s Search) (*query.Selection, error) {
	f := query.Filter{Cluster: l.Cluster, Namespace: s.Namespace}
	if s.Gaps {
		f.Reasons = []string{"HindsightGap"}
	}
	if len(s.UIDs) > 0 {
		quoted := make([]string, len(s.UIDs))
		for i, uid := range s.UIDs {
			quoted[i] = regexp.QuoteMeta(uid)
		}
		f.Selector = "{event_uid=~" + strconv.Quote(strings.Join(quoted, "|")) + "}"
	}
	return query.NewSelection(f)
}

func (l *Loki) String() string {
	where := "loki at " + l.Client.URL()
	if selection, err := l.selection(Search{}); err == nil {
		where += " of " + selection.Streams(l.Layout)
	}
	return where
}

// Files are a Store that is read as a whole: the files of a file sink, or another
// with Events.
type Files struct {
	Path string
	// Warn is told what in the files could not be read, each time that they are
	// read. Nil: nobody.
	Warn func(problem string)
}

// Find implements Store. It is an error if nothing in the files is an Event, though
// there is something.
func (f Files) Find(ctx context.Context, s Search, visit func(format.Entry) error) error {
	files, err := file.Open(f.Path)
	if err != nil {
		return err
	}
	defer files.Close()
	if err := files.Range(ctx, s.From, visit); err != nil {
		return err
	}
	problems, err := files.Problems()
	if err != nil {
		return err
	}
	for _, problem := range problems {
		if f.Warn != nil {
			f.Warn(problem)
		}
	}
	return nil
}

func (f Files) String() string { return f.Path }
