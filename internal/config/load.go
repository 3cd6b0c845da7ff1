package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"strconv"
	"strings"

	"gopkg.in/yaml.v3"

	"github.com/hindsight-events/hindsight/sink/file"
	"github.com/hindsight-events/hindsight/sink/loki"
	"github.com/hindsight-events/hindsight/sink/stdout"
)

// Load reads and checks a configuration file. An error names file, line and key
// of everything that is wrong, a line each.
func Load(path string) (*Config, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	return Parse(path, data)
}

// Parse is Load for data that has been read; name stands for the file in
// errors.
func Parse(name string, data []byte) (*Config, error) {
	var root yaml.Node
	if err := yaml.Unmarshal(data, &root); err != nil {
		return nil, locate(name, &root, err)
	}
	// First of all: the decoder has errors of its own for some nulls, and skips others.
	if err := located(name, &root, nulls(&root)); err != nil {
		return nil, err
	}
	c := Default()
	dec := yaml.NewDecoder(bytes.NewReader(data))
	dec.KnownFields(true)
	if err := dec.Decode(c); err != nil && !errors.Is(err, io.EOF) {
		return nil, locate(name, &root, err)
	}
	var second yaml.Node
	if err := dec.Decode(&second); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%s:%d: a second document: the configuration is a single one", name, max(second.Line, 1))
	}
	c.fillEmpty(&root)
	c.fill()

	if err := located(name, &root, c.check()); err != nil {
		return nil, err
	}
	return c, nil
}

// located returns problems as errors of the form "file:line: key: what"; nil if
// there are none.
func located(name string, root *yaml.Node, problems []problem) error {
	var errs []error
	for _, p := range problems {
		line := p.line
		if line == 0 {
			line = lineOf(root, p.key)
		}
		errs = append(errs, fmt.Errorf("%s:%d: %s: %w", name, line, p.key, p.err))
	}
	return errors.Join(errs...)
}

// fillEmpty gives its defaults to a destination that is named without a value,
// as in a bare "stdout:". The decoder leaves it nil.
func (c *Config) fillEmpty(root *yaml.Node) {
	for i := range c.Sinks {
		s := &c.Sinks[i]
		named := func(kind string) bool { return find(root, fmt.Sprintf("sinks[%d].%s", i, kind)) != 0 }
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
	lineError    = regexp.MustCompile(`^(?:yaml: )?line (\d+): (?s:(.*))$`)
	unknownField = regexp.MustCompile(`^field (\S+) not found in type \S+$`)
	wrongType    = regexp.MustCompile("^cannot unmarshal !!(\\w+)(?: `(.*)`)? into (\\S+)$")
)

// locate turns the decoder's error into lines of the form "file:line: key:
// what".
func locate(name string, root *yaml.Node, err error) error {
	messages := []string{err.Error()}
	var typeError *yaml.TypeError
	if errors.As(err, &typeError) {
		messages = typeError.Errors
	}
	var errs []error
	for _, message := range messages {
		line, what := 0, strings.TrimPrefix(message, "yaml: ")
		if m := lineError.FindStringSubmatch(message); m != nil {
			line, _ = strconv.Atoi(m[1])
			what = m[2]
		}
		at := keyAt(root, line, what)
		if unknownField.MatchString(what) {
			what = "unknown key"
		} else if t := wrongType.FindStringSubmatch(what); t != nil {
			what = fmt.Sprintf("%s does not fit here, want %s", describe(t[1], t[2]), wanted(t[3]))
		}
		if at.path != "" {
			what = at.path + ": " + what
		}
		if at.line != 0 {
			what = fmt.Sprintf("%d: %s", at.line, what)
		} else {
			what = " " + what
		}
		errs = append(errs, fmt.Errorf("%s:%s", name, what))
	}
	return errors.Join(errs...)
}

// describe names a YAML value of a tag that did not fit.
func describe(tag, value string) string {
	switch tag {
	case "map":
		return "a mapping"
	case "seq":
		return "a list"
	}
	return strconv.Quote(value)
}

// wanted names the Go type that the decoder wanted.
func wanted(goType string) string {
	switch {
	case strings.HasPrefix(goType, "[]"):
		return "a list"
	case strings.HasPrefix(goType, "int"), strings.HasPrefix(goType, "uint"):
		return "a whole number"
	case goType == "string":
		return "a text"
	case goType == "bool":
		return "true or false"
	}
	return "a mapping"
}

// place is a key of a mapping or an element of a list.
type place struct {
	path  string // such as sinks[0].match
	line  int
	key   *yaml.Node // nil for an element
	value *yaml.Node
}

// keyAt returns the key that an error is about: on its line, or anywhere if it
// has none, that which it names or whose value it quotes; else the last of the
// line.
func keyAt(root *yaml.Node, line int, what string) (at place) {
	at.line = line
	named := false
	walk(root, "", func(p place) {
		if line != 0 && p.line != line && p.value.Line != line {
			return
		}
		field := unknownField.FindStringSubmatch(what)
		names := field != nil && strings.HasSuffix("."+p.path, "."+field[1])
		quotes := p.value.Kind == yaml.ScalarNode && p.value.Value != "" &&
			(strings.Contains(what, strconv.Quote(p.value.Value)) || strings.Contains(what, "`"+p.value.Value+"`"))
		if names || quotes || line != 0 && !named {
			at.path, named = p.path, names || quotes
			at.line = max(line, p.value.Line)
		}
	})
	return at
}

// lineOf returns the line of a path or, where it is absent, of the nearest key
// above it.
func lineOf(root *yaml.Node, path string) int {
	for path != "" {
		if line := find(root, path); line != 0 {
			return line
		}
		path = path[:max(strings.LastIndexAny(path, ".["), 0)]
	}
	return max(root.Line, 1)
}

// find returns the line of a path, zero if it is absent.
func find(root *yaml.Node, path string) (line int) {
	walk(root, "", func(p place) {
		if p.path == path {
			line = p.line
		}
	})
	return line
}

// walk visits each key of a mapping and each element of a list.
func walk(n *yaml.Node, path string, visit func(place)) {
	switch n.Kind {
	case yaml.DocumentNode:
		for _, c := range n.Content {
			walk(c, path, visit)
		}
	case yaml.MappingNode:
		for i := 0; i+1 < len(n.Content); i += 2 {
			key, value := n.Content[i], n.Content[i+1]
			p := place{strings.TrimPrefix(path+"."+key.Value, "."), key.Line, key, value}
			visit(p)
			walk(value, p.path, visit)
		}
	case yaml.SequenceNode:
		for i, c := range n.Content {
			p := place{fmt.Sprintf("%s[%d]", path, i), c.Line, nil, c}
			visit(p)
			walk(c, p.path, visit)
		}
	}
}
