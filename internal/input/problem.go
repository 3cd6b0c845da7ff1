package input

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/hindsight-events/hindsight/internal/excerpt"
)

// Problem is a part of an input that could not be read as Events: the first one of its
// kind, and the number of others.
type Problem struct {
	Line int // of the first, counted from 1
	Text string
	// WatchError is set for an error frame: the recorded watch ended there, and Events
	// may be missing.
	WatchError bool
}

func (p Problem) String() string { return fmt.Sprintf("line %d: %s", p.Line, p.Text) }

// problems collects the parts of an input that could not be read.
type problems struct {
	damaged, lines, watch problemCount
	objects               problemCount
	kinds                 map[string]int
}

// problemCount counts the problems of one kind and keeps the first.
type problemCount struct {
	count int
	line  int
	text  string
}

func (s *problemCount) add(line int, text func() string) {
	s.count++
	if s.count == 1 {
		s.line, s.text = line, text()
	}
}

// more returns " (and 2 more)" for three problems.
func (s *problemCount) more() string {
	if s.count == 1 {
		return ""
	}
	return fmt.Sprintf(" (and %d more)", s.count-1)
}

func (p *problems) addDamaged(line int, format string, args ...any) {
	p.damaged.add(line, func() string { return fmt.Sprintf(format, args...) })
}

func (p *problems) addLine(line int, text []byte) {
	p.lines.add(line, func() string { return "looks like " + guessFormat(text) + ": " + quote(text) })
}

func (p *problems) addObject(line int, kind string) {
	p.objects.add(line, func() string { return "" })
	if p.kinds == nil {
		p.kinds = map[string]int{}
	}
	if _, known := p.kinds[kind]; !known && len(p.kinds) >= 20 {
		kind = "others"
	}
	p.kinds[kind]++
}

func (p *problems) addWatchError(line int, text string) {
	p.watch.add(line, func() string { return "the API server returned an error: " + text })
}

// quote returns the beginning of a text in quotes.
func quote[T ~string | ~[]byte](text T) string { return fmt.Sprintf("%q", excerpt.Line(text, 60)) }

// list returns the problems in the order of their lines.
func (p *problems) list() []Problem {
	var all []Problem
	for _, s := range []*problemCount{&p.damaged, &p.lines, &p.watch} {
		if s.count > 0 {
			all = append(all, Problem{Line: s.line, Text: s.text + s.more(), WatchError: s == &p.watch})
		}
	}
	if p.objects.count > 0 {
		text := "not an Event, but "
		if p.objects.count > 1 {
			text = "not Events, but "
		}
		var kinds []string
		for _, kind := range slices.Sorted(maps.Keys(p.kinds)) {
			s := kind
			if n := p.kinds[kind]; n > 1 {
				s = fmt.Sprintf("%s (%d)", kind, n)
			}
			kinds = append(kinds, s)
		}
		all = append(all, Problem{Line: p.objects.line, Text: text + strings.Join(kinds, ", ")})
	}
	slices.SortStableFunc(all, func(a, b Problem) int { return cmp.Compare(a.Line, b.Line) })
	return all
}
