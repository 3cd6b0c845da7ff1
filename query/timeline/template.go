package timeline

import (
	"slices"
	"strings"
)

const (
	ellipsis = "…"

	// orOthers follows a message that stands for others.
	orOthers = "; or other messages"

	// maxTemplate is the length up to which messages are compared, in bytes.
	maxTemplate = 512
)

// template is what messages have in common: their words, "…" for those that differ.
type template struct {
	whole  string // the longest message
	words  []string
	differ bool
	used   bool
}

func (t *template) add(message string) {
	switch {
	case !t.used:
		t.whole, t.used = message, true
	case !t.differ && message == t.whole:
	default:
		t.combine(wordsOf(message))
		if len(message) > len(t.whole) {
			t.whole = message
		}
	}
}

func (t *template) merge(o *template) {
	switch {
	case !o.used:
	case !t.used:
		*t = *o
	case !o.differ:
		t.add(o.whole)
	default:
		t.combine(o.words)
		if len(o.whole) > len(t.whole) {
			t.whole = o.whole
		}
	}
}

func wordsOf(message string) []string {
	if len(message) > maxTemplate {
		message = cutText(message, maxTemplate)
	}
	return strings.Fields(message)
}

func (t *template) combine(words []string) {
	if !t.differ {
		t.words, t.differ = wordsOf(t.whole), true
	}
	if slices.Equal(t.words, words) {
		return
	}
	if len(words) == len(t.words) {
		common := slices.Clone(t.words)
		for i, w := range words {
			common[i] = commonWord(common[i], w)
		}
		t.words = common
		return
	}
	shorter := min(len(words), len(t.words))
	var start, end []string
	for i := 0; i < shorter; i++ {
		w := commonWord(t.words[i], words[i])
		if w == ellipsis {
			break
		}
		start = append(start, w)
	}
	for i := 1; i <= shorter-len(start); i++ {
		w := commonWord(t.words[len(t.words)-i], words[len(words)-i])
		if w == ellipsis {
			break
		}
		end = append(end, w)
	}
	slices.Reverse(end)
	t.words = slices.Concat(start, []string{ellipsis}, end)
}

// commonWord keeps the beginning and the end that two words share, up to a letter or digit.
func commonWord(a, b string) string {
	if a == b {
		return a
	}
	start := 0
	for start < min(len(a), len(b)) && a[start] == b[start] {
		start++
	}
	end := 0
	for end < min(len(a), len(b))-start && a[len(a)-1-end] == b[len(b)-1-end] {
		end++
	}
	for start > 0 && partOfWord(a[start-1]) {
		start--
	}
	for end > 0 && partOfWord(a[len(a)-end]) {
		end--
	}
	return a[:start] + ellipsis + a[len(a)-end:]
}

// partOfWord reports whether a byte is a letter, a digit or a part of a longer character.
func partOfWord(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= 0x80
}

// similar reports whether two messages have most of their words in common, so that one line can stand
// for both.
func similar(a, b string) bool {
	var t template
	t.add(a)
	t.add(b)
	return !t.differ || 2*t.same() >= min(len(wordsOf(a)), len(wordsOf(b)))
}

// same is the number of words that do not differ.
func (t *template) same() (n int) {
	for _, w := range t.words {
		if !strings.Contains(w, ellipsis) {
			n++
		}
	}
	return n
}

// String returns the common words, with one "…" where several in a row differ; the longest message
// if they have hardly any words in common.
func (t *template) String() string {
	if !t.differ {
		return t.whole
	}
	if t.same() < 2 {
		return strings.TrimSuffix(strings.TrimSuffix(t.whole, orOthers), ".") + orOthers
	}
	words := slices.CompactFunc(slices.Clone(t.words), func(a, b string) bool { return a == ellipsis && b == ellipsis })
	return strings.Join(words, " ")
}
