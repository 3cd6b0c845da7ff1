package timeline

import (
	"bytes"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/mattn/go-runewidth"
)

// hostile messages try to be markup, to leave their cell, or to control a terminal.
var hostile = []string{
	"<script>alert(1)</script>", "<!-- comment", "</code></table>", "![x](https://evil.example/x.png)", "[x](javascript:alert(1))",
	"a | b | c", `a \| b`, `\`, "`", "```\nx\n```", "`` ` ``", "@kubernetes/owners #123 :tada:", "https://evil.example www.evil.example a@evil.example",
	"**bold** __bold__ ~~x~~ $x$", "# heading", "- [ ] task", "1. one", "&lt;b&gt;", "a\nb\r\nc\td", "\x1b[31mred\x1b[0m \x9b2J \a", "\u202eabc\u2066", "\xff\xfe", "\u2028x",
	strings.Repeat("word ", 13_000), strings.Repeat("x", 64<<10), strings.Repeat("漢", 500), "   ", "",
}

func hostileStory() *Timeline {
	s := newStory()
	for i, m := range hostile {
		s.warning("Pod", fmt.Sprintf("web-%d", i), fmt.Sprintf("Reason%d", i), m)
		s.wait(time.Second)
	}
	for _, m := range hostile { // also in names and reasons
		e := s.warning("Pod", m, m, m)
		e.InvolvedObject.Kind, e.Type = m, m
	}
	tl := s.timeline(Query{Filters: []string{"--grep <b>|`"}})
	tl.Title = "pod/<b>|x"
	return tl
}

func textOf(t *testing.T, tl *Timeline, style Style) string {
	t.Helper()
	var b bytes.Buffer
	if err := WriteText(&b, tl, style); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func markdown(t *testing.T, tl *Timeline) string {
	t.Helper()
	var b bytes.Buffer
	if err := WriteMarkdown(&b, tl, Style{}); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// Whatever Events contain, a page has printable characters only, and no line is longer than the
// terminal.
func TestTextOfHostileEvents(t *testing.T) {
	tl := hostileStory()
	for _, style := range []Style{{}, {Width: 120}, {Width: 80, AllRows: true}, {Width: 20}} {
		page := textOf(t, tl, style)
		for n, line := range strings.Split(page, "\n") {
			if strings.ContainsFunc(line, func(c rune) bool {
				return unicode.IsControl(c) || unicode.Is(unicode.Bidi_Control, c) || c == '\u2028' || c == unicode.MaxRune
			}) {
				t.Errorf("width %d: line %d: %q", style.Width, n, line)
			}
			if w := runewidth.StringWidth(line); style.Width > 0 && w > style.Width {
				t.Errorf("width %d: line %d is %d columns wide: %s", style.Width, n, w, line)
			}
		}
		if !style.AllRows && strings.Count(page, "word word") > 40 {
			t.Error("a long message is not cut")
		}
	}
}

// Colours are only used if asked for, and change nothing else.
func TestColors(t *testing.T) {
	tl := hostileStory()
	plain, colored := textOf(t, tl, Style{Width: 100}), textOf(t, tl, Style{Width: 100, Color: true})
	if strings.Contains(plain, "\x1b") || !strings.Contains(colored, yellow) {
		t.Error("colours")
	}
	if regexp.MustCompile("\x1b\\[[0-9]*m").ReplaceAllString(colored, "") != plain {
		t.Error("colours change the text")
	}
}

// In Markdown, all that Events contain is inside of code: neither markup nor HTML, nor a cell too many.
func TestMarkdownOfHostileEvents(t *testing.T) {
	page := markdown(t, hostileStory())
	code := regexp.MustCompile("`[^`\n]+`|<code>(?:[^<\n]|<!-- -->)*</code>")
	columns := 0
	for n, line := range strings.Split(page, "\n") {
		rest := code.ReplaceAllString(line, "")
		switch {
		case !strings.HasPrefix(line, "|"):
			columns = 0
		case columns == 0:
			columns = strings.Count(line, "|")
		case strings.Count(line, "|") != columns:
			t.Errorf("line %d has %d bars instead of %d: %s", n, strings.Count(line, "|"), columns, line)
		}
		rest = strings.TrimLeft(strings.ReplaceAll(rest, "**", ""), "#- ") // our own
		if i := strings.IndexAny(rest, "`<>[]\\&*_~@#$"); i >= 0 || strings.Contains(rest, "://") || strings.Contains(rest, "www.") {
			t.Errorf("line %d has markup: %s", n, line)
		}
	}
	for _, element := range regexp.MustCompile("<code>.*?</code>").FindAllString(page, -1) {
		inner := strings.ReplaceAll(strings.TrimSuffix(strings.TrimPrefix(element, "<code>"), "</code>"), "<!-- -->", "")
		if strings.ContainsAny(regexp.MustCompile(`&#[0-9]+;`).ReplaceAllString(inner, ""), "`<>[]\\&*_~@#$|:") {
			t.Errorf("not escaped: %s", element)
		}
	}
}

// A busy week stays a page: routines of many workloads and recurring Warnings are folded further, the
// most telling rows remain, and it says what was left out. With AllRows everything is there.
func TestBusyWeekIsAPage(t *testing.T) {
	s := newStory()
	for day := range 7 {
		for w := range 40 {
			name := fmt.Sprintf("app-%d", w)
			pods := s.rollout(name, fmt.Sprintf("5d4f8c7b%dc", day+2), 2)
			s.warning("Pod", pods[0], "Unhealthy", "Readiness probe failed: HTTP 503")
			if w%3 == 0 {
				s.warning("Pod", pods[1], fmt.Sprintf("Odd%d", w), fmt.Sprintf("something of its own %d", w))
			}
			s.wait(20 * time.Minute)
		}
		s.normal("Node", fmt.Sprintf("node-%d", day%4), "NodeNotReady", "Node is not ready")
		s.wait(8 * time.Hour)
	}
	tl := s.timeline(Query{Namespace: "prod"})
	if len(tl.Rows) < 200 {
		t.Fatalf("only %d rows", len(tl.Rows))
	}
	page := textOf(t, tl, Style{})
	happened, _, _ := strings.Cut(page[strings.Index(page, "WHAT HAPPENED"):], "\n\n")
	if n := strings.Count(happened, "\n"); n > PageRows {
		t.Errorf("%d rows", n)
	}
	for _, want := range []string{"NodeNotReady", "Unhealthy", "routine", "--all-rows", "80 pods of 40 workloads"} {
		if !strings.Contains(page, want) {
			t.Errorf("no %s in\n%s", want, page)
		}
	}
	all := textOf(t, tl, Style{AllRows: true})
	if n := strings.Count(all, "\n"); n < len(tl.Rows) || strings.Contains(all, "--all-rows") {
		t.Errorf("%d lines for %d rows", n, len(tl.Rows))
	}
}

// The same Events give the same page.
func TestOutputIsDeterministic(t *testing.T) {
	var first string
	for range 5 {
		tl := hostileStory()
		var b bytes.Buffer
		if err := WriteJSON(&b, tl); err != nil {
			t.Fatal(err)
		}
		if all := b.String() + textOf(t, tl, Style{}); first == "" {
			first = all
		} else if all != first {
			t.Fatal("another order")
		}
	}
}
