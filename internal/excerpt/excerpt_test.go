package excerpt

import (
	"strings"
	"testing"
)

func TestOf(t *testing.T) {
	for name, test := range map[string]struct{ text, want string }{
		"empty":                        {"", ""},
		"as long as allowed":           {"12345678", "12345678"},
		"longer":                       {"123456789", "12345678…"},
		"a character across the end":   {"1234567é", "1234567…"},
		"a character up to the end":    {"123456é9", "123456é…"},
		"invalid":                      {"a\xffb", "a\uFFFDb"},
		"invalid bytes at the end":     {"1234567\xff9", "1234567\uFFFD…"},
		"nothing but continuations":    {strings.Repeat("\x80", 9), "\uFFFD…"},
		"line breaks stay as they are": {"a\n b ", "a\n b "},
	} {
		t.Run(name, func(t *testing.T) {
			if got := Of(test.text, 8); got != test.want {
				t.Errorf("of a string: got %q, want %q", got, test.want)
			}
			if got := Of([]byte(test.text), 8); got != test.want {
				t.Errorf("of bytes: got %q, want %q", got, test.want)
			}
		})
	}
}

func TestLine(t *testing.T) {
	for text, want := range map[string]string{
		"\n<p>\r\n\t502\x7f": "<p> 502",
		"a  b":               "a  b",
		" 123456789":         "12345678…",
		"12345678\n":         "12345678",
	} {
		if got := Line(text, 8); got != want {
			t.Errorf("%q: got %q, want %q", text, got, want)
		}
	}
}
