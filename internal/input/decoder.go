// Package input reads Events from files and streams, in any of these forms:
//
//   - lists of Events, as JSON or YAML, with or without the kinds of their items;
//     arrays and sequences of them; several documents in a row;
//   - the output of a watch: Events, or frames around them;
//   - lines of Hindsight in each of its formats, and lines of eventrouter;
//   - any of these in the log of a container, as a container runtime stores it or
//     kubectl logs prints it;
//   - any of these compressed with gzip, in UTF-16, or with a byte order mark.
//
// One input may mix these forms. A Decoder holds no more than one Event at a time,
// however long the input is.
package input

import (
	"bytes"
	"encoding/json"
	"maps"
	"slices"
	"strings"

	"github.com/hindsight-events/hindsight/event/format"
)

// maxLine is the length up to which a line is examined as a whole. Longer lines are
// read only if they are JSON.
const maxLine = 1 << 20

// maxWraps is how many times a line may be wrapped into another.
const maxWraps = 5

// Decoder finds the Events in text that is written to it in pieces. A problem in the
// text does not end the reading; Problems lists all of them. A Decoder is not safe
// for concurrent use.
type Decoder struct {
	visit    func(format.Entry) error
	err      error // of visit
	problems problems

	line    int    // number of the line that is being read
	buffer  []byte // its beginning
	rest    bool   // scan has its beginning, or the beginning was skipped
	scan    scanner
	scanned wraps // of the document that scan reads
	torn    bool  // the text up to the next document belongs to a truncated one
	yaml    yamlDocument
	parts   map[string][]byte // of lines that a container runtime has split, by stream
	marker  bool              // a line with --- came before
	growing bool              // the last line was one of ours
}

// NewDecoder returns a Decoder that calls visit for each state of an Event in the
// order of the input. Entry.Record is set; Entry.Line is as well if the Event was
// a line of Hindsight. An error from visit ends the reading.
func NewDecoder(visit func(format.Entry) error) *Decoder {
	d := &Decoder{visit: visit, parts: map[string][]byte{}}
	d.scan.object = func(raw []byte, of *list, line int) { d.object(raw, of, place{line: line}) }
	d.scan.listEnd = func(raw []byte, l *list, line int) { d.listEnd(raw, l, place{line: line}) }
	return d
}

// Write reads a piece of the text. It returns the error of visit, if any.
func (d *Decoder) Write(p []byte) (int, error) {
	n := len(p)
	for len(p) > 0 && d.err == nil {
		end := bytes.IndexByte(p, '\n')
		if end < 0 {
			d.buffer = append(d.buffer, p...)
			if len(d.buffer) > maxLine || d.rest && d.scan.active() {
				d.line++
				d.long(d.buffer, false)
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
		if d.rest || len(text) > maxLine {
			d.long(text, true)
		} else {
			d.whole(text)
		}
		d.rest = false
		d.buffer = d.buffer[:0]
		p = p[end+1:]
	}
	return n, d.err
}

// Close reads an incomplete last line or document as if it were complete, and
// records a problem if it is truncated. The Decoder can then read another input,
// which counts as a continuation of this one.
func (d *Decoder) Close() error {
	if len(d.buffer) > 0 || d.rest {
		_, _ = d.Write([]byte("\n"))
	}
	for _, key := range slices.Sorted(maps.Keys(d.parts)) {
		text := d.parts[key]
		delete(d.parts, key)
		d.content(text, place{line: d.line, wraps: strings.Split(key, "\x00")})
	}
	d.endYAML()
	if d.scan.active() {
		d.breakOff("it breaks off at the end of the input")
	}
	d.torn = false
	return d.err
}

// AtBoundary reports whether everything that was written has been read, so that the
// input is between two documents.
func (d *Decoder) AtBoundary() bool {
	return len(d.buffer) == 0 && !d.rest && !d.scan.active() && !d.yaml.active() && len(d.parts) == 0
}

// MidLine reports whether the input ends in the middle of a line and, judging by the
// line before, is the file of a file sink: the rest of the line is being written.
func (d *Decoder) MidLine() bool {
	return d.growing && len(d.buffer) > 0 && !d.scan.active() && !d.yaml.active() && !json.Valid(d.buffer)
}

// Problems returns one problem for each sort of text that could not be read so far.
func (d *Decoder) Problems() []Problem { return d.problems.list() }

// place is where something was found.
type place struct {
	line  int
	wraps wraps
}

// hand passes a record to visit. text is the line it was read from, nil if it was
// not read from a line.
func (d *Decoder) hand(r *format.Record, text []byte) {
	d.growing = text != nil
	if d.err == nil {
		d.err = d.visit(format.Entry{Line: string(text), Record: r})
	}
}

var byteOrderMark = []byte("\xef\xbb\xbf")

// whole reads a line.
func (d *Decoder) whole(text []byte) {
	text = bytes.TrimPrefix(bytes.TrimRight(text, "\r"), byteOrderMark) // also where files were joined
	d.growing = false
	if d.scan.active() {
		if inner, part, ok := d.scanned.strip(text); ok {
			if !begins(inner, d.scan.inArray()) {
				d.scanOn(inner, !part)
				return
			}
			d.breakOff("it breaks off where another begins")
		}
	}
	if d.yaml.active() {
		if d.yaml.continues(text) {
			d.addYAML(text)
			return
		}
		d.endYAML()
	}
	d.content(text, place{line: d.line})
}

// begins reports whether a line begins in its first column with text that cannot
// continue a JSON document. An array may have elements that begin there.
func begins(text []byte, inArray bool) bool {
	if len(text) == 0 {
		return false
	}
	if text[0] == '{' || text[0] == '[' {
		return !inArray
	}
	return strings.IndexByte(" \t\"}],:", text[0]) < 0
}

// long reads a part of a line that is too long to be examined as a whole.
func (d *Decoder) long(text []byte, end bool) {
	if !d.rest {
		d.rest = true
		text = bytes.TrimPrefix(text, byteOrderMark)
		if !d.scan.active() {
			d.endYAML()
			if text = bytes.TrimLeft(text, " \t"); !bytes.HasPrefix(text, []byte("{")) && !bytes.HasPrefix(text, []byte("[")) {
				d.problems.addLine(d.line, text)
				return
			}
			d.scanned = nil
		}
	} else if !d.scan.active() {
		return // of a line that was left out, or behind a document
	}
	d.scanOn(text, end)
}

// scanOn continues a JSON document, or begins one.
func (d *Decoder) scanOn(text []byte, end bool) {
	for {
		rest, err := d.scan.feed(text, d.line)
		if err == nil && d.scan.active() && end {
			rest, err = d.scan.feed([]byte("\n"), d.line)
		}
		if err != nil {
			d.breakOff(err.Error())
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

func (d *Decoder) breakOff(why string) {
	d.problems.addDamaged(d.scan.begin, "not an Event in JSON: %s", why)
	d.scan.reset()
	d.torn = true
}

// content reads a line, or the line that was wrapped into it, that begins a document.
func (d *Decoder) content(text []byte, at place) {
	if d.torn && len(at.wraps) == 0 {
		if !begins(text, false) {
			return
		}
		d.torn = false
	}
	if bare := bytes.TrimSpace(text); len(bare) == 0 || string(bare) == "null" { // jq .items of a list without any
		return
	}
	if indented := bytes.TrimLeft(text, " \t"); indented[0] == '{' || indented[0] == '[' {
		text = indented
	}
	if text[0] == '{' {
		if last := bytes.TrimRight(text, " \t"); last[len(last)-1] == '}' && json.Valid(text) {
			d.document(text, at)
		} else {
			d.beginScan(text, at)
		}
		return
	}
	inner, how, part := unwrap(text)
	switch {
	case inner != nil && len(at.wraps) < maxWraps:
		d.unwrapped(inner, how, part, at)
		return
	case text[0] == '[':
		d.beginScan(text, at)
		return
	case len(at.wraps) == 0 && d.beginYAML(text):
		return
	case isOurs(text) && d.ours(text, at):
		return
	}
	if raw := embedded(text); raw != nil {
		d.document(raw, at)
		return
	}
	d.problems.addLine(at.line, text)
}

// beginScan begins a document that spans several lines or is malformed.
func (d *Decoder) beginScan(text []byte, at place) {
	if d.scan.active() { // of another container's output
		d.problems.addDamaged(at.line, "not an Event in JSON: %s", excerpt(text))
		return
	}
	d.scanned = at.wraps
	d.scanOn(text, true)
}
