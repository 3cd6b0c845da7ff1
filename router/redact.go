package router

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"

	"gopkg.in/yaml.v3"
	corev1 "k8s.io/api/core/v1"
)

// Redaction replaces what must not leave the cluster.
type Redaction struct {
	match *regexp.Regexp
	with  string
}

// NewRedaction replaces each match of a regular expression (Go's syntax) by
// with, in which $1, ${1} and ${name} stand for what a group matched, and $$ for
// a dollar sign. It refuses an expression that matches the empty text, which is
// everywhere, and a reference to a group that does not exist, which would
// silently be empty.
func NewRedaction(match, with string) (Redaction, error) {
	if match == "" {
		return Redaction{}, errors.New("redaction has no match")
	}
	re, err := regexp.Compile(match)
	if err != nil {
		return Redaction{}, fmt.Errorf("redaction %q: %w", match, err)
	}
	if re.MatchString("") {
		return Redaction{}, fmt.Errorf("redaction %q: it matches the empty text, which is everywhere", match)
	}
	for _, m := range reference.FindAllStringSubmatch(with, -1) {
		if name := m[1] + m[2]; name != "" && !hasGroup(re, name) {
			return Redaction{}, fmt.Errorf("redaction %q: %q refers to the group %q, which it does not have; write ${1} where text follows the number, $$ for a dollar sign", match, m[0], name)
		}
	}
	return Redaction{match: re, with: with}, nil
}

// reference finds what Regexp.Expand replaces, and $$.
var reference = regexp.MustCompile(`\$(?:\$|\{([\p{L}\p{Nd}_]+)\}|([\p{L}\p{Nd}_]+))`)

func hasGroup(re *regexp.Regexp, name string) bool {
	if n, err := strconv.Atoi(name); err == nil {
		return n <= re.NumSubexp()
	}
	return slices.Contains(re.SubexpNames(), name)
}

// replace returns s with every match replaced, and whether there was one.
func (r Redaction) replace(s string) (string, bool) {
	if !r.match.MatchString(s) {
		return s, false
	}
	return r.match.ReplaceAllString(s, r.with), true
}

// redactionYAML is a Redaction as it is written.
type redactionYAML struct {
	Match string `yaml:"match"`
	With  string `yaml:"with"`
}

// MarshalYAML returns what was parsed.
func (r Redaction) MarshalYAML() (any, error) {
	return redactionYAML{r.match.String(), r.with}, nil
}

// Redactions are applied one after the other.
type Redactions []Redaction

// UnmarshalYAML compiles a list of redactions. Of those that are wrong, each is
// named with its line.
func (rs *Redactions) UnmarshalYAML(unmarshal func(any) error) error {
	var list []*redactionYAML // of values, the decoder would leave out those that are null
	if err := unmarshal(&list); err != nil {
		return err
	}
	var nodes []yaml.Node
	if err := unmarshal(&nodes); err != nil {
		return err
	}
	var (
		compiled Redactions
		problems []string
	)
	for i, y := range list {
		if y == nil {
			y = &redactionYAML{}
		}
		r, err := NewRedaction(y.Match, y.With)
		if err != nil {
			problems = append(problems, fmt.Sprintf("line %d: %s", nodes[i].Line, err))
			continue
		}
		compiled = append(compiled, r)
	}
	if len(problems) > 0 {
		return &yaml.TypeError{Errors: problems} // which the decoder collects
	}
	*rs = compiled
	return nil
}

// apply changes the Event and reports whether something was replaced in it.
//
// The message is what has to be redacted, but a line may hold the whole Event,
// and annotations are where else reporters put text: their values are treated
// the same. kubectl's copy of an object that was applied is removed. It holds
// the message once more, perhaps an earlier one, and quoted as JSON, in which a
// pattern written for the message need not match.
func (rs Redactions) apply(e *corev1.Event) (replaced bool) {
	if len(rs) == 0 {
		return false
	}
	delete(e.Annotations, corev1.LastAppliedConfigAnnotation)
	for _, r := range rs {
		if s, ok := r.replace(e.Message); ok {
			e.Message = s
			replaced = true
		}
		for key, value := range e.Annotations {
			if s, ok := r.replace(value); ok {
				e.Annotations[key] = s
				replaced = true
			}
		}
	}
	return replaced
}
