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

// What Loki accepts of a stream's labels by default; it does not count
// service_name among them:
// https://github.com/grafana/loki/blob/v3.7.8/pkg/validation/limits.go
// (RegisterFlags) and pkg/distributor/validator.go (ValidateLabels).
const (
	maxLabels           = 15
	maxLabelNameLength  = 1024
	maxLabelValueLength = 2048

	serviceName = "service_name"
)

// labelOptions say what the labels of a record are.
type labelOptions struct {
	Job     string // the label job; required, so that no stream is without labels
	Cluster string // the label cluster; empty: none

	// Fields are the labels taken from the record: from the label's name to the
	// field's, one of event.LabelFields. Nil: namespace and reason.
	Fields map[string]string

	// External are further labels with a fixed value.
	External map[string]string
}

// labelSet makes the label string of a record. It is safe for concurrent use.
type labelSet struct {
	labels []label // sorted by name
	fields event.LabelSet
}

// Fields are those whose values are labels.
func (l *labelSet) Fields() event.LabelSet { return l.fields }

// label is a fixed pair, or else a name and where its value comes from.
type label struct {
	name  string
	fixed string // name and quoted value
	field event.Field
}

// labelError says which option of labels is wrong: its key in the configuration,
// such as labels.pod.
type labelError struct {
	Key string
	Err error
}

func (e *labelError) Error() string { return e.Err.Error() }
func (e *labelError) Unwrap() error { return e.Err }

// newLabelSet refuses what Loki would refuse, and names that are given twice. The
// error is a labelError.
func newLabelSet(o labelOptions) (*labelSet, error) {
	bad := func(key, format string, args ...any) (*labelSet, error) {
		return nil, &labelError{Key: key, Err: fmt.Errorf(format, args...)}
	}
	if o.Job == "" {
		return bad("job", "job is empty")
	}
	l := &labelSet{}
	fixed := func(name, value string) {
		l.labels = append(l.labels, label{name: name, fixed: string(appendLabel(nil, name, value))})
	}
	for _, own := range []struct{ name, value string }{{"cluster", o.Cluster}, {"job", o.Job}} {
		if err := checkLabelValue(own.value); err != nil {
			return bad(own.name, "%s: %w", own.name, err)
		}
		if own.value != "" {
			fixed(own.name, own.value)
		}
	}

	fields := o.Fields
	if fields == nil {
		fields = event.DefaultLabelFields()
	}
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		if err := checkLabelName(name); err != nil {
			return bad("labels."+name, "label %q: %w", name, err)
		}
		field, ok := event.ParseField(fields[name])
		if !ok || !slices.Contains(event.LabelFields, field) {
			return bad("labels."+name, "label %q: %q cannot be a label; valid are %s", name, fields[name], event.FieldNames(event.LabelFields))
		}
		l.labels = append(l.labels, label{name: name, field: field})
		l.fields |= event.LabelSetOf(field)
	}
	for _, name := range slices.Sorted(maps.Keys(o.External)) {
		value := o.External[name]
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
		fixed(name, value)
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
		return fmt.Errorf("it is what the option %q sets", name)
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

// Append appends the labels of the record as Loki takes them in a push,
// {job="hindsight", namespace="default", reason="BackOff"}: sorted by name,
// without those that have no value. Records with the same labels give the same
// bytes. It does not allocate if dst has room and all values are valid UTF-8.
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
		value := shorten(r.Label(label.field, kept))
		if value == "" {
			continue
		}
		dst = append(dst, separator...)
		dst = appendLabel(dst, label.name, value)
		separator = ", "
	}
	return append(dst, '}')
}

// appendLabel escapes all but ASCII. Loki reads labels with Prometheus's parser,
// which takes a replacement character (U+FFFD) that stands for itself for invalid
// UTF-8, and refuses the whole push. Escaped it passes there, but Loki unescapes the
// labels and parses them once more. So each becomes "_", as does invalid UTF-8.
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

// printable reports whether nothing in the value has to be escaped, as is so of
// nearly all.
func printable(value string) bool {
	for i := range len(value) {
		if c := value[i]; c < ' ' || c > '~' || c == '"' || c == '\\' {
			return false
		}
	}
	return true
}

// shorten cuts a value to what Loki accepts. The API server bounds neither
// kinds nor components.
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
