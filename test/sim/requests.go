package main

import (
	"bytes"
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"strings"
	"sync"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// requests counts the requests to the API server. A client whose server is /as/NAME is counted
// apart.
type requests struct {
	next http.Handler

	mu     sync.Mutex // guards the following
	counts map[string]count
	last   string // annotations that were written
}

// count is of one method and path.
type count struct {
	Requests int `json:"requests"`
	Bytes    int `json:"bytes"`   // of their bodies
	Changes  int `json:"changes"` // requests with other annotations than the one before
}

// ServeHTTP implements http.Handler.
func (c *requests) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	path := r.URL.Path
	if client, ok := strings.CutPrefix(path, "/as/"); ok {
		_, path, _ = strings.Cut(client, "/")
		path = "/" + path
	}
	if strings.HasPrefix(path, "/api") {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return // the client has gone
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		c.add(r.Method+" "+r.URL.Path, body)
		r.URL.Path = path
	}
	c.next.ServeHTTP(w, r)
}

func (c *requests) add(key string, body []byte) {
	var object metav1.PartialObjectMetadata
	_ = json.Unmarshal(body, &object) // nothing, of a request without a body
	annotations, _ := json.Marshal(object.Annotations)
	c.mu.Lock()
	defer c.mu.Unlock()
	n := c.counts[key]
	n.Requests++
	n.Bytes += len(body)
	if object.Annotations != nil && string(annotations) != c.last {
		n.Changes++
		c.last = string(annotations)
	}
	c.counts[key] = n
}

func (c *requests) serve(w http.ResponseWriter, _ *http.Request) {
	c.mu.Lock()
	counts := maps.Clone(c.counts)
	c.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(counts)
}
