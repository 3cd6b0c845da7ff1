// Package quantity parses and prints the sizes, rates and durations of a configuration:
// 1GiB, 3.6MiB/s, 10s.
package quantity

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/prometheus/common/model"
	"gopkg.in/yaml.v3"
)

// Size is a number of bytes.
type Size int64

// ParseSize parses a size such as 512KiB, 1GiB or 1.5MB. The default unit is bytes.
func ParseSize(s string) (Size, error) {
	n, err := humanize.ParseBytes(s)
	if err != nil || n > math.MaxInt64 {
		return 0, fmt.Errorf("%q is not a size; write it as in 32MiB or 1GiB", s)
	}
	return Size(n), nil
}

// String returns the exact size in the largest unit without decimals.
func (s Size) String() string {
	for _, unit := range []struct {
		size Size
		name string
	}{{1 << 40, "TiB"}, {1 << 30, "GiB"}, {1 << 20, "MiB"}, {1 << 10, "KiB"}} {
		if s != 0 && s%unit.size == 0 {
			return strconv.FormatInt(int64(s/unit.size), 10) + unit.name
		}
	}
	return strconv.FormatInt(int64(s), 10) + "B"
}

// UnmarshalYAML implements yaml.Unmarshaler.
func (s *Size) UnmarshalYAML(n *yaml.Node) (err error) {
	*s, err = scalar(n, ParseSize)
	return err
}

// MarshalYAML implements yaml.Marshaler.
func (s Size) MarshalYAML() (any, error) { return s.String(), nil }

// Rate is a number of bytes per second.
type Rate int64

// ParseRate parses a rate such as 3.6MiB/s or 500KB/s. 0 needs no unit.
func ParseRate(s string) (Rate, error) {
	size, found := strings.CutSuffix(s, "/s")
	n, err := ParseSize(strings.TrimSpace(size))
	if err != nil || !found && n != 0 {
		return 0, fmt.Errorf("%q is not a rate; write it as in 3.6MiB/s", s)
	}
	return Rate(n), nil
}

// String returns the exact rate in the largest unit with at most two decimals.
func (r Rate) String() string {
	for _, unit := range []struct {
		size Size
		name string
	}{{1 << 30, "GiB/s"}, {1 << 20, "MiB/s"}, {1 << 10, "KiB/s"}} {
		if r < Rate(unit.size) {
			continue
		}
		number := strconv.FormatFloat(float64(r)/float64(unit.size), 'f', 2, 64)
		text := strings.TrimSuffix(strings.TrimRight(number, "0"), ".") + unit.name
		if again, err := ParseRate(text); err == nil && again == r {
			return text
		}
	}
	return strconv.FormatInt(int64(r), 10) + "B/s"
}

// UnmarshalYAML implements yaml.Unmarshaler.
func (r *Rate) UnmarshalYAML(n *yaml.Node) (err error) {
	*r, err = scalar(n, ParseRate)
	return err
}

// MarshalYAML implements yaml.Marshaler.
func (r Rate) MarshalYAML() (any, error) { return r.String(), nil }

// Duration is a time.Duration such as 10s, 1h30m or 7d.
type Duration time.Duration

// ParseDuration parses a duration.
func ParseDuration(s string) (Duration, error) {
	if d, err := time.ParseDuration(s); err == nil {
		if d < 0 {
			return 0, fmt.Errorf("%q is a negative duration", s)
		}
		return Duration(d), nil
	}
	d, err := model.ParseDuration(s) // knows days and weeks
	if err != nil {
		return 0, fmt.Errorf("%q is not a duration; write it as in 10s or 1h30m", s)
	}
	return Duration(d), nil
}

func (d Duration) String() string {
	s := time.Duration(d).String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// UnmarshalYAML implements yaml.Unmarshaler.
func (d *Duration) UnmarshalYAML(n *yaml.Node) (err error) {
	*d, err = scalar(n, ParseDuration)
	return err
}

// MarshalYAML implements yaml.Marshaler.
func (d Duration) MarshalYAML() (any, error) { return d.String(), nil }

// scalar parses a scalar node. Its errors have the line, like the errors of the decoder,
// which collects both.
func scalar[T any](n *yaml.Node, parse func(string) (T, error)) (T, error) {
	var zero T
	if n.Kind != yaml.ScalarNode {
		return zero, &yaml.TypeError{Errors: []string{fmt.Sprintf("line %d: want a single value", n.Line)}}
	}
	v, err := parse(n.Value)
	if err != nil {
		return zero, &yaml.TypeError{Errors: []string{fmt.Sprintf("line %d: %v", n.Line, err)}}
	}
	return v, nil
}
