package loki

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

// BenchmarkDecode measures the cost of decoding one entry of a response.
func BenchmarkDecode(b *testing.B) {
	const entries = 5000
	var s struct {
		Stream map[string]string `json:"stream"`
		Values []any             `json:"values"`
	}
	s.Stream = map[string]string{"job": "hindsight", "namespace": "a", "reason": "Made"}
	for i := range entries {
		s.Values = append(s.Values, []any{
			fmt.Sprint(1_770_000_000_000_000_000 + i),
			fmt.Sprintf(`name=pod-%06d kind=Pod objectAPIversion=v1 type=Normal count=1 msg="%s"`, i, strings.Repeat("word ", 30)),
			map[string]any{"structuredMetadata": map[string]string{
				"component": "kubelet", "count": "1", "detected_level": "info", "event_uid": fmt.Sprintf("0c6f3a1e-%012d", i),
				"event_version": fmt.Sprint(i), "kind": "Pod", "name": fmt.Sprintf("pod-%06d", i), "node": "n-1", "type": "Normal", "uid": fmt.Sprintf("1c6f3a1e-%012d", i),
			}},
		})
	}
	text, err := json.Marshal(s)
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(text)))
	b.ReportAllocs()
	for b.Loop() {
		var got stream
		if err := json.Unmarshal(text, &got); err != nil || len(got.Values) != entries {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*entries), "ns/entry")
}
