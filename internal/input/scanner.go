package input

import (
	"bytes"
	"encoding/json"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// maxValue is the maximum size of an object in JSON or YAML. etcd rejects objects of more
// than 1.5 MiB by default.
const maxValue = 16 << 20

// scanner finds the objects in JSON that it receives in pieces: elements of arrays and
// items of lists one by one, and other objects as a whole. It recognizes only brackets and
// strings.
type scanner struct {
	// object is called with each object and the list that contains it, or nil.
	// listEnd is called with a list after its items, without them. raw is valid until
	// they return; line is the number of its first line.
	object  func(raw []byte, of *list, line int)
	listEnd func(raw []byte, l *list, line int)

	stack    []byte  // open brackets
	frames   []frame // open objects, except inside an object that is not a list
	arrays   []int   // lengths of stack inside the open arrays with elements to examine
	inString bool
	escaped  bool
	scalars  bool // an array had elements that are not objects
	begin    int  // the line that the value begins on
}

// frame is an open object.
type frame struct {
	depth int    // length of stack directly inside
	raw   []byte // so far, without items
	line  int
	list  *list // nil until items were found in it
	text  int   // offset in raw of the last string directly inside
	key   string
}

// list is a list of which the items are read one by one.
type list struct {
	kind, apiVersion string // empty if they follow the items
	unknown          int    // items of an unknown kind
	unknownLine      int    // of the first
}

// maxDepth is the maximum depth of encoding/json.
const maxDepth = 10_000

// syntaxError is the reason why a value cannot be read.
type syntaxError string

func (e syntaxError) Error() string { return string(e) }

func (s *scanner) active() bool { return len(s.stack) > 0 }

func (s *scanner) reset() {
	s.stack, s.frames, s.arrays = s.stack[:0], nil, s.arrays[:0]
	s.inString, s.escaped, s.scalars = false, false, false
}

// feed reads a piece of a value. Once the value is complete, it returns the rest of
// the piece. line is the line number of the piece. An error is a syntaxError.
func (s *scanner) feed(b []byte, line int) (rest []byte, err error) {
	if !s.active() {
		s.begin = line
	}
	start := 0 // of the bytes that are not in the innermost object yet
	keep := func(to int) {
		if f := s.frame(); f != nil && !s.inArray() {
			f.raw = append(f.raw, b[start:to]...)
		}
		start = to
	}
	for i := 0; i < len(b); i++ {
		c := b[i]
		if s.inString {
			switch {
			case s.escaped:
				s.escaped = false
			case c == '\\':
				s.escaped = true
			case c == '"':
				s.inString = false
			case c == '\n':
				return nil, syntaxError("truncated in a string")
			}
			continue
		}
		f := s.frame()
		inside := f != nil && f.depth == len(s.stack) // directly
		switch c {
		case '"':
			s.inString = true
			if inside {
				f.text = len(f.raw) + i - start
			}
			s.scalars = s.scalars || s.inArray()
		case ':':
			if inside {
				keep(i)
				f.key = string(bytes.TrimSpace(f.raw[f.text:]))
			}
		case ',':
			if inside {
				f.key = ""
			}
		case '{', '[':
			if len(s.stack) >= maxDepth {
				return nil, syntaxError("nested too deeply")
			}
			element := len(s.stack) == 0 || s.inArray()
			items := c == '[' && inside && f.key == `"items"`
			if element {
				keep(i)
			}
			s.stack = append(s.stack, c)
			switch {
			case items:
				f.list = readHeader(f.raw[:f.text])
				keep(i + 1)
				s.arrays = append(s.arrays, len(s.stack))
			case element && c == '[':
				s.arrays = append(s.arrays, len(s.stack))
			case element:
				s.frames = append(s.frames, frame{depth: len(s.stack), line: line})
			}
		case '}', ']':
			if len(s.stack) == 0 || c-2 != s.stack[len(s.stack)-1] {
				return nil, syntaxError("mismatched brackets")
			}
			if s.inArray() {
				s.arrays = s.arrays[:len(s.arrays)-1]
				start = i // bytes between elements belong to no object
			}
			if c == '}' && inside {
				keep(i + 1)
				s.stack = s.stack[:len(s.stack)-1]
				s.endObject()
			} else {
				s.stack = s.stack[:len(s.stack)-1]
			}
			if len(s.stack) == 0 {
				return b[i+1:], nil
			}
		default:
			s.scalars = s.scalars || c > ' ' && s.inArray()
		}
		if s.inArray() {
			start = i + 1
		}
	}
	keep(len(b))
	if f := s.frame(); f != nil && len(f.raw) > maxValue {
		return nil, syntaxError("an object is larger than 16 MiB")
	}
	return nil, nil
}

// endObject emits the complete object.
func (s *scanner) endObject() {
	last := len(s.frames) - 1
	f := s.frames[last]
	s.frames[last] = frame{}
	s.frames = s.frames[:last]
	if f.list != nil {
		s.listEnd(f.raw, f.list, f.line)
		return
	}
	var of *list
	if last > 0 {
		of = s.frames[last-1].list
	}
	s.object(f.raw, of, f.line)
}

func (s *scanner) frame() *frame {
	if len(s.frames) == 0 {
		return nil
	}
	return &s.frames[len(s.frames)-1]
}

// inArray reports whether the next value is an element to examine.
func (s *scanner) inArray() bool {
	return len(s.arrays) > 0 && s.arrays[len(s.arrays)-1] == len(s.stack)
}

// readHeader reads the fields of a list that precede its items.
func readHeader(raw []byte) *list {
	var t metav1.TypeMeta
	raw = append(bytes.TrimRight(bytes.Clone(raw), ", \t\r\n"), '}')
	_ = json.Unmarshal(raw, &t) // listEnd finds errors
	return &list{kind: t.Kind, apiVersion: t.APIVersion}
}
