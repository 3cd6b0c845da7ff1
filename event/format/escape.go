package format

import "unicode/utf8"

const hex = "0123456789abcdef"

// Places where a byte needs no escaping.
const (
	inLine      = 1 << iota // outside of quotes
	inQuotes                // between quotes, in logfmt and in JSON
	inMarshaled             // between quotes, in JSON of encoding/json
	bare                    // in logfmt, without quotes
)

// safeIn has the set of these places for each byte. Bytes of non-ASCII characters have
// none, because it depends on the whole character.
var safeIn = func() (places [256]uint8) {
	for c := ' '; c < 0x7f; c++ {
		places[c] = inLine | inQuotes | inMarshaled | bare
	}
	places['"'] = inLine
	places['\\'] = inLine
	places[' '] &^= bare
	places['='] &^= bare
	for _, c := range "<>&" {
		places[c] &^= inMarshaled
	}
	return places
}()

// appendQuoted appends s as a quoted string of both JSON and logfmt, with control
// characters escaped.
func appendQuoted(dst []byte, s string) []byte {
	dst = append(dst, '"')
	dst = appendSafe(dst, s, inQuotes)
	return append(dst, '"')
}

// appendMarshaledString appends s in quotes like encoding/json, and also escapes DEL and
// bidirectional controls.
func appendMarshaledString(dst []byte, s string) []byte {
	dst = append(dst, '"')
	dst = appendSafe(dst, s, inMarshaled)
	return append(dst, '"')
}

// appendEscaped appends s with control characters escaped as in JSON. It does not escape
// quotes and backslashes, so that the result is unambiguous only within JSON.
func appendEscaped(dst []byte, s string) []byte {
	return appendSafe(dst, s, inLine)
}

// appendSafe appends s and escapes characters that are not safe in place. Like
// encoding/json, it has short escapes for two more characters in inMarshaled, and escapes
// U+FFFD there.
func appendSafe(dst []byte, s string, place uint8) []byte {
	start := 0 // of the part that is not appended yet
	for i := 0; i < len(s); {
		c := s[i]
		if safeIn[c]&place != 0 {
			i++
			continue
		}
		r, size := rune(c), 1
		if c >= utf8.RuneSelf {
			r, size = utf8.DecodeRuneInString(s[i:])
			if size > 1 && !dangerous(r) {
				i += size
				continue
			}
		}
		dst = append(dst, s[start:i]...)
		switch {
		case place == inMarshaled && r == '\b':
			dst = append(dst, `\b`...)
		case place == inMarshaled && r == '\f':
			dst = append(dst, `\f`...)
		case place != inMarshaled && r == utf8.RuneError:
			dst = utf8.AppendRune(dst, r)
		default:
			dst = appendEscape(dst, r)
		}
		i += size
		start = i
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

// dangerous reports whether a non-ASCII character is a line break or a control character.
// All of them are below U+10000.
func dangerous(r rune) bool {
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

// needsQuotes reports whether a logfmt value must be quoted, as all non-ASCII values are.
func needsQuotes(s string) bool {
	for i := range len(s) {
		if safeIn[s[i]]&bare == 0 {
			return true
		}
	}
	return false
}
