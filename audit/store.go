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

// Search selects entries. Empty fields select all.
type Search struct {
	Namespace string   // of the Events
	UIDs      []string // of the Events
	Gaps      bool     // only gap records
	From, To  time.Time
}

// Store is a place in which Events were stored.
type Store interface {
	// Find calls visit for each entry that matches, and may call it for others: ordered by time in
	// Loki, approximately in files. An error of visit ends it and is returned.
	Find(ctx context.Context, s Search, visit func(format.Entry) error) error

	// String describes the place for messages.
	String() string
}

// Loki is the Store of a Loki sink.
type Loki struct {
	Client  *loki.Client
	Layout  query.Layout // of the sink
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
		where += ", streams " + selection.Streams(l.Layout)
	}
	return where
}

// Files is the Store of a file sink, or any file with Events. It is read completely.
type Files struct {
	Path string
	// Warn is called for each problem of the files, each time they are read. It may be nil.
	Warn func(problem string)
}

// Find implements Store. It returns an error if the files are not empty and have no Events.
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
