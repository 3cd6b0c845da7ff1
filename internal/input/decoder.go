// Package input reads Events from files and streams, in any of these forms:
//
//   - lists of Events, as JSON or YAML, with or without the kinds of their items;
//     arrays and sequences of them; several documents in a row;
//   - the output of a watch: Events, or frames around them;
//   - lines of Hindsight in each of its formats, and lines of eventrouter;
//   - any of these in the log of a container, from a container runtime or kubectl logs;
//   - any of these compressed with gzip, in UTF-16, or with a byte order mark.
//
// One input may mix these forms. A Decoder holds at most one Event in memory.
package input

import (
	"bytes"
	"encoding/json"
	"maps"
	"slices"
	"strings"

	"github.com/hindsight-events/hindsight/event/format"
)

// maxLine is the maximum length of a line that is not JSON.
const maxLine = 1 << 20

// maxWraps is the maximum number of wrappings of a line.
const maxWraps = 5

// Decoder finds the Events in text that is written to it in pieces. Problems in the text do
// not end reading; Problems lists them. A Decoder is not safe for concurrent use.
type Decoder struct {
	visit    func(format.Entry) error
	err      error // of visit
	problems problems

	line          int    // number of the line that is being read
	buffer        []byte // its beginning
	midLongLine   bool   // the beginning of the line was passed to scan or skipped
	scan          scanner
	scanWraps     wraps // of the document in scan
	truncated     bool  // skip text up to the next document
	yaml          yamlDocument
	parts         map[string][]byte // of lines split by a container runtime, by stream
	marker        bool              // a line with --- came before
	hindsightLine bool              // the last line was a line of Hindsight
}

// NewDecoder returns a Decoder that calls visit for each state of an Event in the
// order of the input. Entry.Record is set, and Entry.Line for a line of Hindsight. An error
// of visit ends reading.
func NewDecoder(visit func(format.Entry) error) *Decoder {
	d := &Decoder{visit: visit, parts: map[string][]byte{}}
	d.scan.object = func(raw []byte, of *list, line int) { d.decodeObject(raw, of, location{line: line}) }
	d.scan.listEnd = func(raw []byte, l *list, line int) { d.listEnd(raw, l, location{line: line}) }
	return d
}

// Write decodes a piece of the text. It returns the error of visit, if any.
func (d *Decoder) Write(p []byte) (int, error) {
	n := len(p)
	for len(p) > 0 && d.err == nil {
		end := bytes.IndexByte(p, '\n')
		if end < 0 {
			d.buffer = append(d.buffer, p...)
			if len(d.buffer) > maxLine || d.midLongLine && d.scan.active() {
				d.line++
				d.decodeLongLine(d.buffer, false)
				d.line--
				d.buffer = d.buffer[:0]
			}
			break
		}
		text := p[:end]
		if len(d.buffer) > 0 {
			d.buffer = append(d.buffer, text...)
			text = d.buffer
		}
		d.line++
		if d.midLongLine || len(text) > maxLine {
			d.decodeLongLine(text, true)
		} else {
			d.decodeLine(text)
		}
		d.midLongLine = false
		d.buffer = d.buffer[:0]
		p = p[end+1:]
	}
	return n, d.err
}

// Close decodes an incomplete last line or document, and records a problem if it is
// truncated. The Decoder can then read another input; line numbers continue.
func (d *Decoder) Close() error {
	if len(d.buffer) > 0 || d.midLongLine {
		_, _ = d.Write([]byte("\n"))
	}
	for _, key := range slices.Sorted(maps.Keys(d.parts)) {
		text := d.parts[key]
		delete(d.parts, key)
		d.decodeContent(text, location{line: d.line, wraps: strings.Split(key, "\x00")})
	}
	d.endYAML()
	if d.scan.active() {
		d.abortJSON("truncated at the end of the input")
	}
	d.truncated = false
	return d.err
}

// AtBoundary reports whether all written text is decoded: the input is between two
// documents.
func (d *Decoder) AtBoundary() bool {
	return len(d.buffer) == 0 && !d.midLongLine && !d.scan.active() && !d.yaml.active() && len(d.parts) == 0
}

// MidLine reports whether the input ends in an incomplete line after a line of Hindsight:
// a file sink is writing the rest.
func (d *Decoder) MidLine() bool {
	return d.hindsightLine && len(d.buffer) > 0 && !d.scan.active() && !d.yaml.active() && !json.Valid(d.buffer)
}

// Problems returns one problem for each kind of text that could not be read so far.
func (d *Decoder) Problems() []Problem { return d.problems.list() }

// location is the location of an object or a line in the input.
type location struct {
	line  int
	wraps wraps
}

// emit passes a record to visit. text is its line, nil without a line of Hindsight.
func (d *Decoder) emit(r *format.Record, text []byte) {
	d.hindsightLine = text != nil
	if d.err == nil {
		d.err = d.visit(format.Entry{Line: string(text), Record: r})
	}
}

var byteOrderMark = []byte("\xef\xbb\xbf")

// decodeLine decodes a line.
func (d *Decoder) decodeLine(text []byte) {
	text = bytes.TrimPrefix(bytes.TrimRight(text, "\r"), byteOrderMark) // also within concatenated files
	d.hindsightLine = false
	if d.scan.active() {
		if inner, part, ok := d.scanWraps.strip(text); ok {
			if !beginsDocument(inner, d.scan.inArray()) {
				d.feedJSON(inner, !part)
				return
			}
			d.abortJSON("truncated where another begins")
		}
	}
	if d.yaml.active() {
		if d.yaml.continues(text) {
			d.addYAML(text)
			return
		}
		d.endYAML()
	}
	d.decodeContent(text, location{line: d.line})
}

// beginsDocument reports whether a line cannot continue a JSON document, by its first
// column. Elements of an array may begin there.
func beginsDocument(text []byte, inArray bool) bool {
	if len(text) == 0 {
		return false
	}
	if text[0] == '{' || text[0] == '[' {
		return !inArray
	}
	return strings.IndexByte(" \t\"}],:", text[0]) < 0
}

// decodeLongLine decodes a part of a line longer than maxLine.
func (d *Decoder) decodeLongLine(text []byte, end bool) {
	if !d.midLongLine {
		d.midLongLine = true
		text = bytes.TrimPrefix(text, byteOrderMark)
		if !d.scan.active() {
			d.endYAML()
			if text = bytes.TrimLeft(text, " \t"); !bytes.HasPrefix(text, []byte("{")) && !bytes.HasPrefix(text, []byte("[")) {
				d.problems.addLine(d.line, text)
				return
			}
			d.scanWraps = nil
		}
	} else if !d.scan.active() {
		return // the line is skipped, or follows a document
	}
	d.feedJSON(text, end)
}

// feedJSON begins or continues a JSON document.
func (d *Decoder) feedJSON(text []byte, end bool) {
	for {
		rest, err := d.scan.feed(text, d.line)
		if err == nil && d.scan.active() && end {
			rest, err = d.scan.feed([]byte("\n"), d.line)
		}
		if err != nil {
			d.abortJSON(err.Error())
			return
		}
		if d.scan.active() {
			return
		}
		if d.scan.scalars {
			d.problems.addObject(d.scan.begin, "values in an array")
		}
		d.scan.reset()
		text = bytes.TrimLeft(rest, " \t\r")
		if len(text) == 0 {
			return
		}
		if text[0] != '{' && text[0] != '[' {
			d.problems.addLine(d.line, text)
			return
		}
	}
}

func (d *Decoder) abortJSON(reason string) {
	d.problems.addDamaged(d.scan.begin, "not an Event in JSON: %s", reason)
	d.scan.reset()
	d.truncated = true
}

// decodeContent decodes a line without wrapping, or an unwrapped line.
func (d *Decoder) decodeContent(text []byte, at location) {
	if d.truncated && len(at.wraps) == 0 {
		if !beginsDocument(text, false) {
			return
		}
		d.truncated = false
	}
	if bare := bytes.TrimSpace(text); len(bare) == 0 || string(bare) == "null" { // jq .items[] of an empty list
		return
	}
	if indented := bytes.TrimLeft(text, " \t"); indented[0] == '{' || indented[0] == '[' {
		text = indented
	}
	if text[0] == '{' {
		if last := bytes.TrimRight(text, " \t"); last[len(last)-1] == '}' && json.Valid(text) {
			d.decodeObject(text, nil, at)
		} else {
			d.beginJSON(text, at)
		}
		return
	}
	inner, how, part := unwrap(text)
	switch {
	case inner != nil && len(at.wraps) < maxWraps:
		d.decodeUnwrapped(inner, how, part, at)
		return
	case text[0] == '[':
		d.beginJSON(text, at)
		return
	case len(at.wraps) == 0 && d.beginYAML(text):
		return
	case mayBeHindsightLine(text) && d.decodeHindsightLine(text, at):
		return
	}
	if raw := embeddedObject(text); raw != nil {
		d.decodeObject(raw, nil, at)
		return
	}
	d.problems.addLine(at.line, text)
}

// beginJSON begins a document that spans several lines or is malformed.
func (d *Decoder) beginJSON(text []byte, at location) {
	if d.scan.active() { // a document of another container
		d.problems.addDamaged(at.line, "not an Event in JSON: %s", quote(text))
		return
	}
	d.scanWraps = at.wraps
	d.feedJSON(text, true)
}
