//go:build e2e

package e2e

import (
	"fmt"
	"maps"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/go-logfmt/logfmt"
	corev1 "k8s.io/api/core/v1"

	"github.com/hindsight-events/hindsight/test/cluster"
	"github.com/hindsight-events/hindsight/test/wait"
)

const clusterName = "e2e" // in all configurations

// lokiSink returns the configuration of a sink with further settings.
func lokiSink(url, more string) string {
	return fmt.Sprintf("  - {name: loki, loki: {url: %q, batch_wait: 200ms%s}}\n", url, more)
}

// testRange returns a time range that includes all Events of a test.
func testRange() (from, to time.Time) {
	now := time.Now()
	return now.Add(-4 * time.Hour), now.Add(time.Hour)
}

// allStored selects all streams of hindsight.
const allStored = `{job="hindsight"}`

// stored returns the entries that a query finds, oldest first, without the API server's
// own Events.
func stored(t *testing.T, store cluster.Store, query string) []cluster.LokiEntry {
	t.Helper()
	from, to := testRange()
	entries, err := store.Entries(t.Context(), query, from, to)
	if err != nil {
		t.Fatal(err)
	}
	return cluster.WithoutAPIServer(entries)
}

// value returns the only value that a metric query computes, 0 if it finds none.
func value(t *testing.T, l *cluster.Loki, query string) int {
	t.Helper()
	samples, err := l.Samples(t.Context(), query, time.Now().Add(time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	switch len(samples) {
	case 0:
		return 0
	case 1:
		return int(samples[0].Value)
	default:
		t.Fatalf("%s has %d values, want one", query, len(samples))
		return 0
	}
}

// awaitStored waits until a store has all states.
func awaitStored(t *testing.T, p *running, store cluster.Store, states map[string]*corev1.Event) {
	t.Helper()
	missing := len(states)
	if !wait.Within(t.Context(), 3*time.Minute, func() bool {
		have := map[string]bool{}
		for _, e := range stored(t, store, allStored) {
			have[keyOf(&e)] = true
		}
		missing = 0
		for key := range states {
			if !have[key] {
				missing++
			}
		}
		if missing > 0 {
			pause(t.Context(), 300*time.Millisecond) // reading all entries costs the store CPU
		}
		return missing == 0
	}) {
		t.Fatalf("after three minutes %d of %d states are not in %s", missing, len(states), store.Name())
	}
}

// keyOf returns the key of the state of an entry.
func keyOf(e *cluster.LokiEntry) string {
	return e.Metadata["event_uid"] + "@" + e.Metadata["event_version"]
}

// wantStored checks that the entries are the states, each once, complete and in order.
func wantStored(t *testing.T, entries []cluster.LokiEntry, states map[string]*corev1.Event) {
	t.Helper()
	const most = 10 // reported errors
	wrong := 0
	errorf := func(format string, args ...any) {
		t.Helper()
		if wrong++; wrong <= most {
			t.Errorf(format, args...)
		}
	}
	found := make(map[string]bool, len(entries))
	newest := map[time.Time]uint64{} // the newest version of each second, of states with a resolution of seconds
	for i := range entries {
		entry := &entries[i]
		key := keyOf(entry)
		e := states[key]
		switch {
		case e == nil:
			errorf("never written: %s %v %s", entry.Time, entry.Labels, entry.Line)
			continue
		case found[key]:
			errorf("twice: %s %s", entry.Time, entry.Line)
		}
		found[key] = true
		if diff := difference(entry, e); diff != "" {
			errorf("%s %v %v %s\ndiffers from the Event: %s", entry.Time, entry.Labels, entry.Metadata, entry.Line, diff)
		}
		if at, resolution := occurredAt(e); resolution == time.Second {
			version := mustParse(t, e.ResourceVersion)
			if version < newest[at] {
				errorf("%s is in front of an older state of the same second", key)
			}
			newest[at] = version
		}
	}
	for key, e := range states {
		if !found[key] {
			errorf("not stored: %s %s/%s %s, count %d, version %s", key, e.Namespace, e.Name, e.Reason, e.Count, e.ResourceVersion)
		}
	}
	if wrong > most {
		t.Errorf("… and %d more", wrong-most)
	}
}

func mustParse(t *testing.T, version string) uint64 {
	t.Helper()
	v, err := strconv.ParseUint(version, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// difference describes how an entry differs from its state.
func difference(entry *cluster.LokiEntry, e *corev1.Event) string {
	labels := map[string]string{
		"job": "hindsight", "cluster": clusterName, "namespace": e.Namespace, "reason": e.Reason,
	}
	if name, added := entry.Labels["service_name"]; added && name == "hindsight" { // by Loki
		labels["service_name"] = name
	}
	metadata := metadataOf(e)
	if entry.Labels["reason"] == "other" { // checked by TestMaxStreams
		labels["reason"], metadata["full_reason"] = "other", e.Reason
	}
	at, resolution := occurredAt(e)
	switch {
	case !maps.Equal(entry.Labels, labels):
		return fmt.Sprintf("labels %v", labels)
	case !maps.Equal(entry.Metadata, metadata):
		return fmt.Sprintf("metadata %v", metadata)
	case !entry.Time.Truncate(resolution).Equal(at):
		return fmt.Sprintf("time %s", at)
	}
	line, err := readLogfmt(entry.Line)
	if err != nil {
		return err.Error()
	}
	for name, want := range map[string]string{
		"msg": e.Message, "name": e.InvolvedObject.Name, "kind": e.InvolvedObject.Kind,
		"reason": e.Reason, "type": e.Type, "eventRV": e.ResourceVersion, "event": e.Name,
	} {
		if line[name] != want {
			return fmt.Sprintf("%s %q", name, want)
		}
	}
	return ""
}

// metadataOf returns the structured metadata of a state.
func metadataOf(e *corev1.Event) map[string]string {
	component, node, count, level := e.Source.Component, e.Source.Host, e.Count, "info"
	if component == "" {
		component = e.ReportingController
	}
	if node == "" && component == "kubelet" {
		node = e.ReportingInstance
	}
	if e.InvolvedObject.Kind == "Node" {
		node = e.InvolvedObject.Name
	}
	if e.Series != nil {
		count = e.Series.Count
	}
	if e.Type == corev1.EventTypeWarning || e.Reason == "BackOff" { // a default of levels
		level = "warn"
	}
	all := map[string]string{
		"component": component, "node": node, "detected_level": level, "type": e.Type,
		"kind": e.InvolvedObject.Kind, "name": e.InvolvedObject.Name, "uid": string(e.InvolvedObject.UID),
		"event_uid": string(e.UID), "event_version": e.ResourceVersion,
	}
	if count != 0 {
		all["count"] = strconv.Itoa(int(count))
	}
	maps.DeleteFunc(all, func(_, value string) bool { return value == "" })
	return all
}

// occurredAt returns the time of the newest occurrence of a state, and its resolution.
func occurredAt(e *corev1.Event) (time.Time, time.Duration) {
	switch {
	case e.Series != nil && !e.Series.LastObservedTime.IsZero():
		return e.Series.LastObservedTime.UTC(), time.Microsecond
	case !e.LastTimestamp.IsZero():
		return e.LastTimestamp.UTC(), time.Second
	case !e.EventTime.IsZero():
		return e.EventTime.UTC(), time.Microsecond
	default:
		return e.CreationTimestamp.UTC(), time.Second
	}
}

func readLogfmt(line string) (map[string]string, error) {
	values := map[string]string{}
	dec := logfmt.NewDecoderSize(strings.NewReader(line), len(line)+1)
	for dec.ScanRecord() {
		for dec.ScanKeyval() {
			values[string(dec.Key())] = string(dec.Value())
		}
	}
	return values, dec.Err()
}
