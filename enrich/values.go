package enrich

import (
	"maps"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/hindsight-events/hindsight/event"
)

// Names of the fields of the workload.
const (
	WorkloadKind = "workload_kind"
	WorkloadName = "workload_name"
)

// maxValueBytes bounds a value, so that a label or annotation that anyone may set on an object
// cannot make its Events too large for a sink.
const maxValueBytes = 256

// truncated ends a value that was longer.
const truncated = "…"

// extractor takes the configured values out of the labels and annotations of an object.
type extractor struct{ names, labels, annotations []string }

// newExtractor returns an extractor. The maps are from field to key.
func newExtractor(labels, annotations map[string]string) extractor {
	var x extractor
	for _, name := range slices.Sorted(maps.Keys(labels)) {
		x.names, x.labels = append(x.names, name), append(x.labels, labels[name])
	}
	for _, name := range slices.Sorted(maps.Keys(annotations)) {
		x.names, x.annotations = append(x.names, name), append(x.annotations, annotations[name])
	}
	return x
}

// encode returns the values in the order of names, separated by a NUL.
func (x extractor) encode(labels, annotations map[string]string) string {
	values := make([]string, 0, len(x.names))
	for _, key := range x.labels {
		values = append(values, bounded(labels[key]))
	}
	for _, key := range x.annotations {
		values = append(values, bounded(annotations[key]))
	}
	if joined := strings.Join(values, "\x00"); strings.Trim(joined, "\x00") != "" {
		return joined
	}
	return ""
}

// append appends the encoded values that are not empty.
func (x extractor) append(pairs []event.Pair, encoded string) []event.Pair {
	if encoded == "" {
		return pairs
	}
	for _, name := range x.names {
		value, rest, _ := strings.Cut(encoded, "\x00")
		if value != "" {
			pairs = append(pairs, event.Pair{Name: name, Value: value})
		}
		encoded = rest
	}
	return pairs
}

// bounded returns a value of at most maxValueBytes in valid UTF-8 and without a NUL.
func bounded(value string) string {
	value = strings.ReplaceAll(strings.ToValidUTF8(value, "\uFFFD"), "\x00", "\uFFFD")
	if len(value) <= maxValueBytes {
		return value
	}
	end := maxValueBytes - len(truncated)
	for !utf8.RuneStart(value[end]) {
		end--
	}
	return value[:end] + truncated
}
