// Package excerpt shortens text from elsewhere (an API server, a destination, a user's file) for
// a log line or an error message.
package excerpt

import (
	"strings"
	"unicode/utf8"
)

// Of returns the first max bytes of s, rounded down to whole characters, and an ellipsis if there
// is more. Invalid UTF-8 is replaced by U+FFFD.
func Of[T ~string | ~[]byte](s T, max int) string {
	if len(s) <= max {
		return valid(string(s))
	}
	end := max
	for end > 0 && max-end < utf8.UTFMax && !utf8.RuneStart(s[end]) {
		end--
	}
	return valid(string(s[:end])) + "…"
}

// Line is Of on one line: without surrounding white space, and with a space in place of line
// breaks and other control characters.
func Line[T ~string | ~[]byte](s T, max int) string {
	cut := string(s[:min(len(s), 4*max)]) // bounds the work on a large s
	cut = strings.Join(strings.FieldsFunc(cut, func(r rune) bool { return r < ' ' || r == 0x7f }), " ")
	return Of(strings.TrimSpace(cut), max)
}

func valid(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }
