package timeline

import (
	"fmt"
	"io"
	"strings"
	"unicode"

	"github.com/hindsight-events/hindsight/query"
)

// WriteMarkdown writes t as GitHub Flavored Markdown, for a post-mortem. Text of Events stays text:
// it becomes no markup, link, mention or picture.
func WriteMarkdown(w io.Writer, t *Timeline, style Style) error {
	p := t.page(style)
	var b strings.Builder
	fmt.Fprintf(&b, "# %s\n\n", markdownText(p.title))
	for _, s := range p.about {
		fmt.Fprintf(&b, "- %s\n", markdownText(s))
	}
	if len(p.marks) > 0 {
		t := table{heads: []string{"", "Time", "Event"}}
		b.WriteString("\n")
		markdownRow(&b, t.heads)
		markdownRule(&b, len(t.heads))
		for _, m := range p.marks {
			markdownRow(&b, []string{m.name, markdownText(m.when), markdownText(m.what) + ": " + markdownCode(m.message)})
		}
	}
	if len(p.lines) > 0 {
		b.WriteString("\n## What happened\n\n")
		markdownRow(&b, []string{"Time", "For", "Reason", "What"})
		markdownRule(&b, 4)
		for _, l := range p.lines {
			markdownRow(&b, markdownLine(l))
		}
	}
	for _, t := range []table{p.usual, p.preemptions, p.workloads, p.nodes} {
		markdownTable(&b, t)
	}
	if len(p.omissions) > 0 {
		b.WriteString("\n## Left out\n\n")
		for _, s := range p.omissions {
			fmt.Fprintf(&b, "- %s\n", markdownText(s))
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func markdownLine(l pageLine) []string {
	reason := markdownText(l.reason)
	if l.warning && reason != "" {
		reason = "**" + reason + "**"
	}
	what := markdownText(l.what)
	switch {
	case l.message == "":
	case l.routine:
		what += ": " + markdownText(l.message)
	default:
		what += ": " + markdownCode(l.message)
	}
	return []string{l.when, strings.TrimPrefix(l.span, "+"), reason, what}
}

func markdownTable(b *strings.Builder, t table) {
	if len(t.rows) == 0 && len(t.notes) == 0 {
		return
	}
	fmt.Fprintf(b, "\n## %s\n\n", t.title)
	if len(t.rows) > 0 {
		heads := make([]string, len(t.heads))
		for i, h := range t.heads {
			heads[i] = h[:1] + strings.ToLower(h[1:])
		}
		markdownRow(b, heads)
		markdownRule(b, len(heads))
		for _, row := range t.rows {
			cells := make([]string, len(row))
			for i, c := range row {
				cells[i] = markdownText(c)
			}
			markdownRow(b, cells)
		}
	}
	for _, note := range t.notes {
		fmt.Fprintf(b, "\n%s\n", markdownText(note))
	}
}

// markdownRow writes cells, which are Markdown already.
func markdownRow(b *strings.Builder, cells []string) {
	b.WriteString("| " + strings.Join(cells, " | ") + " |\n")
}

func markdownRule(b *strings.Builder, columns int) {
	b.WriteString(strings.Repeat("| --- ", columns) + "|\n")
}

// markdownText returns Markdown for a text that is usually harmless: as it is, or as code if it has
// a character that could be markup.
func markdownText(s string) string {
	s = query.Printable(s)
	for i, c := range s {
		switch {
		case c > unicode.MaxASCII, c == ' ', c >= '0' && c <= '9', c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z':
		case strings.ContainsRune(`()'",./;%=?…`, c):
		case c == '-' || c == '+':
		case c == ':' && (i+1 == len(s) || s[i+1] == ' ' || s[i+1] >= '0' && s[i+1] <= '9'):
		default:
			return markdownCode(s)
		}
	}
	if strings.Contains(strings.ToLower(s), "www.") {
		return markdownCode(s)
	}
	return s
}

// markdownCode returns a text as code. A code span cannot hold every text, above all not in a table,
// where backslash and bar have a meaning of their own; the element code can, as entities.
func markdownCode(s string) string {
	s = strings.TrimSpace(query.Printable(s))
	if s == "" {
		return ""
	}
	if !strings.ContainsAny(s, "`|\\") {
		return "`" + s + "`"
	}
	var b strings.Builder
	b.WriteString("<code>")
	for _, c := range s {
		switch {
		case c > unicode.MaxASCII, c == ' ', c >= '0' && c <= '9', c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z':
			b.WriteRune(c)
		case c == '@': // the comment keeps an address from becoming a link
			b.WriteString("&#64;<!-- -->")
		default:
			fmt.Fprintf(&b, "&#%d;", c)
		}
	}
	b.WriteString("</code>")
	return b.String()
}
