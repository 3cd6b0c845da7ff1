package format

import (
	"encoding/json"
	"regexp"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/hindsight-events/hindsight/event"
	"github.com/hindsight-events/hindsight/internal/lazyregexp"
)

// textLine is a parsed line of the format text.
type textLine struct {
	// Standalone is set if the line begins with a time. Only such a line has
	// Time, Namespace, Type, Count, ObservedTime and Attributes.
	Standalone      bool
	Time            time.Time
	Namespace, Type string
	Count           int32 // 0: one or unknown
	ObservedTime    time.Time
	Attributes      []event.Pair

	Reason     string
	Kind, Name string // of the object
	EventName  string // of the Event itself, if it names no object
	Message    string
	Related    string // kind/namespace/name, without empty parts
}

// The optional parts at the end of a line. A related object may be quoted.
var (
	textRelated    = lazyregexp.New(`(?:^| )\(([^\s()"\\]+/[^\s()"\\]+|"(?:[^"\\]|\\.)*")\)$`)
	textCount      = lazyregexp.New(`(?:^| )\(x(\d+)\)$`)
	textAttributes = lazyregexp.New(`(?:^| )\{(` + textAttribute + `(?:, ` + textAttribute + `)*)\}$`)
	textPair       = lazyregexp.New(textAttribute)
	textObserved   = lazyregexp.New(`(?:^| )\(observed at (\S+), [^()]*\)$`)
)

const textAttribute = `[a-zA-Z_][a-zA-Z0-9_]*="(?:[^"\\]|\\.)*"`

// parseTextLine parses a text line, standalone or not. It returns false for any other line.
func parseTextLine(line string) (textLine, bool) {
	var s textLine
	rest := line
	if stamp, after, found := strings.Cut(rest, " "); found {
		if at, err := time.Parse(time.RFC3339Nano, stamp); err == nil {
			s.Standalone, s.Time, rest = true, at.UTC(), after
		}
	}
	words, rest, ok := s.words(rest)
	if !ok || !s.assign(words) {
		return textLine{}, false
	}
	if !s.ending(rest) {
		return textLine{}, false
	}
	return s, true
}

// textWord is a word of a text line.
type textWord struct {
	text   string
	quoted bool
}

// words parses the words before the object, and the object.
func (s *textLine) words(rest string) (words []textWord, after string, ok bool) {
	for len(words) <= 3 {
		w, after, ok := nextWord(rest, " /")
		switch {
		case ok && strings.HasPrefix(after, " "):
			words, rest = append(words, w), after[1:]
			continue
		case !ok || !strings.HasPrefix(after, "/") || !w.quoted && !bareKind(w.text):
			return nil, "", false
		}
		name, after, ok := nextWord(after[1:], " ")
		if !ok {
			return nil, "", false
		}
		if !name.quoted {
			bare := strings.TrimSuffix(name.text, ":")
			if !bareName(bare) {
				return nil, "", false
			}
			after = name.text[len(bare):] + after
			name.text = bare
		}
		if w.text == eventKind && !w.quoted {
			s.EventName = name.text
		} else {
			s.Kind, s.Name = w.text, name.text
		}
		return words, after, true
	}
	return nil, "", false
}

// nextWord parses a word up to one of the characters in end, or a JSON string.
func nextWord(s, end string) (w textWord, after string, ok bool) {
	if !strings.HasPrefix(s, `"`) {
		i := strings.IndexAny(s, end)
		if i < 0 {
			i = len(s)
		}
		return textWord{text: s[:i]}, s[i:], i > 0
	}
	for i := 1; i < len(s); i++ {
		switch s[i] {
		case '\\':
			i++
		case '"':
			err := json.Unmarshal([]byte(s[:i+1]), &w.text)
			w.quoted = true
			return w, s[i+1:], err == nil
		}
	}
	return w, "", false
}

// assign assigns words to namespace, type and reason.
func (s *textLine) assign(words []textWord) bool {
	if s.Standalone {
		if len(words) == 0 || !words[0].quoted && !bareNamespace(words[0].text) {
			return false
		}
		s.Namespace, s.Type = words[0].text, corev1.EventTypeNormal
		words = words[1:]
		// A single Warning is the type, not the reason.
		if len(words) == 2 || len(words) == 1 && words[0] == (textWord{text: corev1.EventTypeWarning}) {
			s.Type = words[0].text
			words = words[1:]
		}
	}
	switch len(words) {
	case 0:
		return true
	case 1:
		s.Reason = words[0].text
		return true
	default:
		return false
	}
}

// ending parses the text after the object, backwards from its end.
func (s *textLine) ending(rest string) bool {
	last := func(pattern *regexp.Regexp) (string, bool) {
		m := pattern.FindStringSubmatchIndex(rest)
		if m == nil {
			return "", false
		}
		found := rest[m[2]:m[3]]
		rest = rest[:m[0]]
		return found, true
	}
	if s.Standalone {
		if attributes, ok := last(textAttributes()); ok {
			for _, pair := range textPair().FindAllString(attributes, -1) {
				name, quoted, _ := strings.Cut(pair, "=")
				if w, _, ok := nextWord(quoted, ""); ok {
					s.Attributes = append(s.Attributes, event.Pair{Name: name, Value: w.text})
				}
			}
		}
		if at, ok := last(textObserved()); ok {
			s.ObservedTime, _ = time.Parse(time.RFC3339Nano, at)
			s.ObservedTime = s.ObservedTime.UTC()
		}
		if n, ok := last(textCount()); ok {
			count, _ := strconv.ParseInt(n, 10, 32)
			s.Count = int32(count)
		}
	}
	if related, ok := last(textRelated()); ok {
		if w, _, ok := nextWord(related, " "); ok {
			s.Related = w.text
		}
	}
	switch {
	case rest == "":
		return true
	case strings.HasPrefix(rest, `: "`):
		w, after, ok := nextWord(rest[2:], " ")
		if ok && after == "" {
			s.Message = w.text
			return true
		}
	case !strings.HasPrefix(rest, ": "):
		return false
	}
	s.Message = unescapeText(rest[2:])
	if s.Reason != "" && continues(s.Message) {
		s.Message = s.Reason + " " + s.Message
	}
	return true
}

var textEscape = lazyregexp.New(`\\(?:[nrt]|u[0-9a-f]{4})`)

// unescapeText is the inverse of appendEscaped. It keeps escapes that appendEscaped does
// not write.
func unescapeText(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	return textEscape().ReplaceAllStringFunc(s, func(escape string) string {
		var c string
		if err := json.Unmarshal([]byte(`"`+escape+`"`), &c); err != nil || string(appendEscaped(nil, c)) != escape {
			return escape
		}
		return c
	})
}

// parseText parses a text line. Lines of earlier versions can be ambiguous, so that
// reason and object of labels and metadata are looked for first.
func (b *builder) parseText(s string) bool {
	e := b.record.Event
	reason, kind, name := b.fields[event.FieldReason], b.fields[event.FieldKind], b.fields[event.FieldName]
	known := kind != "" && name != ""
	line, ok := parseTextLine(s)
	if known && (!ok || line.Kind != kind || line.Name != name || line.Reason != reason) {
		begin := strings.TrimSpace(reason + " " + kind + "/" + name)
		if rest, ok := strings.CutPrefix(s, begin); ok && (rest == "" || rest[0] == ':' || rest[0] == ' ') {
			e.Reason, e.InvolvedObject.Kind, e.InvolvedObject.Name = reason, kind, name
			e.Message = strings.TrimPrefix(strings.TrimPrefix(rest, ":"), " ")
			return true
		}
	}
	if !ok || !line.Standalone && reason == "" && !b.hasMetadata {
		return false
	}
	if line.Standalone {
		b.record.Time, b.record.ObservedTime = line.Time, line.ObservedTime
		e.Namespace, e.Type, b.count = line.Namespace, line.Type, line.Count
		for _, p := range line.Attributes {
			b.setAttribute(p.Name, p.Value)
		}
	}
	e.Reason, e.InvolvedObject.Kind, e.InvolvedObject.Name, e.Message = line.Reason, line.Kind, line.Name, line.Message
	e.Name = line.EventName
	if line.Related != "" {
		b.setRelated(line.Related)
	}
	return true
}
