package loki

import (
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"github.com/hindsight-events/hindsight/query/line"
)

// stream is one of an answer.
type stream struct {
	Stream map[string]string
	Values []value
}

func (s *stream) entry(v value) line.Entry {
	return line.Entry{Time: v.Time, Line: v.Line, Labels: s.Stream, Metadata: v.Metadata}
}

// value is [time, line, {"structuredMetadata":{…}}].
type value struct {
	Time     time.Time
	Line     string
	Metadata map[string]string
}

// UnmarshalJSON implements json.Unmarshaler.
func (v *value) UnmarshalJSON(b []byte) error {
	var (
		at    string
		apart struct{ StructuredMetadata map[string]string }
		parts = []any{&at, &v.Line, &apart}
	)
	if err := json.Unmarshal(b, &parts); err != nil {
		return fmt.Errorf("decode an entry: %w", err)
	}
	n, err := strconv.ParseInt(at, 10, 64)
	if err != nil {
		return fmt.Errorf("decode an entry: its time: %w", err)
	}
	v.Time, v.Metadata = time.Unix(0, n).UTC(), apart.StructuredMetadata
	return nil
}
