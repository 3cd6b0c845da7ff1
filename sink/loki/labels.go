package loki

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/prometheus/common/model"

	"github.com/hindsight-events/hindsight/event"
)

// Loki's default limits for the labels of a stream. It does not count service_name:
// https://github.com/grafana/loki/blob/v3.7.8/pkg/validation/limits.go
// (RegisterFlags) and pkg/distributor/validator.go (ValidateLabels).
const (
	maxLabels           = 15
	maxLabelNameLength  = 1024
	maxLabelValueLength = 2048

	serviceName = "service_name"
)

// labelSet encodes the labels of a record. It is safe for concurrent use.
type labelSet struct {
	labels     []label // sorted by name
	fields     event.LabelSet
	attributes []string // that are labels
}

// label has a fixed value, or the value of a field or of an attribute.
type label struct {
	name      string
	fixed     string // name and quoted value
	field     event.Field
	attribute string
}

// labelError is an error in the labels of a Config.
type labelError struct {
	Key string // in the configuration, such as labels.pod
	Err error
}

func (e *labelError) Error() string { return e.Err.Error() }
func (e *labelError) Unwrap() error { return e.Err }

// newLabelSet checks the labels against the limits of Loki, and that their names are unique. The
// error is a labelError.
func newLabelSet(c *Config, cluster string) (*labelSet, error) {
	bad := func(key, format string, args ...any) (*labelSet, error) {
		return nil, &labelError{Key: key, Err: fmt.Errorf(format, args...)}
	}
	if c.Job == "" {
		return bad("job", "job is empty")
	}
	l := &labelSet{}
	addFixed := func(name, value string) {
		l.labels = append(l.labels, label{name: name, fixed: string(appendLabel(nil, name, value))})
	}
	for _, own := range []struct{ name, value string }{{"cluster", cluster}, {"job", c.Job}} {
		if err := checkLabelValue(own.value); err != nil {
			return bad(own.name, "%s: %w", own.name, err)
		}
		if own.value != "" {
			addFixed(own.name, own.value)
		}
	}

	fields := c.Labels
	if fields == nil {
		fields = event.DefaultLabelFields()
	}
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		if err := checkLabelName(name); err != nil {
			return bad("labels."+name, "label %q: %w", name, err)
		}
		field, ok := event.ParseField(fields[name])
		if slices.Contains(c.Attributes, fields[name]) {
			l.labels = append(l.labels, label{name: name, attribute: fields[name]})
			l.fields |= event.LabelAttributes
			l.attributes = append(l.attributes, fields[name])
			continue
		}
		if !ok || !slices.Contains(event.LabelFields, field) {
			return bad("labels."+name, "label %q: %q cannot be a label; valid are %s", name, fields[name], event.FieldNames(event.LabelFields, c.Attributes...))
		}
		l.labels = append(l.labels, label{name: name, field: field})
		l.fields |= event.LabelSetOf(field)
	}
	for _, name := range slices.Sorted(maps.Keys(c.ExternalLabels)) {
		value := c.ExternalLabels[name]
		err := checkLabelName(name)
		if _, twice := fields[name]; err == nil && twice {
			err = errors.New("there is a label of that name already")
		}
		if err == nil && value == "" {
			err = errors.New("its value is empty")
		}
		if err == nil {
			err = checkLabelValue(value)
		}
		if err != nil {
			return bad("external_labels."+name, "external label %q: %w", name, err)
		}
		addFixed(name, value)
	}

	slices.SortFunc(l.labels, func(a, b label) int { return cmp.Compare(a.name, b.name) })
	n := len(l.labels)
	if slices.ContainsFunc(l.labels, func(l label) bool { return l.name == serviceName }) {
		n--
	}
	if n > maxLabels {
		return bad("labels", "%d labels, of which Loki by default accepts %d; job, cluster and external labels count", n, maxLabels)
	}
	return l, nil
}

func checkLabelName(name string) error {
	switch {
	case name == "cluster" || name == "job":
		return fmt.Errorf("the option %q sets it", name)
	case !model.LegacyValidation.IsValidLabelName(name):
		return errors.New("a label's name is made of letters, digits and _, and does not begin with a digit")
	case len(name) > maxLabelNameLength:
		return fmt.Errorf("its name is longer than %d bytes", maxLabelNameLength)
	case len(name) >= 2 && name[:2] == model.ReservedLabelPrefix:
		return fmt.Errorf("names that begin with %s are reserved", model.ReservedLabelPrefix)
	}
	return nil
}

func checkLabelValue(value string) error {
	if len(value) > maxLabelValueLength {
		return fmt.Errorf("its value is longer than %d bytes", maxLabelValueLength)
	}
	if !utf8.ValidString(value) {
		return errors.New("its value is not valid UTF-8")
	}
	if strings.ContainsRune(value, utf8.RuneError) {
		return errors.New("its value has a replacement character (U+FFFD), which Loki does not accept")
	}
	return nil
}

// Append appends the labels of the record as a selector, sorted by name:
// {job="hindsight", namespace="default", reason="BackOff"}. Labels without a value are omitted.
// Records with the same labels have the same selector. Append does not allocate if dst has the
// capacity and all values are valid UTF-8.
func (l *labelSet) Append(dst []byte, r *event.Record) []byte {
	kept := r.KeptLabels(l.fields)
	dst = append(dst, '{')
	separator := ""
	for i := range l.labels {
		label := &l.labels[i]
		if label.fixed != "" {
			dst = append(dst, separator...)
			dst = append(dst, label.fixed...)
			separator = ", "
			continue
		}
		value := ""
		if label.attribute != "" {
			value = shorten(r.AttributeLabel(label.attribute, kept))
		} else {
			value = shorten(r.Label(label.field, kept))
		}
		if value == "" {
			continue
		}
		dst = append(dst, separator...)
		dst = appendLabel(dst, label.name, value)
		separator = ", "
	}
	return append(dst, '}')
}

// appendLabel escapes all but ASCII. A replacement character (U+FFFD) becomes "_", as does invalid
// UTF-8: Prometheus's parser, which Loki uses, takes the character for invalid UTF-8 and rejects
// the push. Escaping it does not help, since Loki unescapes labels and parses them again.
func appendLabel(dst []byte, name, value string) []byte {
	dst = append(dst, name...)
	dst = append(dst, '=')
	if !printable(value) {
		value = strings.ReplaceAll(strings.ToValidUTF8(value, "_"), "\uFFFD", "_")
		return strconv.AppendQuoteToASCII(dst, value)
	}
	dst = append(dst, '"')
	dst = append(dst, value...)
	return append(dst, '"')
}

// printable reports whether a value needs no escaping. Nearly all values are printable.
func printable(value string) bool {
	for i := range len(value) {
		if c := value[i]; c < ' ' || c > '~' || c == '"' || c == '\\' {
			return false
		}
	}
	return true
}

// shorten truncates a value to the limit of Loki. The API server limits neither kinds nor
// components.
func shorten(value string) string {
	if len(value) <= maxLabelValueLength {
		return value
	}
	end := maxLabelValueLength
	for !utf8.RuneStart(value[end]) {
		end--
	}
	return value[:end]
}
