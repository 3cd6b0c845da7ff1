package config

import (
	"fmt"
	"strings"

	"gopkg.in/yaml.v3"

	"github.com/hindsight-events/hindsight/internal/lazyregexp"
)

// mayBeNull matches the keys that need no value: sections and destinations, such as "log:" or
// "stdout:", whose keys then have their defaults. Any other null is an error. The decoder would
// ignore it, so that "namespaces: [~]" or "match:" silently meant all Events.
var mayBeNull = lazyregexp.New(`^(source|levels|journal|leader_election|canary|log|sinks\[\d+\]\.(stdout|file|loki))$`)

// findNulls returns an error for each null in place of a value.
func findNulls(root *yaml.Node) (invalid []validationError) {
	walk(root, "", func(p location) {
		value := p.value
		if value.Kind == yaml.AliasNode {
			value = value.Alias
		}
		bad := func(format string, args ...any) {
			invalid = append(invalid, validationError{key: p.path, line: p.line, err: fmt.Errorf(format, args...)})
		}
		switch isNull := value.Kind == yaml.ScalarNode && value.ShortTag() == "!!null"; {
		case p.key != nil && p.key.ShortTag() == "!!null":
			bad("the key is null; name it, or quote it")
		case !isNull || mayBeNull().MatchString(p.path):
		case strings.HasSuffix(p.path, "]"):
			bad("the element has no value (null); set one, or remove the element")
		default:
			bad("the key has no value (null); set one, or remove the key to use its default")
		}
	})
	return invalid
}
