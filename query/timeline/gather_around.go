package timeline

import (
	"context"
	"encoding/hex"
	"fmt"
	"strings"
	"time"

	"github.com/hindsight-events/hindsight/event"
	"github.com/hindsight-events/hindsight/event/format"
	"github.com/hindsight-events/hindsight/query"
)

// Around returns the time of an Event in the range of a Request, in its latest state. It is named by
// its uid, or by its name: as event/name in the namespace of the Filter, or as namespace/name. Lines
// of the formats logfmt and json do not have the name of an Event, but it consists of the name of the
// object and the time of the first occurrence.
func Around(ctx context.Context, r Request, name string) (time.Time, error) {
	s, err := query.NewSelection(query.Filter{Cluster: r.Filter.Cluster})
	if err != nil {
		return time.Time{}, err
	}
	s, matches := s.WithAny(event.FieldEventUID, name), func(*format.Record) bool { return true }
	if namespace, rest, ok := strings.Cut(name, "/"); ok || strings.Contains(name, ".") {
		switch {
		case !ok:
			namespace, rest = r.Filter.Namespace, name
		case namespace == "event" || namespace == "events":
			namespace = r.Filter.Namespace
		}
		object, at := cutName(rest)
		s = s.Scope().WithAny(event.FieldName, object)
		if !strings.Contains(rest, ".") { // event/uid, as query prints an Event without a name
			s = s.Scope().WithAny(event.FieldEventUID, rest)
		} else {
			matches = func(r *format.Record) bool {
				return r.Event.Name == rest || r.Event.Name == "" && !at.IsZero() && r.FirstTime().Sub(at).Abs() < 2*time.Second
			}
		}
		if namespace != "" {
			s = s.WithAny(event.FieldNamespace, namespace)
		}
	}
	var found format.Record
	err = r.Open(s).Range(ctx, r.From, r.To, func(e format.Entry) error {
		record, err := r.Parser.Parse(e)
		if err != nil || record.Time.IsZero() || !s.Match(&record) || !matches(&record) {
			return nil
		}
		if found.Event == nil || record.Position.Version >= found.Position.Version {
			found = record
		}
		return nil
	})
	r.Progress.Clear()
	if err == nil && found.Event == nil {
		err = fmt.Errorf("no Event %s found from %s to %s", name, r.From.Format(time.RFC3339), r.To.Format(time.RFC3339))
	}
	return found.Time, err
}

// cutName returns the name of the object and the time in the name of an Event,
// <object>.<nanoseconds since 1970 in hexadecimal>; the time is zero for other names:
// https://github.com/kubernetes/client-go/blob/v0.36.3/tools/record/event.go
func cutName(name string) (object string, at time.Time) {
	i := strings.LastIndexByte(name, '.')
	if i < 0 {
		return name, at
	}
	if b, err := hex.DecodeString(name[i+1:]); err == nil && len(b) == 8 {
		nanos := int64(0)
		for _, c := range b {
			nanos = nanos<<8 | int64(c)
		}
		at = time.Unix(0, nanos)
	}
	return name[:i], at
}
