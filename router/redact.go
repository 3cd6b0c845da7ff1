package router

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"

	"gopkg.in/yaml.v3"
	corev1 "k8s.io/api/core/v1"

	"github.com/hindsight-events/hindsight/internal/lazyregexp"
)

// Redaction replaces text that must not leave the cluster.
type Redaction struct {
	match *regexp.Regexp
	with  string
}

// NewRedaction returns a redaction that replaces each match of a regular expression (Go
// syntax). In with, $1, ${1} and ${name} are groups, and $$ is a dollar sign. An expression
// that matches the empty string and a reference to an unknown group, which would be
// empty, are errors.
func NewRedaction(match, with string) (Redaction, error) {
	if match == "" {
		return Redaction{}, errors.New("redaction has no match")
	}
	re, err := regexp.Compile(match)
	if err != nil {
		return Redaction{}, fmt.Errorf("redaction %q: %w", match, err)
	}
	if re.MatchString("") {
		return Redaction{}, fmt.Errorf("redaction %q: it matches the empty string", match)
	}
	for _, m := range reference().FindAllStringSubmatch(with, -1) {
		if name := m[1] + m[2]; name != "" && !hasGroup(re, name) {
			return Redaction{}, fmt.Errorf("redaction %q: %q refers to the unknown group %q; write ${1} before other text, and $$ for a dollar sign", match, m[0], name)
		}
	}
	return Redaction{match: re, with: with}, nil
}

// reference matches the references that Regexp.Expand replaces, and $$.
var reference = lazyregexp.New(`\$(?:\$|\{([\p{L}\p{Nd}_]+)\}|([\p{L}\p{Nd}_]+))`)

func hasGroup(re *regexp.Regexp, name string) bool {
	if n, err := strconv.Atoi(name); err == nil {
		return n <= re.NumSubexp()
	}
	return slices.Contains(re.SubexpNames(), name)
}

// replace replaces all matches in s and reports whether there were any.
func (r Redaction) replace(s string) (string, bool) {
	if !r.match.MatchString(s) {
		return s, false
	}
	return r.match.ReplaceAllString(s, r.with), true
}

// redactionYAML is the YAML form of a Redaction.
type redactionYAML struct {
	Match string `yaml:"match"`
	With  string `yaml:"with"`
}

// MarshalYAML returns the YAML form.
func (r Redaction) MarshalYAML() (any, error) {
	return redactionYAML{r.match.String(), r.with}, nil
}

// Redactions are applied in their order.
type Redactions []Redaction

// UnmarshalYAML compiles a list of redactions. Its error lists each invalid one with its
// line.
func (rs *Redactions) UnmarshalYAML(unmarshal func(any) error) error {
	var list []*redactionYAML // pointers, because the decoder omits values that are null
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
		return &yaml.TypeError{Errors: problems} // the decoder collects them
	}
	*rs = compiled
	return nil
}

// apply redacts the message and the values of annotations, and reports whether it replaced
// anything.
//
// It removes kubectl's last-applied-configuration, which can contain the message in JSON
// quotes, where a pattern for the message may not match.
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
