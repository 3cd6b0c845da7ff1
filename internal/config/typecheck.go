package config

import (
	"errors"
	"fmt"
	"reflect"
	"strconv"
	"strings"

	"gopkg.in/yaml.v3"

	"github.com/hindsight-events/hindsight/internal/lazyregexp"
	"github.com/hindsight-events/hindsight/internal/mask"
	"github.com/hindsight-events/hindsight/router"
)

// checkTypes returns the errors that keep a document from being a Config, with line and key. The
// decoder's errors have at most a line; after it has failed, checkTypes decodes each value by
// itself. It returns nothing for an error that no single value causes.
func checkTypes(root *yaml.Node) []validationError {
	var d checker
	d.value(root, reflect.TypeFor[Config](), "")
	return d.invalid
}

type checker struct {
	invalid []validationError
	merges  int
}

// maxMerges bounds the merges (<<) that are followed: one may contain itself.
const maxMerges = 100

func (d *checker) bad(n *yaml.Node, path, format string, args ...any) {
	d.invalid = append(d.invalid, validationError{key: path, line: n.Line, err: fmt.Errorf(format, args...)})
}

// value checks that the value at a path has a type.
func (d *checker) value(n *yaml.Node, t reflect.Type, path string) {
	for n.Kind == yaml.DocumentNode && len(n.Content) == 1 {
		n = n.Content[0]
	}
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if n.Kind == 0 || n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" {
		return
	}
	before := len(d.invalid)
	switch kind := t.Kind(); {
	case kind == reflect.Struct && hasKeys(t):
		d.section(n, t, path)
	case kind == reflect.Slice && n.Kind == yaml.SequenceNode:
		for i, element := range n.Content {
			at := fmt.Sprintf("%s[%d]", path, i)
			if !decodesItself(t) {
				d.value(element, t.Elem(), at)
				continue
			}
			found := len(d.invalid)
			if t == reflect.TypeFor[router.Redactions]() {
				d.section(element, reflect.TypeFor[struct {
					Match string `yaml:"match"`
					With  string `yaml:"with"`
				}](), at)
			}
			list := *n // so that the type sees one element at a time
			list.Content = n.Content[i : i+1]
			if len(d.invalid) == found {
				d.decode(&list, t, at)
			}
		}
	case kind == reflect.Map && n.Kind == yaml.MappingNode && !decodesItself(t):
		for i := 0; i+1 < len(n.Content); i += 2 {
			d.value(n.Content[i+1], t.Elem(), path+"."+n.Content[i].Value)
		}
	default:
		d.decode(n, t, path)
		return
	}
	if len(d.invalid) == before && path != "" {
		d.decode(n, t, path) // an invalid combination of values
	}
}

// section checks the keys of a mapping.
func (d *checker) section(n *yaml.Node, t reflect.Type, path string) {
	if n.Kind != yaml.MappingNode {
		d.bad(n, path, "%s is not a mapping", describe(n, path))
		return
	}
	first := map[string]int{} // lines
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		at := strings.TrimPrefix(path+"."+key.Value, ".")
		if key.ShortTag() == "!!merge" {
			if d.merges++; d.merges <= maxMerges {
				d.value(value, t, path)
			}
			continue
		}
		field := keyType(t, key.Value)
		switch line := first[key.Value]; {
		case line != 0:
			d.bad(key, at, "duplicate key, first set on line %d", line)
		case field == nil:
			d.bad(key, at, "unknown key")
		default:
			d.value(value, field, at)
		}
		first[key.Value] = key.Line
	}
}

// decode decodes a single value.
func (d *checker) decode(n *yaml.Node, t reflect.Type, path string) {
	err := n.Decode(reflect.New(t).Interface())
	if err == nil {
		return
	}
	messages := []string{err.Error()}
	var typeError *yaml.TypeError
	if errors.As(err, &typeError) {
		messages = typeError.Errors
	}
	for _, message := range messages {
		at, reason := n, strings.TrimPrefix(message, "yaml: ")
		if m := lineError().FindStringSubmatch(message); m != nil {
			line, _ := strconv.Atoi(m[1])
			at, reason = &yaml.Node{Line: line}, m[2]
		}
		switch {
		case strings.HasPrefix(reason, "cannot unmarshal "):
			reason = fmt.Sprintf("%s is not %s", describe(n, path), wanted(t))
		case secretKey().MatchString(path) && n.Kind == yaml.ScalarNode:
			reason = "invalid value" // the message may have the value
			if strings.HasSuffix(path, "url") {
				reason = "is not a URL"
			}
		}
		d.bad(at, path, "%s", reason)
	}
}

// secretKey matches keys with secret values.
var secretKey = lazyregexp.New(`(^|[._])(url|password|credentials|secrets?|bearer_token|key|client_certificate_key|basic_auth|authorization|oauth2|proxy_connect_header|http_headers|endpoint_params)(\.|\[|$)`)

// describe names a value of the wrong type, without secrets.
func describe(n *yaml.Node, path string) string {
	switch {
	case n.Kind == yaml.MappingNode:
		return "a mapping"
	case n.Kind == yaml.SequenceNode:
		return "a list"
	case secretKey().MatchString(path):
		return "the value"
	}
	return strconv.Quote(mask.URL(n.Value))
}

// wanted names a type for an error message.
func wanted(t reflect.Type) string {
	switch t.Kind() {
	case reflect.String:
		return "a string"
	case reflect.Bool:
		return "true or false"
	case reflect.Int, reflect.Int64, reflect.Uint64:
		return "a whole number"
	case reflect.Slice:
		return "a list"
	}
	return "a mapping"
}

// hasKeys reports whether a struct is a mapping with known keys, rather than a type that decodes
// itself.
func hasKeys(t reflect.Type) bool {
	for i := range t.NumField() {
		if _, ok := t.Field(i).Tag.Lookup("yaml"); ok {
			return true
		}
	}
	return false
}

// keyType returns the type of a key of a mapping, nil for an unknown key.
func keyType(t reflect.Type, key string) reflect.Type {
	for i := range t.NumField() {
		f := t.Field(i)
		name, options, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		switch {
		case name == key && name != "":
			return f.Type
		case options != "inline":
		case f.Type.Kind() == reflect.Map:
			return f.Type.Elem()
		default:
			if found := keyType(f.Type, key); found != nil {
				return found
			}
		}
	}
	return nil
}

func decodesItself(t reflect.Type) bool {
	p := reflect.PointerTo(t)
	return p.Implements(reflect.TypeFor[yaml.Unmarshaler]()) ||
		p.Implements(reflect.TypeFor[interface{ UnmarshalYAML(func(any) error) error }]())
}
