package event

import "unicode/utf8"

const hex = "0123456789abcdef"

// appendQuoted appends s in quotes, as a string of both JSON and logfmt, with
// nothing in it that could end the line or drive a terminal.
func appendQuoted(dst []byte, s string) []byte {
	dst = append(dst, '"')
	dst = appendSafe(dst, s, true)
	return append(dst, '"')
}

// appendEscaped appends s with whatever could end the line or drive a terminal
// escaped as in JSON. Quotes and backslashes stay: only within JSON can it be
// decoded.
func appendEscaped(dst []byte, s string) []byte {
	return appendSafe(dst, s, false)
}

func appendSafe(dst []byte, s string, quoted bool) []byte {
	start := 0 // of what has not been appended yet
	for i := 0; i < len(s); {
		c := s[i]
		if c < utf8.RuneSelf {
			if c >= ' ' && c != 0x7f && (!quoted || c != '"' && c != '\\') {
				i++
				continue
			}
			dst = append(dst, s[start:i]...)
			dst = appendEscape(dst, rune(c))
			i++
			start = i
			continue
		}
		r, size := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == utf8.RuneError && size == 1:
			dst = append(dst, s[start:i]...)
			dst = utf8.AppendRune(dst, utf8.RuneError)
			start = i + size
		case unsafe(r):
			dst = append(dst, s[start:i]...)
			dst = appendEscape(dst, r)
			start = i + size
		}
		i += size
	}
	return append(dst, s[start:]...)
}

func appendEscape(dst []byte, r rune) []byte {
	switch r {
	case '"', '\\':
		return append(dst, '\\', byte(r))
	case '\n':
		return append(dst, '\\', 'n')
	case '\r':
		return append(dst, '\\', 'r')
	case '\t':
		return append(dst, '\\', 't')
	}
	return append(dst, '\\', 'u', hex[r>>12&0xf], hex[r>>8&0xf], hex[r>>4&0xf], hex[r&0xf])
}

// unsafe reports whether a character beyond ASCII ends a line for some reader,
// or changes how a terminal shows what surrounds it. All are below U+10000.
func unsafe(r rune) bool {
	switch {
	case r >= 0x80 && r <= 0x9f: // C1 controls, such as CSI and NEL
		return true
	case r == 0x2028 || r == 0x2029: // line and paragraph separator
		return true
	case r == 0x061c, r == 0x200e, r == 0x200f, // the Unicode property Bidi_Control
		r >= 0x202a && r <= 0x202e, r >= 0x2066 && r <= 0x2069:
		return true
	default:
		return false
	}
}

// needsQuotes reports whether a logfmt value must be quoted. Anything beyond
// plain ASCII is.
func needsQuotes(s string) bool {
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c <= ' ', c >= 0x7f, c == '"', c == '=', c == '\\':
			return true
		}
	}
	return false
}
