package lease

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/hindsight-events/hindsight/event"
)

// Checkpoint is the progress of a leader, from which the next leader resumes.
type Checkpoint struct {
	// Sinks is the position up to which each sink has accepted each source: sink -> source (a
	// namespace, or empty for all namespaces) -> position.
	Sinks map[string]map[string]event.Position

	// Gaps are the recorded gaps, merged into at most eight.
	Gaps event.GapSet

	// RemovedSources is the time, in whole seconds, since when a source of Sinks is not configured any
	// more.
	RemovedSources map[string]time.Time
}

// onlyAdvances reports whether c differs from a former checkpoint in nothing but positions that have
// advanced in their epoch.
func (c Checkpoint) onlyAdvances(former Checkpoint) bool {
	return slices.Equal(c.Gaps, former.Gaps) && maps.Equal(c.RemovedSources, former.RemovedSources) &&
		maps.EqualFunc(c.Sinks, former.Sinks, func(positions, former map[string]event.Position) bool {
			return maps.EqualFunc(positions, former, func(p, f event.Position) bool { return p.Epoch == f.Epoch })
		})
}

// String returns the positions for a log line.
func (c Checkpoint) String() string {
	const most = 10
	var parts []string
	for _, sink := range slices.Sorted(maps.Keys(c.Sinks)) {
		for _, source := range slices.Sorted(maps.Keys(c.Sinks[sink])) {
			parts = append(parts, fmt.Sprintf("%s/%s=%s", sink, sourceKey(source), c.Sinks[sink][source]))
		}
	}
	switch more := len(parts) - most; {
	case parts == nil:
		return "none"
	case more > 0:
		return fmt.Sprintf("%s and %d more", strings.Join(parts[:most], " "), more)
	default:
		return strings.Join(parts, " ")
	}
}

const (
	annotation = "hindsight/positions"

	// version of the annotation. It changes when a reader that does not know the change would lose
	// Events. compressedVersion is a document that has only another one, compressed.
	version           = 1
	compressedVersion = 2

	// plainBytes bounds a document that is not compressed, so that people can read the usual ones.
	plainBytes = 4 << 10

	// maxBytes bounds the annotation: etcd stores it with each renewal. Kubernetes rejects objects with
	// more than maxAllBytes of annotations, including their keys (TotalAnnotationSizeLimitB in
	// k8s.io/apimachinery/pkg/api/validation).
	maxBytes    = 64 << 10
	maxAllBytes = 256 << 10

	// maxDocument bounds a document that is decompressed.
	maxDocument = 16 << 20
)

// document is the annotation:
//
//	{"v":1,"epoch":"<epoch>",
//	 "sinks":{"loki":{"*":{"version":812,"time":"2019-07-19T11:00:00Z"}}},
//	 "gaps":[{"from":{"version":100},"to":{"version":200},"cause":"too_old","missed_at_least":3}],
//	 "unlisted":{"team-a":"2019-07-19T11:00:00Z"}}
//
// Positions without an epoch have the document's. A larger one is compressed, with gzip and base64:
//
//	{"v":2,"gzip":"H4sIAAAA…"}
type document struct {
	Version        int                                        `json:"v"`
	Gzip           []byte                                     `json:"gzip,omitempty"`
	Epoch          string                                     `json:"epoch,omitempty"`
	Sinks          map[string]map[string]event.StoredPosition `json:"sinks,omitempty"`
	Gaps           []gap                                      `json:"gaps,omitempty"`
	RemovedSources map[string]event.StoredTime                `json:"unlisted,omitempty"`
}

type gap struct {
	Source        string               `json:"source,omitempty"`
	Sink          string               `json:"sink,omitempty"`
	Namespace     string               `json:"namespace,omitempty"`
	From          event.StoredPosition `json:"from"`
	To            event.StoredPosition `json:"to"`
	Cause         string               `json:"cause,omitempty"`
	MissedAtLeast int                  `json:"missed_at_least,omitempty"`
}

// allKey is the key of all namespaces in a document. No namespace can have that name.
const allKey = "*"

func sourceKey(source string) string { return cmp.Or(source, allKey) }

func sourceOf(key string) string {
	if key == allKey {
		return ""
	}
	return key
}

// encode returns the annotation of a checkpoint; equal checkpoints have equal annotations. If it is
// too large, encode returns it with an error.
func encode(c Checkpoint) (string, error) {
	d := document{Version: version, Epoch: commonEpoch(c), Sinks: make(map[string]map[string]event.StoredPosition, len(c.Sinks))}
	for sink, positions := range c.Sinks {
		d.Sinks[sink] = make(map[string]event.StoredPosition, len(positions))
		for source, p := range positions {
			d.Sinks[sink][sourceKey(source)] = p.Stored(d.Epoch)
		}
	}
	for _, g := range c.Gaps.Merge() {
		d.Gaps = append(d.Gaps, gap{
			Source: g.Source, Sink: g.Sink, Namespace: g.Namespace,
			From: g.From.Stored(d.Epoch), To: g.To.Stored(d.Epoch),
			Cause: string(g.Cause), MissedAtLeast: g.MissedAtLeast,
		})
	}
	if len(c.RemovedSources) > 0 {
		d.RemovedSources = make(map[string]event.StoredTime, len(c.RemovedSources))
	}
	for source, since := range c.RemovedSources {
		d.RemovedSources[sourceKey(source)] = event.StoredTime{Time: since}
	}
	b, err := json.Marshal(d)
	if err == nil && len(b) > plainBytes {
		b, err = json.Marshal(document{Version: compressedVersion, Gzip: compress(b)})
	}
	if err != nil {
		return "", fmt.Errorf("encode annotation %s: %w", annotation, err)
	}
	if len(b) > maxBytes {
		return string(b), fmt.Errorf("annotation %s is too large: it has %d bytes, and at most %d are stored: configure fewer namespaces (or none, for all) or fewer sinks", annotation, len(b), maxBytes)
	}
	return string(b), nil
}

// decode is the inverse of encode. An empty annotation is an empty checkpoint. With an error, it
// returns an empty checkpoint.
func decode(s string) (Checkpoint, error) {
	if s == "" {
		return Checkpoint{}, nil
	}
	var d document
	err := json.Unmarshal([]byte(s), &d)
	if err == nil && d.Version == compressedVersion {
		d, err = decompress(d.Gzip)
	}
	if err != nil {
		return Checkpoint{}, fmt.Errorf("decode annotation %s: %w", annotation, err)
	}
	if d.Version != version {
		return Checkpoint{}, fmt.Errorf("decode annotation %s: unknown version %d, want %d", annotation, d.Version, version)
	}
	var c Checkpoint
	var invalid error
	position := func(p event.StoredPosition, of string) event.Position {
		got, err := p.Position(d.Epoch)
		if err != nil {
			invalid = fmt.Errorf("decode annotation %s: %s: %w", annotation, of, err)
		}
		return got
	}
	if len(d.Sinks) > 0 {
		c.Sinks = make(map[string]map[string]event.Position, len(d.Sinks))
	}
	for sink, positions := range d.Sinks {
		c.Sinks[sink] = make(map[string]event.Position, len(positions))
		for key, p := range positions {
			c.Sinks[sink][sourceOf(key)] = position(p, "sink "+sink)
		}
	}
	for _, g := range d.Gaps {
		c.Gaps = append(c.Gaps, event.Gap{
			Source: g.Source, Sink: g.Sink, Namespace: g.Namespace,
			From: position(g.From, "gap"), To: position(g.To, "gap"),
			Cause: event.Cause(g.Cause), MissedAtLeast: g.MissedAtLeast,
		})
	}
	if len(d.RemovedSources) > 0 {
		c.RemovedSources = make(map[string]time.Time, len(d.RemovedSources))
	}
	for key, since := range d.RemovedSources {
		c.RemovedSources[sourceOf(key)] = since.Time
	}
	if invalid != nil {
		return Checkpoint{}, invalid
	}
	return c, nil
}

func compress(b []byte) []byte {
	var compressed bytes.Buffer
	w := gzip.NewWriter(&compressed) // a buffer accepts all writes
	_, _ = w.Write(b)
	_ = w.Close()
	return compressed.Bytes()
}

func decompress(b []byte) (d document, err error) {
	r, err := gzip.NewReader(bytes.NewReader(b))
	if err != nil {
		return d, err
	}
	plain, err := io.ReadAll(io.LimitReader(r, maxDocument))
	switch {
	case err != nil:
		return d, err
	case len(plain) == maxDocument:
		return d, errors.New("it is too large")
	}
	return d, json.Unmarshal(plain, &d)
}

// commonEpoch returns the epoch of the first position, which nearly all positions have.
func commonEpoch(c Checkpoint) string {
	for _, sink := range slices.Sorted(maps.Keys(c.Sinks)) {
		for _, source := range slices.Sorted(maps.Keys(c.Sinks[sink])) {
			return c.Sinks[sink][source].Epoch.String()
		}
	}
	return ""
}
