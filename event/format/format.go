// Package format writes records as lines in one of four formats, and reads such lines
// back, with or without the labels and the structured metadata that Loki keeps beside
// a line.
package format

import (
	"fmt"
	"slices"
	"time"

	"github.com/hindsight-events/hindsight/event"
)

// Format is how a record is written as one line.
type Format string

const (
	EventRouter Format = "eventrouter" // {"verb":…,"event":{…}}: the whole Event, as heptio/eventrouter writes it
	JSON        Format = "json"        // one flat object
	Logfmt      Format = "logfmt"      // key=value, named as Grafana Alloy's loki.source.kubernetes_events does
	Text        Format = "text"        // a sentence
)

var formats = []Format{EventRouter, JSON, Logfmt, Text}

func (f Format) String() string { return string(f) }

// UnmarshalText reads a format from a configuration file.
func (f *Format) UnmarshalText(name []byte) error {
	if !slices.Contains(formats, Format(name)) {
		return fmt.Errorf("unknown format %q: want one of eventrouter, json, logfmt, text", name)
	}
	*f = Format(name)
	return nil
}

// Encoder writes records as lines. It is a pure function of the record, and
// safe for concurrent use.
//
// Whatever an Event says, its line is one line of valid UTF-8 that does nothing
// to a terminal: line breaks, control characters and those that turn the
// direction of writing are escaped, and invalid UTF-8 becomes U+FFFD. logfmt and the JSON formats decode
// to the values as they were.
type Encoder struct {
	// Format is logfmt if empty.
	Format Format

	// Standalone is for destinations that keep nothing but the line. It then
	// carries the time, the namespace and what else structured metadata would
	// hold.
	Standalone bool
}

// Append appends the record's line to dst, without a line break. A record
// without an Event has none: dst is returned as it is.
func (enc Encoder) Append(dst []byte, r *event.Record) []byte {
	if r.Event == nil {
		return dst
	}
	switch enc.Format {
	case EventRouter:
		return appendEventRouter(dst, r, enc.Standalone)
	case JSON:
		w := fieldWriter{dst: append(dst, '{'), json: true}
		w.record(r, enc.Standalone)
		return append(w.dst, '}')
	case Text:
		return appendText(dst, r, enc.Standalone)
	default:
		w := fieldWriter{dst: dst}
		w.record(r, enc.Standalone)
		return w.dst
	}
}

// tooFar explains a time that is not the one the reporter gave.
const tooFar = "too far from the API server's clock to be filed under"

func appendTime(dst []byte, t time.Time) []byte {
	return t.UTC().AppendFormat(dst, time.RFC3339Nano)
}
