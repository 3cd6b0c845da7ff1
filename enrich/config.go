package enrich

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/hindsight-events/hindsight/event"
	"github.com/hindsight-events/hindsight/internal/quantity"
)

// Config is the key enrich of the configuration. The zero Config reads nothing.
type Config struct {
	// Workload adds the fields workload_kind and workload_name.
	Workload bool `yaml:"workload"`

	// Labels and Annotations of the object that an Event is about, from the name of a field to the
	// key of the label or annotation.
	Labels      map[string]string `yaml:"labels,omitempty"`
	Annotations map[string]string `yaml:"annotations,omitempty"`

	// NamespaceLabels are labels of the object's namespace.
	NamespaceLabels map[string]string `yaml:"namespace_labels,omitempty"`

	// KeepDeleted is how long the values of deleted objects are kept.
	KeepDeleted quantity.Duration `yaml:"keep_deleted"`

	// Wait bounds how long a group of Events waits for the metadata of new objects.
	Wait quantity.Duration `yaml:"wait"`
}

// DefaultConfig returns the defaults.
func DefaultConfig() Config {
	return Config{KeepDeleted: quantity.Duration(15 * time.Minute), Wait: quantity.Duration(500 * time.Millisecond)}
}

// Enabled reports whether anything is read.
func (c Config) Enabled() bool {
	return c.Workload || len(c.Labels) > 0 || len(c.Annotations) > 0 || len(c.NamespaceLabels) > 0
}

// Names returns the names of the fields that are added, sorted.
func (c Config) Names() (names []string) {
	if c.Workload {
		names = append(names, WorkloadKind, WorkloadName)
	}
	for _, m := range c.maps() {
		names = slices.AppendSeq(names, maps.Keys(m))
	}
	slices.Sort(names)
	return names
}

func (c Config) maps() []map[string]string {
	return []map[string]string{c.Labels, c.Annotations, c.NamespaceLabels}
}

// maxNames bounds the fields, and so the size of an entry.
const maxNames = 32

// Check calls bad for each invalid value with its key.
func (c Config) Check(bad func(key string, err error)) {
	if longest := quantity.Duration(24 * time.Hour); c.KeepDeleted > longest {
		bad("keep_deleted", fmt.Errorf("%s is too long; it must be at most %s", c.KeepDeleted, longest))
	}
	if longest := quantity.Duration(10 * time.Second); c.Wait > longest {
		bad("wait", fmt.Errorf("%s is too long; it must be at most %s", c.Wait, longest))
	}
	if n := len(c.Names()); n > maxNames {
		bad("labels", fmt.Errorf("%d fields; there may be at most %d", n, maxNames))
	}
	used := map[string]string{}
	for i, key := range []string{"labels", "annotations", "namespace_labels"} {
		m := c.maps()[i]
		for _, name := range slices.Sorted(maps.Keys(m)) {
			if err := checkName(name); err != nil {
				bad(key+"."+name, err)
			} else if other, ok := used[name]; ok {
				bad(key+"."+name, fmt.Errorf("the field is also in enrich.%s", other))
			}
			used[name] = key
			if problems := validation.IsQualifiedName(m[name]); len(problems) > 0 {
				bad(key+"."+name, fmt.Errorf("%q is not the key of a label or annotation: %s", m[name], strings.Join(problems, "; ")))
			}
		}
	}
}

// reserved are names of labels and of keys of lines.
var reserved = []string{
	"cluster", "job", "time", "verb", "event", "msg", "eventRV", "objectRV", "objectAPIversion", "action", "firstseen",
	"fieldpath", "related", "relateduid", "note", "reportinginstance", "reportingcontroller", "sourcecomponent", "sourcehost",
	"cause", "missed_at_least", "from_version", "to_version", "from_time", "to_time", "service_name",
}

// checkName checks a name for a field: it must be possible as a label and in structured metadata,
// and not belong to Hindsight.
func checkName(name string) error {
	switch _, known := event.ParseField(name); {
	case known:
		return fmt.Errorf("%q is a field of every Event; choose another name", name)
	case !event.IsAttributeName(name) || strings.Trim(name, "_") == "" || strings.HasPrefix(name, "__"):
		return fmt.Errorf("%q is not a field name; want letters, digits and underscores, as in app_name", name)
	case strings.HasPrefix(name, event.FullPrefix), slices.Contains(reserved, name):
		return fmt.Errorf("%q is used by Hindsight; choose another name", name)
	}
	return nil
}
