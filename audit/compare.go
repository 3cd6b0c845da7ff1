package audit

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/hindsight-events/hindsight/event/format"
	"github.com/hindsight-events/hindsight/internal/excerpt"
	"github.com/hindsight-events/hindsight/internal/lazyregexp"
)

// find searches for states by the uid of their Event.
func (c *comparison) find(ctx context.Context, search Search, wanted map[string]int) error {
	return c.Store.Find(ctx, search, func(e format.Entry) error {
		c.read++
		// Most entries are other states: their lines need not be parsed.
		uid, version := e.Metadata["event_uid"], e.Metadata["event_version"]
		var r format.Record
		if uid == "" || version == "" {
			var err error
			if r, err = c.Parser.Parse(e); err != nil {
				return nil // a foreign line
			}
			uid, version = string(r.Event.UID), r.Event.ResourceVersion
		}
		if uid == "" || version == "" {
			return nil
		}
		c.identified++
		i, ok := wanted[uid]
		if !ok || c.states[i].version != version {
			return nil
		}
		if r.Event == nil {
			var err error
			if r, err = c.Parser.Parse(e); err != nil {
				return nil
			}
		}
		c.observe(&c.states[i], e, &r)
		return nil
	})
}

// observe compares an entry of a state with the Event, and with the other entries of the state.
func (c *comparison) observe(s *state, e format.Entry, r *format.Record) {
	stored := storedCopy{
		stream:   c.stream(e.Labels),
		time:     r.Time,
		line:     hash(e.Line),
		metadata: hash(pairs(e.Metadata)),
	}
	if s.found++; s.found == 1 {
		s.first = stored
	} else if s.repeated == "" {
		s.repeated = s.first.difference(stored)
	}
	if r.Time.Equal(s.at) {
		s.timely = true
	}
	if s.altered == "" {
		s.altered = s.alteration(e.Line, r)
	}
}

// stream returns the labels as one string, interned.
func (c *comparison) stream(labels map[string]string) string {
	text := "{" + pairs(labels) + "}"
	if have, ok := c.streams[text]; ok {
		return have
	}
	if c.streams == nil {
		c.streams = map[string]string{}
	}
	c.streams[text] = text
	return text
}

func pairs(m map[string]string) string {
	var b strings.Builder
	for i, name := range slices.Sorted(maps.Keys(m)) {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(name + "=" + strconv.Quote(m[name]))
	}
	return b.String()
}

// difference describes the difference between two entries of one state.
func (a storedCopy) difference(b storedCopy) string {
	var in []string
	if a.stream != b.stream {
		text := "stream (" + a.stream + " and " + b.stream
		if strings.Contains(a.stream+b.stream, `="other"`) {
			text += "; max_streams may have been reached in between"
		}
		in = append(in, text+")")
	}
	if !a.time.Equal(b.time) {
		in = append(in, "time ("+timestamp(a.time)+" and "+timestamp(b.time)+")")
	}
	if a.line != b.line {
		in = append(in, "line")
	}
	if a.metadata != b.metadata {
		in = append(in, "structured metadata")
	}
	if len(in) == 0 {
		return "do not differ"
	}
	return "differ in " + strings.Join(in, ", ")
}

var (
	// keyed matches a line of a format with a separate field for the message. In the format text the
	// message cannot be told from the rest.
	keyed = lazyregexp.New(`^(\{|\w+=)`)

	// shortened matches the end of text that was too long for Loki.
	shortened = lazyregexp.New(`… \(\d+ bytes cut\)$`)
)

// maxExcerpt is the maximum length of a value in a finding.
const maxExcerpt = 80

// alteration describes the fields of an entry that differ from the Event; empty if none does.
func (s *state) alteration(line string, r *format.Record) string {
	var wrong []string
	compare := func(field, want, got string) {
		if plain(want) != plain(got) && !shortened().MatchString(got) {
			wrong = append(wrong, fmt.Sprintf("%s %q instead of %q", field, excerpt.Of(got, maxExcerpt), excerpt.Of(want, maxExcerpt)))
		}
	}
	e := r.Event
	compare("namespace", s.namespace, e.Namespace)
	if s.eventReason != "" || e.Reason != "other" { // the label for an Event without a reason
		compare("reason", s.eventReason, e.Reason)
	}
	compare("kind", s.kind, e.InvolvedObject.Kind)
	compare("name", s.object, e.InvolvedObject.Name)
	compare("type", s.eventType, e.Type)
	if got := occurrences(e); got != s.count {
		wrong = append(wrong, fmt.Sprintf("count %d instead of %d", got, s.count))
	}
	if (r.WholeEvent || keyed().MatchString(line)) && hash(plain(e.Message)) != s.message && !shortened().MatchString(e.Message) {
		wrong = append(wrong, "another message")
	}
	if len(wrong) == 0 {
		return ""
	}
	return "stored with " + strings.Join(wrong, ", ")
}
