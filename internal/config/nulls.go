package config

import (
	"fmt"
	"regexp"
	"strings"

	"gopkg.in/yaml.v3"
)

// mayBeNull matches the only keys that need no value: the sections and the
// destinations, where a bare "log:" or "stdout:" means the defaults of all keys
// in it. Every other null is an error: the decoder drops it from a list, and
// leaves the default in place for a key, so that "namespaces: [~]" or a bare
// "match:" would silently mean all Events.
var mayBeNull = regexp.MustCompile(`^(source|journal|leader_election|canary|log|sinks\[\d+\]\.(stdout|file|loki))$`)

// findNulls returns a problem for each null that stands where a value belongs, with
// its line.
func findNulls(root *yaml.Node) (problems []validationError) {
	walk(root, "", func(p location) {
		value := p.value
		if value.Kind == yaml.AliasNode {
			value = value.Alias
		}
		bad := func(format string, args ...any) {
			problems = append(problems, validationError{key: p.path, line: p.line, err: fmt.Errorf(format, args...)})
		}
		switch isNull := value.Kind == yaml.ScalarNode && value.ShortTag() == "!!null"; {
		case p.key != nil && p.key.ShortTag() == "!!null":
			bad("a key that is null; give it a name, or quote it if it is one")
		case !isNull || mayBeNull.MatchString(p.path):
		case strings.HasSuffix(p.path, "]"):
			bad("an element without a value (null); give it one, or remove it")
		default:
			bad("a key without a value (null); give it one, or remove the key to have its default")
		}
	})
	return problems
}
