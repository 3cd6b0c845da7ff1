// Package lazyregexp compiles regular expressions on first use. All packages of the program are
// initialized in each process, which uses few of their expressions: compiled at once, they took a
// third of the memory allocated by a process that waits to lead.
package lazyregexp

import (
	"regexp"
	"sync"
)

// New returns a function that returns the compiled expression. It is safe for concurrent use, and
// panics if the expression is invalid.
func New(expression string) func() *regexp.Regexp {
	return sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(expression) })
}
