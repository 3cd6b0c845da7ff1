package input

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Problem is a part of an input that could not be read as Events: the first one of
// its sort, and the number of others.
type Problem struct {
	Line int // of the first, counted from 1
	Text string
	// WatchError is set for an error that the API server sent: a watch that was
	// recorded ended there, and Events may be missing.
	WatchError bool
}

func (p Problem) String() string { return fmt.Sprintf("line %d: %s", p.Line, p.Text) }

// problems collects the parts of an input that could not be read.
type problems struct {
	damaged, lines, watch sort
	objects               sort
	kinds                 map[string]int
}

// sort counts the problems of one sort and keeps the first.
type sort struct {
	count int
	line  int
	text  string
}

func (s *sort) add(line int, text func() string) {
	s.count++
	if s.count == 1 {
		s.line, s.text = line, text()
	}
}

// more returns the number of problems beyond the first as a note, or nothing.
func (s *sort) more() string {
	if s.count == 1 {
		return ""
	}
	return fmt.Sprintf(" (and %d more)", s.count-1)
}

func (p *problems) addDamaged(line int, format string, args ...any) {
	p.damaged.add(line, func() string { return fmt.Sprintf(format, args...) })
}

func (p *problems) addLine(line int, text []byte) {
	p.lines.add(line, func() string { return "looks like " + looksLike(text) + ": " + excerpt(text) })
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
	p.watch.add(line, func() string { return "the API server answered with an error: " + text })
}

// list returns the problems in the order of their lines.
func (p *problems) list() []Problem {
	var all []Problem
	for _, s := range []*sort{&p.damaged, &p.lines, &p.watch} {
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
