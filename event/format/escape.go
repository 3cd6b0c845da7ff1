package format

import "unicode/utf8"

const hex = "0123456789abcdef"

// Where a byte may stand as it is.
const (
	inLine      = 1 << iota // on a line
	inQuotes                // between quotes, in logfmt and in JSON
	inMarshaled             // between quotes, in JSON as encoding/json writes it
	bare                    // in logfmt without quotes
)

// asIs is a set of these for each byte, so that a value is looked at once. The
// bytes of a character beyond ASCII have none: it takes all of them to tell.
var asIs = func() (places [256]uint8) {
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

// appendQuoted appends s in quotes, as a string of both JSON and logfmt, with
// nothing in it that could end the line or drive a terminal.
func appendQuoted(dst []byte, s string) []byte {
	dst = append(dst, '"')
	dst = appendSafe(dst, s, inQuotes)
	return append(dst, '"')
}

// appendMarshaledString appends s in quotes as encoding/json does, and escapes
// what that leaves as it is but could drive a terminal.
func appendMarshaledString(dst []byte, s string) []byte {
	dst = append(dst, '"')
	dst = appendSafe(dst, s, inMarshaled)
	return append(dst, '"')
}

// appendEscaped appends s with whatever could end the line or drive a terminal
// escaped as in JSON. Quotes and backslashes stay: only within JSON can it be
// decoded.
func appendEscaped(dst []byte, s string) []byte {
	return appendSafe(dst, s, inLine)
}

// appendSafe escapes what may not stand in place. encoding/json has names for two
// characters more, and escapes what stands for invalid UTF-8 as well.
func appendSafe(dst []byte, s string, place uint8) []byte {
	start := 0 // of what has not been appended yet
	for i := 0; i < len(s); {
		c := s[i]
		if asIs[c]&place != 0 {
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

// dangerous reports whether a character beyond ASCII ends a line for some reader,
// or changes how a terminal shows what surrounds it. All are below U+10000.
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

// needsQuotes reports whether a logfmt value must be quoted. Anything beyond
// plain ASCII is.
func needsQuotes(s string) bool {
	for i := range len(s) {
		if asIs[s[i]]&bare == 0 {
			return true
		}
	}
	return false
}
