package query

import (
	"fmt"
	"io"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/mattn/go-runewidth"
)

const (
	padding = 3 // between columns, as kubectl has it

	// minMessage is the minimum width of the message column; if less is left, messages are
	// printed below the row.
	minMessage = 24
	indent     = 4 // of lines below the row
)

// measure returns the widths of all columns but the last.
func (t *table) measure(rows []row) []int {
	widths := make([]int, len(rows[0].cells)-1)
	for _, r := range rows {
		for i := range widths {
			widths[i] = max(widths[i], runewidth.StringWidth(r.cells[i]))
		}
	}
	if t.style.Width > 0 {
		for i := range widths { // one long name must not displace all messages
			widths[i] = min(widths[i], t.style.Width/3)
		}
	}
	return widths
}

// write writes a row. On a terminal it truncates nothing and wraps long lines: a message is
// continued in its column, or below the row.
func (t *table) write(r row) error {
	var b strings.Builder
	at := 0 // current column of the terminal
	for i, width := range t.widths {
		cell := r.cells[i]
		w := runewidth.StringWidth(cell)
		if i > 0 && t.style.Width > 0 && at+w > t.style.Width {
			at = newLine(&b)
		}
		if t.style.Width > 0 && at+w > t.style.Width {
			at = t.wrap(&b, cell, at, indent)
		} else {
			b.WriteString(t.paint(r, i, cell))
			at += w
		}
		pad := max(width-w, 0) + padding
		b.WriteString(strings.Repeat(" ", pad))
		at += pad
	}
	message := r.cells[len(r.cells)-1]
	switch below := t.messageColumn(); {
	case t.style.Width == 0:
		b.WriteString(message)
	case message == "":
	case at+min(minMessage, runewidth.StringWidth(message)) > t.style.Width:
		t.wrap(&b, message, newLine(&b), indent)
	default:
		t.wrap(&b, message, at, below)
	}
	_, err := io.WriteString(t.w, trimLines(b.String())+"\n")
	return err
}

// messageColumn returns the terminal column of messages; indent if they are printed below the row.
func (t *table) messageColumn() int {
	at := 0
	for _, w := range t.widths {
		at += w + padding
	}
	if at+minMessage > t.style.Width {
		return indent
	}
	return at
}

func newLine(b *strings.Builder) (at int) {
	b.WriteString("\n" + strings.Repeat(" ", indent))
	return indent
}

// wrap writes text from column at on, wrapped to the width of the terminal; further lines begin at
// column below. It returns the column it has reached.
func (t *table) wrap(b *strings.Builder, text string, at, below int) int {
	start := at
	for i, word := range strings.Split(text, " ") {
		w := runewidth.StringWidth(word)
		if i > 0 {
			if at+1+w <= t.style.Width {
				b.WriteByte(' ')
				at++
			} else {
				b.WriteString("\n" + strings.Repeat(" ", below))
				at, start = below, below
			}
		} else if at+w > t.style.Width && w <= t.style.Width-below && at > below {
			b.WriteString("\n" + strings.Repeat(" ", below))
			at, start = below, below
		}
		for _, c := range word {
			w := runewidth.RuneWidth(c)
			if at+w > t.style.Width && at > start {
				b.WriteString("\n" + strings.Repeat(" ", below))
				at, start = below, below
			}
			b.WriteRune(c)
			at += w
		}
	}
	return at
}

// trimLines removes trailing spaces of each line.
func trimLines(s string) string {
	lines := strings.Split(s, "\n")
	for i := range lines {
		lines[i] = strings.TrimRight(lines[i], " ")
	}
	return strings.Join(lines, "\n")
}

const (
	bold   = "\x1b[1m"
	yellow = "\x1b[33m"
	reset  = "\x1b[0m"
)

// paint highlights headings and the type of a Warning.
func (t *table) paint(r row, column int, cell string) string {
	typeColumn := 1
	if t.style.AllNamespaces {
		typeColumn = 2
	}
	switch {
	case !t.style.Color || cell == "":
		return cell
	case r.heading:
		return bold + cell + reset
	case r.warning && column == typeColumn:
		return yellow + cell + reset
	}
	return cell
}

// Printable returns text as one line that is safe for a terminal: line breaks and tabs become
// spaces, other control characters and bidirectional controls are escaped, invalid UTF-8 becomes
// U+FFFD.
func Printable(s string) string { return escape(s, false) }

// printableLines is Printable, but keeps line breaks.
func printableLines(s string) string { return escape(s, true) }

func escape(s string, lines bool) string {
	clean := func(c rune) bool {
		return !unicode.IsControl(c) && !unicode.Is(unicode.Bidi_Control, c) && c != '\u2028' && c != '\u2029'
	}
	if utf8.ValidString(s) && strings.IndexFunc(s, func(c rune) bool { return !clean(c) }) < 0 {
		return s
	}
	var b strings.Builder
	for _, c := range s { // range yields U+FFFD for invalid UTF-8
		switch {
		case clean(c), c == '\n' && lines:
			b.WriteRune(c)
		case c == '\n', c == '\t', c == '\r':
			b.WriteByte(' ')
		default:
			fmt.Fprintf(&b, `\u%04x`, c)
		}
	}
	return b.String()
}
