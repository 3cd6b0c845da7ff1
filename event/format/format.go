// Package format writes records as lines in one of four formats, and parses such lines,
// alone or with the labels and structured metadata that Loki stores with a line.
package format

import (
	"fmt"
	"slices"
	"time"

	"github.com/hindsight-events/hindsight/event"
)

// Format is the name of a line format.
type Format string

const (
	EventRouter Format = "eventrouter" // {"verb":…,"event":{…}}: the whole Event, like heptio/eventrouter
	JSON        Format = "json"        // one flat object
	Logfmt      Format = "logfmt"      // key=value, with the keys of Grafana Alloy's loki.source.kubernetes_events
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

// HasShort reports whether Encoder.Short makes lines of the format shorter.
func (f Format) HasShort() bool { return f == Logfmt || f == JSON }

// Encoder writes records as lines. It is a pure function of the record, and safe for
// concurrent use.
//
// Every line is one line of valid UTF-8 that is safe to print on a terminal: line breaks,
// control characters and bidirectional controls are escaped, and invalid UTF-8 becomes
// U+FFFD. The logfmt and JSON formats decode to the original values.
type Encoder struct {
	// Format is logfmt if empty.
	Format Format

	// Standalone is for destinations that store only the line. The line then also has
	// the time, the namespace and the structured metadata.
	Standalone bool

	// Short is for destinations that store structured metadata too. The line then has only
	// the fields that the metadata does not have, if the format HasShort and the line is not
	// Standalone.
	Short bool
}

// Append appends the record's line to dst, without a line break. A record without an Event
// has no line.
func (enc Encoder) Append(dst []byte, r *event.Record) []byte {
	if r.Event == nil {
		return dst
	}
	switch enc.Format {
	case EventRouter:
		return appendEventRouter(dst, r, enc.Standalone)
	case JSON:
		w := fieldWriter{dst: append(dst, '{'), json: true, short: enc.Short && !enc.Standalone}
		w.record(r, enc.Standalone)
		return append(w.dst, '}')
	case Text:
		return appendText(dst, r, enc.Standalone)
	default:
		w := fieldWriter{dst: dst, short: enc.Short && !enc.Standalone}
		w.record(r, enc.Standalone)
		return w.dst
	}
}

// tooFar explains why the reporter's time is not the record's time.
const tooFar = "too far from the API server's clock to be used as the time"

func appendTime(dst []byte, t time.Time) []byte {
	return t.UTC().AppendFormat(dst, time.RFC3339Nano)
}
