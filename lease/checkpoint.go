package lease

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/hindsight-events/hindsight/event"
)

// Checkpoint is what the Lease says beside who holds it.
type Checkpoint struct {
	// Sinks says how far each sink has accepted each source: sink -> source
	// (a namespace, or empty for all) -> position.
	Sinks map[string]map[string]event.Position

	// Gaps are the declared gaps, merged into at most eight.
	Gaps event.GapSet

	// RemovedSources says since when a source of Sinks has not been configured any more,
	// in whole seconds; see Prune.
	RemovedSources map[string]time.Time
}

// String shows how far each sink is, for a log line.
func (h Checkpoint) String() string {
	const most = 10
	var parts []string
	for _, sink := range slices.Sorted(maps.Keys(h.Sinks)) {
		for _, source := range slices.Sorted(maps.Keys(h.Sinks[sink])) {
			parts = append(parts, fmt.Sprintf("%s/%s=%s", sink, cmp.Or(source, all), h.Sinks[sink][source]))
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

	// version of what the annotation holds. It changes when a reader that does
	// not know of the change would lose something.
	version = 1

	// maxBytes of the annotation. Kubernetes refuses an object with more than
	// 256 KiB of annotations, keys included
	// (TotalAnnotationSizeLimitB in k8s.io/apimachinery/pkg/api/validation).
	maxBytes    = 192 << 10
	maxAllBytes = 256 << 10

	all = "*" // stands for all namespaces; no namespace can be called that
)

// document is the annotation:
//
//	{"v":1,"epoch":"<epoch>",
//	 "sinks":{"loki":{"*":{"version":812,"time":"2019-07-19T11:00:00Z"}}},
//	 "gaps":[{"from":{"version":100},"to":{"version":200},"cause":"too_old","missed_at_least":3}],
//	 "unlisted":{"team-a":"2019-07-19T11:00:00Z"}}
//
// An epoch that most positions share is said once.
type document struct {
	Version int                                        `json:"v"`
	Epoch   string                                     `json:"epoch,omitempty"`
	Sinks   map[string]map[string]event.StoredPosition `json:"sinks,omitempty"`
	Gaps    []gap                                      `json:"gaps,omitempty"`

	Unlisted map[string]event.StoredTime `json:"unlisted,omitempty"`
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

// encode returns the annotation that says h, with as many gaps as are kept. The
// same h gives the same bytes. With the error that they are too many it returns
// them all the same.
func encode(h Checkpoint) (string, error) {
	d := document{Version: version, Epoch: commonEpoch(h)}
	d.Sinks = make(map[string]map[string]event.StoredPosition, len(h.Sinks))
	for sink, positions := range h.Sinks {
		d.Sinks[sink] = make(map[string]event.StoredPosition, len(positions))
		for source, p := range positions {
			d.Sinks[sink][cmp.Or(source, all)] = p.Stored(d.Epoch)
		}
	}
	for _, g := range h.Gaps.Merge() {
		d.Gaps = append(d.Gaps, gap{
			Source: g.Source, Sink: g.Sink, Namespace: g.Namespace,
			From: g.From.Stored(d.Epoch), To: g.To.Stored(d.Epoch),
			Cause: string(g.Cause), MissedAtLeast: g.MissedAtLeast,
		})
	}
	for source, since := range h.RemovedSources {
		if d.Unlisted == nil {
			d.Unlisted = make(map[string]event.StoredTime, len(h.RemovedSources))
		}
		d.Unlisted[cmp.Or(source, all)] = event.StoredTime{Time: since}
	}
	b, err := json.Marshal(d)
	if err != nil {
		return "", fmt.Errorf("encode annotation %s: %w", annotation, err)
	}
	if len(b) > maxBytes {
		return string(b), fmt.Errorf("annotation %s would have %d bytes, more than the %d that are safe in a Lease: list fewer namespaces (or none, for all), or have fewer sinks", annotation, len(b), maxBytes)
	}
	return string(b), nil
}

// decode reads what encode wrote. An empty annotation holds nothing. What cannot
// be understood as a whole gives nothing and an error.
func decode(s string) (Checkpoint, error) {
	if s == "" {
		return Checkpoint{}, nil
	}
	var d document
	if err := json.Unmarshal([]byte(s), &d); err != nil {
		return Checkpoint{}, fmt.Errorf("decode annotation %s: %w", annotation, err)
	}
	if d.Version != version {
		return Checkpoint{}, fmt.Errorf("decode annotation %s: it has version %d, and this program knows %d", annotation, d.Version, version)
	}
	var h Checkpoint
	var bad error
	read := func(p event.StoredPosition, where string) event.Position {
		got, err := p.Position(d.Epoch)
		if err != nil {
			bad = fmt.Errorf("decode annotation %s: %s: %w", annotation, where, err)
		}
		return got
	}
	if len(d.Sinks) > 0 {
		h.Sinks = make(map[string]map[string]event.Position, len(d.Sinks))
	}
	for sink, positions := range d.Sinks {
		h.Sinks[sink] = make(map[string]event.Position, len(positions))
		for source, p := range positions {
			if source == all {
				source = ""
			}
			h.Sinks[sink][source] = read(p, "sink "+sink)
		}
	}
	for _, g := range d.Gaps {
		h.Gaps = append(h.Gaps, event.Gap{
			Source: g.Source, Sink: g.Sink, Namespace: g.Namespace,
			From: read(g.From, "gap"), To: read(g.To, "gap"),
			Cause: event.Cause(g.Cause), MissedAtLeast: g.MissedAtLeast,
		})
	}
	for source, since := range d.Unlisted {
		if h.RemovedSources == nil {
			h.RemovedSources = make(map[string]time.Time, len(d.Unlisted))
		}
		if source == all {
			source = ""
		}
		h.RemovedSources[source] = since.Time
	}
	if bad != nil {
		return Checkpoint{}, bad
	}
	return h, nil
}

// commonEpoch is that of the first position: almost always, of all.
func commonEpoch(h Checkpoint) string {
	for _, sink := range slices.Sorted(maps.Keys(h.Sinks)) {
		for _, source := range slices.Sorted(maps.Keys(h.Sinks[sink])) {
			return h.Sinks[sink][source].Epoch.String()
		}
	}
	return ""
}
