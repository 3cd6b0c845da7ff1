package timeline

import (
	"bytes"
	"io"
	"strings"

	"github.com/mattn/go-runewidth"

	"github.com/hindsight-events/hindsight/query"
)

// ANSI codes of a terminal.
const (
	bold   = "\x1b[1m"
	dim    = "\x1b[2m"
	yellow = "\x1b[33m"
	red    = "\x1b[31m"
	reset  = "\x1b[0m"
)

// columnGap separates columns.
const columnGap = 2

// WriteText writes t as a page for a terminal.
func WriteText(w io.Writer, t *Timeline, style Style) error {
	p := t.page(style)
	x := textWriter{style: style}
	x.text(bold, p.title)
	for _, s := range p.about {
		x.text("", s)
	}
	x.marks(p.marks)
	if len(p.lines) > 0 {
		x.heading("What happened")
		x.lines(p.lines)
	}
	for _, t := range []table{p.usual, p.preemptions, p.workloads, p.nodes} {
		x.table(t)
	}
	if len(p.omissions) > 0 {
		x.heading("Left out")
		for _, s := range p.omissions {
			x.cell("", "  -", 4)
			x.text("", s)
		}
	}
	_, err := w.Write(x.b)
	return err
}

// textWriter writes lines of cells. Nothing is wider than the terminal: cells that do not fit continue
// on the next line.
type textWriter struct {
	style Style
	b     []byte
	at    int // column
}

const (
	// indentation of continued lines; text continues below its begin, up to maxHang.
	indentation = 4
	maxHang     = 44

	// minText is the least width in which the text of a line is written; if less is left, it begins
	// on the next line.
	minText = 24
)

func (x *textWriter) heading(s string) {
	x.end()
	x.text(bold, strings.ToUpper(s))
}

// end ends a line.
func (x *textWriter) end() {
	x.b = append(bytes.TrimRight(x.b, " "), '\n')
	x.at = 0
}

// next continues on the next line.
func (x *textWriter) next(indent int) {
	x.end()
	x.spaces(indent)
}

func (x *textWriter) spaces(n int) {
	for range n {
		x.b = append(x.b, ' ')
	}
	x.at += n
}

// cell writes a cell and fills it to its width.
func (x *textWriter) cell(code, s string, width int) {
	if width == 0 {
		return
	}
	s = query.Printable(s)
	w := runewidth.StringWidth(s)
	if x.style.Width > 0 && x.at > indentation && x.at+w > x.style.Width {
		x.next(x.indentation())
	}
	x.wrapped(code, s, x.indentation())
	gap := max(width-w, columnGap)
	if x.style.Width == 0 || x.at+gap <= x.style.Width {
		x.spaces(gap)
	} else {
		x.next(x.indentation())
	}
}

// text writes the last cell of a line and ends it.
func (x *textWriter) text(code, s string) {
	hang := min(x.at, maxHang)
	if x.style.Width > 0 && x.at > indentation && x.style.Width-x.at < min(minText, runewidth.StringWidth(s)) {
		hang = x.indentation()
		x.next(hang)
	}
	if x.style.Width > 0 && x.style.Width-hang < minText {
		hang = x.indentation()
	}
	x.wrapped(code, query.Printable(s), hang)
	x.end()
}

func (x *textWriter) indentation() int {
	if x.style.Width > 0 {
		return min(indentation, x.style.Width/4)
	}
	return indentation
}

func (x *textWriter) wrapped(code, s string, indent int) {
	for i, line := range wrapText(s, x.style.Width, x.at, indent) {
		if i > 0 {
			x.next(indent)
		}
		if x.style.Color && code != "" && line != "" {
			x.b = append(x.b, code+line+reset...)
		} else {
			x.b = append(x.b, line...)
		}
		x.at += runewidth.StringWidth(line)
	}
}

func (x *textWriter) marks(marks []pageMark) {
	if len(marks) == 0 {
		return
	}
	x.end()
	names, times := make([]string, len(marks)), make([]string, len(marks))
	for i, m := range marks {
		names[i], times[i] = m.name, m.when
	}
	for _, m := range marks {
		x.cell("", m.name, widest(names))
		x.cell("", m.when, widest(times))
		x.text("", m.what+": "+m.message)
	}
}

func (x *textWriter) lines(lines []pageLine) {
	times, spans, reasons := make([]string, len(lines)), make([]string, len(lines)), make([]string, len(lines))
	for i, l := range lines {
		times[i], spans[i], reasons[i] = l.when, l.span, reasonOf(l)
	}
	const reasonWidth = 28 // longer ones move their text only
	for i, l := range lines {
		code, textCode := "", ""
		switch {
		case l.gap:
			code = red
		case l.warning:
			code = yellow
		case l.routine:
			code, textCode = dim, dim
		}
		x.cell("", l.when, widest(times))
		x.cell("", l.span, max(widest(spans), columnGap))
		x.cell(code, reasons[i], min(widest(reasons), reasonWidth))
		text := l.what
		if l.message != "" {
			text += ": " + l.message
		}
		x.text(textCode, text)
	}
}

// reasonOf marks trouble, so that it can be seen without colours too.
func reasonOf(l pageLine) string {
	if l.warning {
		return "! " + query.Printable(l.reason)
	}
	return "  " + query.Printable(l.reason)
}

func (x *textWriter) table(t table) {
	if len(t.rows) == 0 && len(t.notes) == 0 {
		return
	}
	x.heading(t.title)
	widths := make([]int, len(t.heads))
	for i := range t.heads {
		column := []string{t.heads[i]}
		for _, row := range t.rows {
			column = append(column, query.Printable(row[i]))
		}
		widths[i] = widest(column)
		if x.style.Width > 0 { // one long name must not displace the others
			widths[i] = min(widths[i], x.style.Width*2/5)
		}
	}
	write := func(code string, cells []string) {
		last := len(cells) - 1
		for i, c := range cells[:last] {
			x.cell(code, c, widths[i])
		}
		x.text(code, cells[last])
	}
	if len(t.rows) > 0 {
		write(bold, t.heads)
	}
	for _, row := range t.rows {
		write("", row)
	}
	for _, note := range t.notes {
		x.text("", note)
	}
}

// widest is the width of a column, with the gap behind it; 0 if it is empty.
func widest(cells []string) int {
	most := 0
	for _, c := range cells {
		most = max(most, runewidth.StringWidth(c))
	}
	if most == 0 {
		return 0
	}
	return most + columnGap
}

// wrapText breaks a text that begins in a column into lines; further lines begin at indent.
func wrapText(s string, width, at, indent int) []string {
	if width <= 0 {
		return []string{s}
	}
	var lines []string
	var line strings.Builder
	used := at
	flush := func() {
		lines = append(lines, strings.TrimRight(line.String(), " "))
		line.Reset()
		used = indent
	}
	for i, word := range strings.Split(s, " ") {
		w := runewidth.StringWidth(word)
		if i > 0 && line.Len() > 0 {
			if used+1+w > width && w <= width-indent {
				flush()
			} else {
				line.WriteByte(' ')
				used++
			}
		} else if i == 0 && used+w > width && w <= width-indent && used > indent {
			flush()
		}
		for _, c := range word {
			cw := runewidth.RuneWidth(c)
			if used+cw > width && line.Len() > 0 {
				flush()
			}
			line.WriteRune(c)
			used += cw
		}
	}
	flush()
	return lines
}
