// Package replay reads Events from files: what kubectl printed, and what
// Hindsight or eventrouter wrote.
package replay

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"
)

// Reader reads the Events of one input. It understands
//   - an EventList or List, as JSON or YAML (kubectl get events -o json|yaml);
//   - a stream of JSON objects, one after the other or one a line (kubectl get
//     events -w -o json, also with --output-watch-events);
//   - eventrouter lines, {"verb":…,"event":{…}}.
//
// The forms may be mixed, but for YAML, which is read to its end as soon as a
// document begins in it. A stream is read as it comes.
type Reader struct {
	lines   *bufio.Reader
	line    int    // number of the last line read
	pending []byte // a line that was read too far
}

// NewReader returns a Reader of r.
func NewReader(r io.Reader) *Reader {
	return &Reader{lines: bufio.NewReaderSize(r, 64<<10)}
}

// BadInput is a piece of the input that is no Event. Reading can go on after it.
type BadInput struct {
	Line int // where it begins, counted from 1
	Err  error
}

func (e *BadInput) Error() string { return fmt.Sprintf("line %d: %v", e.Line, e.Err) }
func (e *BadInput) Unwrap() error { return e.Err }

// Document is what one JSON or YAML document of the input held.
type Document struct {
	Events []*corev1.Event
	// List means that the Events are those of a list, whose order says nothing
	// about when they happened.
	List bool
	// Bad are the items of a list that are no Events.
	Bad []*BadInput
}

var (
	opening = []byte("{")
	closing = []byte("}")

	// A line that begins a YAML document of a kind we could read.
	yamlStart = regexp.MustCompile(`^(---|#|apiVersion:|kind:|items:|metadata:)`)
)

// Next returns the next document that holds Events, io.EOF at the end, and a
// *BadInput for what cannot be read.
func (r *Reader) Next() (*Document, error) {
	for {
		line, err := r.readLine()
		if err != nil {
			return nil, err
		}
		start := r.line
		switch {
		case len(bytes.TrimSpace(line)) == 0:
			continue
		case yamlStart.Match(line):
			return r.yaml(line, start)
		case !bytes.HasPrefix(line, opening):
			return nil, &BadInput{start, fmt.Errorf("neither JSON nor the beginning of YAML: %s", excerpt(line))}
		case json.Valid(line):
			return parse(line, start)
		default:
			text, err := r.object(line)
			if err != nil {
				return nil, err
			}
			return parse(text, start)
		}
	}
}

// object reads on to the end of a JSON object that takes several lines. It ends
// at a brace that closes at the first column; and one that opens there begins
// the next object, so that a torn line spoils no more than itself.
func (r *Reader) object(line []byte) ([]byte, error) {
	text := bytes.Clone(line)
	for !bytes.Equal(bytes.TrimSpace(line), closing) || bytes.HasPrefix(line, []byte(" ")) {
		var err error
		line, err = r.readLine()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		if c := line[0]; c != ' ' && c != '\t' && c != '}' && c != ']' && c != '\r' && c != '\n' {
			r.unreadLine(line)
			break
		}
		text = append(text, line...)
	}
	return bytes.TrimSpace(text), nil
}

// yaml reads everything that is left, as YAML documents, and returns it as one.
func (r *Reader) yaml(line []byte, start int) (*Document, error) {
	text := bytes.Clone(line)
	all := &Document{List: true}
	for {
		next, err := r.readLine()
		if err != nil && !errors.Is(err, io.EOF) {
			return nil, err
		}
		if err == nil && !bytes.HasPrefix(next, []byte("---")) {
			text = append(text, next...)
			continue
		}
		if doc, bad := parseYAML(text, start); bad != nil {
			all.Bad = append(all.Bad, bad)
		} else {
			all.Events = append(all.Events, doc.Events...)
			all.Bad = append(all.Bad, doc.Bad...)
		}
		if err != nil {
			return all, nil
		}
		text, start = nil, r.line+1
	}
}

var comment = regexp.MustCompile(`(?m)^(---|#).*$`)

func parseYAML(text []byte, line int) (*Document, *BadInput) {
	if len(bytes.TrimSpace(comment.ReplaceAll(text, nil))) == 0 {
		return &Document{}, nil
	}
	data, err := yaml.YAMLToJSON(text)
	if err != nil {
		return nil, &BadInput{line, fmt.Errorf("a document that begins here: %w", err)}
	}
	doc, err := parse(data, line)
	var bad *BadInput
	errors.As(err, &bad)
	return doc, bad
}

// readLine returns the next line with its end, valid until the next call.
func (r *Reader) readLine() ([]byte, error) {
	if line := r.pending; line != nil {
		r.pending = nil
		r.line++
		return line, nil
	}
	line, err := r.lines.ReadBytes('\n')
	if len(line) == 0 {
		if err == nil || errors.Is(err, io.EOF) {
			return nil, io.EOF
		}
		return nil, fmt.Errorf("read line %d: %w", r.line+1, err)
	}
	r.line++
	return line, nil
}

func (r *Reader) unreadLine(line []byte) {
	r.pending = line
	r.line--
}

func excerpt(b []byte) string {
	const most = 60
	b = bytes.TrimSpace(b)
	if len(b) > most {
		return fmt.Sprintf("%q…", b[:most])
	}
	return fmt.Sprintf("%q", b)
}
