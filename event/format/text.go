package format

import (
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/hindsight-events/hindsight/event"
)

// eventKind is the kind in the line of an Event that names no object. The kind of an
// object of kind Event is quoted.
const eventKind = "Event"

// appendText writes a sentence: "Preempted Pod/ingester-x: by team-a/querier-y on node n".
// parseTextLine reads it. The grammar is
//
//	[time namespace [type]] [reason] kind/name[: message] [(related)] [(xCount)] [(observed at …)] [{attribute="value", …}]
//
// without the type Normal. Words with unusual characters, ambiguous words, and messages
// that parseTextLine would not read back unchanged are written as JSON strings.
func appendText(dst []byte, r *event.Record, standalone bool) []byte {
	e := r.Event
	start := len(dst)
	space := func() {
		if len(dst) > start {
			dst = append(dst, ' ')
		}
	}
	word := func(s string, bare bool) {
		space()
		dst = appendWord(dst, s, bare)
	}
	normal := e.Type == corev1.EventTypeNormal
	if standalone {
		if !r.Time.IsZero() {
			dst = appendTime(dst, r.Time)
		}
		word(e.Namespace, bareNamespace(e.Namespace))
		if !normal {
			word(e.Type, bareWord(e.Type))
		}
	}
	usual := !standalone || normal || e.Type == corev1.EventTypeWarning
	if e.Reason != "" || !usual {
		word(e.Reason, bareWord(e.Reason) && !(standalone && normal && e.Reason == corev1.EventTypeWarning))
	}
	space()
	dst = appendTextObject(dst, e)
	if e.Message != "" {
		dst = append(dst, ':', ' ')
		if m, bare := textMessage(e.Message, e.Reason); bare {
			dst = appendEscaped(dst, m)
		} else {
			dst = appendQuoted(dst, m)
		}
	}
	if e.Related != nil {
		if related := objectName(e.Related); related != "" {
			space()
			dst = append(dst, '(')
			dst = appendWord(dst, related, bareRelated(related))
			dst = append(dst, ')')
		}
	}
	if standalone {
		if n := r.Count(); n > 1 {
			dst = append(dst, " (x"...)
			dst = strconv.AppendInt(dst, int64(n), 10)
			dst = append(dst, ')')
		}
		if !r.ObservedTime.IsZero() {
			dst = append(dst, " (observed at "+r.Value(event.FieldObservedTime)+", "+tooFar+")"...)
		}
		separator := " {"
		for _, p := range r.Attributes {
			dst = append(dst, separator...)
			dst = append(dst, p.Name...)
			dst = append(dst, '=')
			dst = appendQuoted(dst, p.Value)
			separator = ", "
		}
		if len(r.Attributes) > 0 {
			dst = append(dst, '}')
		}
	}
	return dst
}

// appendTextObject appends kind/name of the object, or Event/ and the Event's own name if
// it names no object.
func appendTextObject(dst []byte, e *corev1.Event) []byte {
	kind, name := e.InvolvedObject.Kind, e.InvolvedObject.Name
	if kind == "" && name == "" {
		dst = append(dst, eventKind...)
		name = e.Name
	} else {
		dst = appendWord(dst, kind, bareKind(kind) && kind != eventKind)
	}
	dst = append(dst, '/')
	return appendWord(dst, name, bareName(name))
}

func appendWord(dst []byte, s string, bare bool) []byte {
	if bare {
		return append(dst, s...)
	}
	return appendQuoted(dst, s)
}

// bareWord reports whether a type or a reason needs no quotes.
func bareWord(s string) bool { return s != "" && strings.Trim(s, wordCharacters) == "" }

const (
	lowerCharacters = "abcdefghijklmnopqrstuvwxyz0123456789.-"
	wordCharacters  = lowerCharacters + "ABCDEFGHIJKLMNOPQRSTUVWXYZ_"
)

// bareNamespace excludes log levels, which other programs write after the time.
func bareNamespace(s string) bool {
	return s != "" && strings.Trim(s, lowerCharacters) == "" && !logLevels[s]
}

var logLevels = map[string]bool{
	"trace": true, "debug": true, "info": true, "notice": true, "warn": true, "warning": true,
	"error": true, "critical": true, "fatal": true, "panic": true,
}

func bareKind(s string) bool { return bareWord(s) && s[0] >= 'A' && s[0] <= 'Z' }

// bareName allows the characters of names of RBAC objects and nodes, such as system:node.
func bareName(s string) bool { return printableASCII(s) && s[len(s)-1] != ':' }

func bareRelated(s string) bool {
	return printableASCII(s) && strings.Contains(s, "/") && !strings.ContainsAny(s, "()")
}

// printableASCII excludes spaces, quotes and backslashes.
func printableASCII(s string) bool {
	for i := range len(s) {
		if c := s[i]; c <= ' ' || c >= 0x7f || c == '"' || c == '\\' {
			return false
		}
	}
	return s != ""
}

// bareMessage reports whether the message needs no quotes: it does not look like a JSON
// string, and does not end like a related object, a count, an observed time or attributes.
func bareMessage(m string) bool {
	if m[0] == '"' || m[0] == ' ' || m[len(m)-1] == ' ' || strings.Contains(m, `\`) {
		return false
	}
	if m[len(m)-1] == '}' {
		return !textAttributes().MatchString(m)
	}
	return m[len(m)-1] != ')' ||
		!textCount().MatchString(m) && !textObserved().MatchString(m) && !textRelated().MatchString(m)
}

// continuations are the words that follow a reason at the start of a message, as in
// "Preempted by …".
var continuations = map[string]bool{
	"after": true, "at": true, "because": true, "by": true, "due": true, "for": true,
	"from": true, "in": true, "on": true, "to": true, "with": true,
}

// continues reports whether a message continues a sentence that begins with the reason.
func continues(message string) bool {
	word, _, _ := strings.Cut(message, " ")
	return continuations[word]
}

// textMessage returns the part of the message to write after the object, and whether it
// needs no quotes. It omits the reason at the start of a sentence; parseTextLine restores
// it.
func textMessage(message, reason string) (text string, bare bool) {
	if rest, ok := strings.CutPrefix(message, reason+" "); ok && reason != "" && continues(rest) && bareMessage(rest) {
		return rest, true
	}
	return message, bareMessage(message) && (reason == "" || !continues(message))
}
