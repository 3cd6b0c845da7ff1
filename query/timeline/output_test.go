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
	happened := section(page, "WHAT HAPPENED")
	if n := strings.Count(happened, "\n"); n > PageRows {
		t.Errorf("%d rows", n)
	}
	if usual := section(page, "THROUGHOUT"); strings.Count(happened, "NodeNotReady") < 7 || strings.Contains(happened, "Unhealthy") || !strings.Contains(usual, "Unhealthy") {
		t.Errorf("what is unusual is not apart:\n%s\n%s", happened, usual)
	}
	for _, want := range []string{"NodeNotReady", "Unhealthy", "routine", "--all-rows", "pods of 40 workloads"} {
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

// section returns the lines below a heading, with single spaces.
func section(page, heading string) string {
	_, rest, _ := strings.Cut(page, heading)
	rest, _, _ = strings.Cut(rest, "\n\n")
	_, rest, _ = strings.Cut(rest, "\n")
	return regexp.MustCompile(" +").ReplaceAllString(rest+"\n", " ")
}

// What happens to several workloads at once is one line with its cause; a rollout stays a line of its
// own, and so does another message.
func TestSeveralWorkloadsAtOnce(t *testing.T) {
	s := newStory()
	var pods []string
	for _, name := range []string{"api", "web", "db"} {
		pods = append(pods, s.rollout(name, "5d4f8c7b9c", 1)[0])
	}
	s.wait(5 * time.Minute)
	for i, p := range pods {
		node := fmt.Sprintf("node-%d", i)
		s.warning("Node", node, "EvictionThresholdMet", "Attempting to reclaim memory")
		s.normal("Node", node, "NodeHasInsufficientMemory", "Node status is now: NodeHasInsufficientMemory")
		e := s.warning("Pod", p, "Evicted", "The node was low on resource: memory. Container "+p+" was using 5Gi")
		e.Source.Host = node
		s.wait(30 * time.Second)
	}
	s.warning("Pod", pods[0], "FailedScheduling", "0/3 nodes are available: 3 Insufficient cpu.")
	s.warning("Pod", pods[1], "FailedScheduling", "pod has unbound immediate PersistentVolumeClaims")
	s.wait(15 * time.Minute)
	s.normal("Node", "node-0", "NodeHasSufficientMemory", "Node status is now: NodeHasSufficientMemory")
	page := textOf(t, s.timeline(Query{Namespace: "prod"}), Style{})
	happened := section(page, "WHAT HAPPENED")
	for _, want := range []string{
		"! Evicted 3 pods of 3 workloads (api, web, db), after EvictionThresholdMet, on 3 nodes: The node was low on resource: memory. Container …-5d4f8c7b9c-bbbbb was using 5Gi\n",
		"1 pod of Deployment api, on node-0: ScalingReplicaSet, Scheduled, Started\n", "1 pod of Deployment web,", "1 pod of Deployment db,",
		"pod api-5d4f8c7b9c-bbbbb: 0/3 nodes", "pod web-5d4f8c7b9c-bbbbb: pod has unbound", " NodeHasSufficientMemory node node-0",
	} {
		if !strings.Contains(happened, want) {
			t.Errorf("no %q in\n%s", want, happened)
		}
	}
	if !strings.Contains(page, "\n3 pods evicted\n") || !strings.Contains(page, "first eviction  12:05:09  Evicted pod api-5d4f8c7b9c-bbbbb") {
		t.Errorf("the head does not tell of evictions:\n%s", page)
	}
	if w := section(page, "WORKLOADS"); !strings.Contains(w, "EVICTED") || strings.Contains(w, "PREEMPTED") {
		t.Errorf("columns:\n%s", w)
	}
	if n := section(page, "NODES"); !strings.Contains(n, "NodeHasInsufficientMemory 12:05:09, NodeHasSufficientMemory") {
		t.Errorf("nodes:\n%s", n)
	}
}

// The story of the page is in the Timeline too, with each row in one line at most.
func TestStoryIsInTheTimeline(t *testing.T) {
	s := newStory()
	for _, name := range []string{"api", "web"} {
		pod := s.rollout(name, "5d4f8c7b9c", 1)[0]
		s.warning("Pod", pod, "Unhealthy", "Readiness probe failed")
	}
	tl := s.timeline(Query{Namespace: "prod"})
	seen := map[int]bool{}
	joined := 0
	for _, l := range tl.Story {
		joined = max(joined, len(l.Rows))
		for _, i := range l.Rows {
			if seen[i] {
				t.Errorf("row %d is in two lines", i)
			}
			seen[i] = true
		}
		if !strings.Contains(textOf(t, tl, Style{}), l.What) {
			t.Errorf("%q is not on the page", l.What)
		}
	}
	if len(seen) != len(tl.Rows) || joined != 2 || len(tl.Story) != 3 {
		t.Errorf("%d of %d rows in %+v", len(seen), len(tl.Rows), tl.Story)
	}
}

// What recurs throughout is found in a range that begins before the first stored Event, too.
func TestThroughoutOfWhatIsStored(t *testing.T) {
	s := newStory()
	s.at = s.at.Add(24 * time.Hour)
	for minute := range 48 * 60 {
		if minute%10 == 0 {
			s.warning("Pod", fmt.Sprintf("web-%d", minute%50), "Unhealthy", "Readiness probe failed")
		}
		s.wait(time.Minute)
	}
	page := textOf(t, s.timeline(Query{Namespace: "prod", From: storyBegin, To: storyBegin.Add(80 * time.Hour)}), Style{})
	if got := section(page, "THROUGHOUT"); !strings.Contains(got, "every 10m Unhealthy") {
		t.Errorf("got\n%s", page)
	}
}

// What recurs throughout the range is apart from what happened, but a peak of it is not; what began
// before the range says so.
func TestThroughout(t *testing.T) {
	s := newStory()
	from := storyBegin.Add(time.Hour)
	for minute := range 400 {
		s.warning("Pod", fmt.Sprintf("web-%d", minute%5), "Unhealthy", "Readiness probe failed")
		if minute == 100 {
			s.warning("Pod", "db-0", "BackOff", "Back-off restarting failed container")
			s.repeated(90, storyBegin)
		}
		if minute == 200 {
			for i := range 60 {
				s.warning("Pod", fmt.Sprintf("api-%d", i), "Unhealthy", "Readiness probe failed")
			}
		}
		s.wait(time.Minute)
	}
	page := textOf(t, s.timeline(Query{Namespace: "prod", From: from, To: storyBegin.Add(7 * time.Hour)}), Style{})
	if got, want := section(page, "THROUGHOUT"), "every 60s Unhealthy 5 pods of workload web: Readiness probe failed\n"; !strings.HasSuffix(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	happened := section(page, "WHAT HAPPENED")
	for _, want := range []string{"15:20:00 ! Unhealthy 60 pods of workload api", "earlier +1h40m ! BackOff pod db-0, x90 since 12:00:00: Back-off"} {
		if !strings.Contains(happened, want) {
			t.Errorf("no %q in\n%s", want, happened)
		}
	}
}

// Preemptions of many workloads by one are a row of the table.
func TestManyVictimsOfOnePreemptor(t *testing.T) {
	s := newStory()
	by := s.rollout("trainer", "6d4f8c7b9c", 1)[0]
	for i := range 20 {
		pod := s.rollout(fmt.Sprintf("app-%d", i), "5d4f8c7b9c", 1)[0]
		s.normal("Pod", pod, "Preempted", fmt.Sprintf("Preempted by pod %s on node node-%d", storyUID(by), i%4))
	}
	tl := s.timeline(Query{Namespace: "prod"})
	if got, want := section(textOf(t, tl, Style{}), "WHO PREEMPTED WHOM"), "20 20 workloads in 1 namespace Deployment trainer 4 nodes\n"; strings.Count(got, "\n") != 2 || !strings.HasSuffix(got, want) {
		t.Errorf("got %q, want one row %q", got, want)
	}
	if got := section(textOf(t, tl, Style{AllRows: true}), "WHO PREEMPTED WHOM"); strings.Count(got, "\n") != 21 {
		t.Errorf("with all rows:\n%s", got)
	}
}
