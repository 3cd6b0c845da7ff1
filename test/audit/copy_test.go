//go:build e2e

package audit

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/hindsight-events/hindsight/test/cluster"
)

// entries returns all entries that Loki finds, oldest first.
func entries(t *testing.T, l *cluster.Loki, query string) []cluster.LokiEntry {
	t.Helper()
	found, err := l.Entries(t.Context(), query, time.Now().Add(-6*time.Hour), time.Now().Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// copyOf returns a deep copy of entries.
func copyOf(from []cluster.LokiEntry) []cluster.LokiEntry {
	copied := make([]cluster.LokiEntry, len(from))
	for i, e := range from {
		e.Labels, e.Metadata = maps.Clone(e.Labels), maps.Clone(e.Metadata)
		delete(e.Labels, "service_name") // Loki adds it
		copied[i] = e
	}
	return copied
}

// push stores entries with another cluster label, in order.
func push(t *testing.T, l *cluster.Loki, name string, all []cluster.LokiEntry) {
	t.Helper()
	type stream struct {
		Stream map[string]string `json:"stream"`
		Values []any             `json:"values"`
	}
	streams := map[string]*stream{}
	for _, e := range all {
		e.Labels["cluster"] = name
		key, err := json.Marshal(e.Labels)
		if err != nil {
			t.Fatal(err)
		}
		s := streams[string(key)]
		if s == nil {
			s = &stream{Stream: e.Labels}
			streams[string(key)] = s
		}
		s.Values = append(s.Values, []any{strconv.FormatInt(e.Time.UnixNano(), 10), e.Line, e.Metadata})
	}
	for _, s := range streams { // a push of one stream, so that the response covers all of its entries
		b, err := json.Marshal(map[string]any{"streams": []any{s}})
		if err != nil {
			t.Fatal(err)
		}
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, l.URL()+"/loki/api/v1/push", bytes.NewReader(b))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/json")
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if resp.StatusCode != http.StatusNoContent {
			t.Fatalf("push: %d %s", resp.StatusCode, body)
		}
	}
}

// textOf returns the text of files, compressed or not.
func textOf(t *testing.T, pattern string) string {
	t.Helper()
	paths, err := filepath.Glob(pattern)
	if err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	for _, path := range paths {
		if strings.HasSuffix(path, ".tmp") || strings.HasSuffix(path, ".lock") {
			continue
		}
		b, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		if strings.HasSuffix(path, ".gz") {
			z, err := gzip.NewReader(bytes.NewReader(b))
			if err != nil {
				continue
			}
			if b, err = io.ReadAll(z); err != nil {
				continue
			}
		}
		text.Write(b)
	}
	return text.String()
}
