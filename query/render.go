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

	// leastMessage is the width that a message needs beside the other columns;
	// with less it stands below them.
	leastMessage = 24
	indent       = 4 // of what stands below
)

// measure returns the widths of the columns but the last.
func (t *table) measure(rows []row) []int {
	widths := make([]int, len(rows[0].cells)-1)
	for _, r := range rows {
		for i := range widths {
			widths[i] = max(widths[i], runewidth.StringWidth(r.cells[i]))
		}
	}
	if t.style.Width > 0 {
		for i := range widths { // one long name shall not push away all messages
			widths[i] = min(widths[i], t.style.Width/3)
		}
	}
	return widths
}

// write writes a row. On a terminal nothing is cut off and no line is longer
// than the terminal: a message goes on below itself, or below the row.
func (t *table) write(r row) error {
	var b strings.Builder
	at := 0 // the column that was reached
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
	case at+min(leastMessage, runewidth.StringWidth(message)) > t.style.Width:
		t.wrap(&b, message, newLine(&b), indent)
	default:
		t.wrap(&b, message, at, below)
	}
	_, err := io.WriteString(t.w, trimLines(b.String())+"\n")
	return err
}

// messageColumn is where messages begin, or what stands below where there is no
// room for them.
func (t *table) messageColumn() int {
	at := 0
	for _, w := range t.widths {
		at += w + padding
	}
	if at+leastMessage > t.style.Width {
		return indent
	}
	return at
}

func newLine(b *strings.Builder) (at int) {
	b.WriteString("\n" + strings.Repeat(" ", indent))
	return indent
}

// wrap writes text from a column on, in lines that end before the terminal does
// and begin at below. It returns the column that was reached.
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

// trimLines removes blanks at the ends of lines.
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

// paint colours headings and the type of a Warning.
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

// printable makes of any text one line that does nothing to a terminal: breaks
// and tabs are blanks, other control characters and those that turn the direction
// of writing are escaped, invalid UTF-8 is U+FFFD.
func printable(s string) string { return escape(s, false) }

// printableLines is printable, but for line breaks.
func printableLines(s string) string { return escape(s, true) }

func escape(s string, lines bool) string {
	clean := func(c rune) bool {
		return !unicode.IsControl(c) && !unicode.Is(unicode.Bidi_Control, c) && c != '\u2028' && c != '\u2029'
	}
	if utf8.ValidString(s) && strings.IndexFunc(s, func(c rune) bool { return !clean(c) }) < 0 {
		return s
	}
	var b strings.Builder
	for _, c := range s { // invalid UTF-8 is ranged over as U+FFFD
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
