package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"gopkg.in/yaml.v3"

	"github.com/hindsight-events/hindsight/internal/lazyregexp"
	"github.com/hindsight-events/hindsight/sink/file"
	"github.com/hindsight-events/hindsight/sink/loki"
	"github.com/hindsight-events/hindsight/sink/stdout"
)

// Load reads and validates a configuration file. Its error has a line for each invalid key, with
// file, line and key.
func Load(path string) (*Config, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	return Parse(path, data)
}

// Parse is Load for the data of a file. name is the file's name in errors.
func Parse(name string, data []byte) (*Config, error) {
	var root yaml.Node
	if err := yaml.Unmarshal(data, &root); err != nil {
		return nil, syntaxError(name, err)
	}
	// Before decoding: the decoder has its own errors for some nulls, and ignores others.
	if err := withLines(name, &root, findNulls(&root)); err != nil {
		return nil, err
	}
	c := Default()
	dec := yaml.NewDecoder(bytes.NewReader(data))
	dec.KnownFields(true)
	if err := dec.Decode(c); err != nil && !errors.Is(err, io.EOF) {
		if invalid := checkTypes(&root); len(invalid) > 0 {
			return nil, withLines(name, &root, invalid)
		}
		return nil, syntaxError(name, err)
	}
	var second yaml.Node
	if err := dec.Decode(&second); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%s:%d: the configuration must be a single document", name, max(second.Line, 1))
	}
	c.setEmptySinks(&root)
	c.setDefaults()

	if err := withLines(name, &root, c.check()); err != nil {
		return nil, err
	}
	return c, nil
}

// withLines joins errors in the form "file:line: key: error".
func withLines(name string, root *yaml.Node, invalid []validationError) error {
	var errs []error
	for _, p := range invalid {
		line := p.line
		if line == 0 {
			line = lineOf(root, p.key)
		}
		errs = append(errs, fmt.Errorf("%s:%d: %s: %w", name, line, p.key, p.err))
	}
	return errors.Join(errs...)
}

// setEmptySinks sets the defaults of a destination without a value, such as "stdout:", which the
// decoder leaves nil.
func (c *Config) setEmptySinks(root *yaml.Node) {
	for i := range c.Sinks {
		s := &c.Sinks[i]
		named := func(kind string) bool { return findLine(root, fmt.Sprintf("sinks[%d].%s", i, kind)) != 0 }
		if s.Stdout == nil && named("stdout") {
			out := stdout.DefaultConfig()
			s.Stdout = &out
		}
		if s.File == nil && named("file") {
			out := file.DefaultConfig()
			s.File = &out
		}
		if s.Loki == nil && named("loki") {
			out := loki.DefaultConfig()
			s.Loki = &out
		}
	}
}

var (
	lineError   = lazyregexp.New(`^(?:yaml: )?line (\d+): (?s:(.*))$`)
	quotedValue = lazyregexp.New("(?s)!!\\w+(?: `.*`)?")
)

// syntaxError returns the error of a document that is not YAML, or that cannot be decoded for a
// reason that checkTypes does not find. It has no values, which may be secret.
func syntaxError(name string, err error) error {
	messages := []string{err.Error()}
	var typeError *yaml.TypeError
	if errors.As(err, &typeError) {
		messages = typeError.Errors
	}
	var errs []error
	for _, message := range messages {
		reason := " " + strings.TrimPrefix(message, "yaml: ")
		if m := lineError().FindStringSubmatch(message); m != nil {
			reason = m[1] + ": " + m[2]
		}
		errs = append(errs, fmt.Errorf("%s:%s", name, quotedValue().ReplaceAllString(reason, "a value")))
	}
	return errors.Join(errs...)
}

// location is a key of a mapping or an element of a list.
type location struct {
	path  string // such as sinks[0].match
	line  int
	key   *yaml.Node // nil for an element
	value *yaml.Node
}

// lineOf returns the line of a path, or of its nearest parent.
func lineOf(root *yaml.Node, path string) int {
	for path != "" {
		if line := findLine(root, path); line != 0 {
			return line
		}
		path = path[:max(strings.LastIndexAny(path, ".["), 0)]
	}
	return max(root.Line, 1)
}

// findLine returns the line of a path, 0 if it is absent.
func findLine(root *yaml.Node, path string) (line int) {
	walk(root, "", func(p location) {
		if p.path == path {
			line = p.line
		}
	})
	return line
}

// walk visits each key of a mapping and each element of a list.
func walk(n *yaml.Node, path string, visit func(location)) {
	switch n.Kind {
	case yaml.DocumentNode:
		for _, c := range n.Content {
			walk(c, path, visit)
		}
	case yaml.MappingNode:
		for i := 0; i+1 < len(n.Content); i += 2 {
			key, value := n.Content[i], n.Content[i+1]
			p := location{strings.TrimPrefix(path+"."+key.Value, "."), key.Line, key, value}
			visit(p)
			walk(value, p.path, visit)
		}
	case yaml.SequenceNode:
		for i, c := range n.Content {
			p := location{fmt.Sprintf("%s[%d]", path, i), c.Line, nil, c}
			visit(p)
			walk(c, p.path, visit)
		}
	}
}
