//go:build e2e

package loki_test

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/hindsight-events/hindsight/event"
	"github.com/hindsight-events/hindsight/sink"
	"github.com/hindsight-events/hindsight/sink/loki"
	"github.com/hindsight-events/hindsight/test/cluster"
	"github.com/hindsight-events/hindsight/test/wait"
)

// A push of several streams loses entries behind a 204, even if each of its streams was accepted
// alone just before, its times only grow and its rate is low: Loki forgets a stream that it has
// flushed, and another writer may take its place below the limit of streams. Nothing in the
// response shows it. One push per stream shows it, and the delivery repeats the push.
func TestForgottenStreamInASharedPush(t *testing.T) {
	t.Parallel()
	l := cluster.LokiForTest(t, cluster.LokiOptions{Limits: map[string]any{"max_global_streams_per_user": 2}})
	s, err := loki.New(configFor(l), loki.Options{Name: "loki", Cluster: "e2e"})
	if err != nil {
		t.Fatal(err)
	}
	begin := time.Now().Add(-time.Minute)
	n := 0
	next := func(namespace string) event.Record {
		n++
		return makeRecord(n, begin.Add(time.Duration(n)*time.Second), func(e *corev1.Event) { e.Namespace = namespace })
	}
	push := func(records ...event.Record) *http.Response {
		t.Helper()
		return pushShared(t, l, s, records...)
	}
	stored := func(r event.Record) bool {
		t.Helper()
		return isStored(t, l, s, &r)
	}
	wantAccepted := func(r event.Record) *http.Response {
		t.Helper()
		resp := push(r)
		if resp.StatusCode != http.StatusNoContent || !stored(r) {
			t.Fatalf("Loki answers %s to a push of one stream", resp.Status)
		}
		return resp
	}

	wantAccepted(next("a"))
	forgetStreams(t, l)
	wantAccepted(next("other-writer"))
	alone := wantAccepted(next("b"))

	hidden, visible := next("a"), next("b")
	shared := push(hidden, visible)
	if shared.StatusCode != http.StatusNoContent {
		t.Fatalf("Loki answers %s to a push of two streams: it no longer hides the rejection of the first", shared.Status)
	}
	if !stored(visible) {
		t.Error("the last stream of the push is not stored")
	}
	if stored(hidden) {
		t.Error("the first stream of the push is stored, above the limit of streams")
	}
	shared.Header.Del("Date")
	alone.Header.Del("Date")
	if got, want := fmt.Sprint(shared.Header), fmt.Sprint(alone.Header); got != want {
		t.Errorf("the header of the response is %s, without a rejection it is %s", got, want)
	}

	// The same by the sink.
	d := deliver(t, configFor(l), func(limits *sink.Limits) { limits.BatchWait = 0 })
	records := []event.Record{next("a"), next("b")}
	d.add(records...)
	d.waitForError("maximum active stream limit exceeded")
	wait.Until(t, "the accepted stream is stored", func() bool { return stored(records[1]) })
	if stored(records[0]) {
		t.Error("the rejected stream is stored")
	}
	forgetStreams(t, l)
	d.finish()
	for _, r := range records {
		if !stored(r) {
			t.Errorf("lost: a record of the namespace %s", r.Event.Namespace)
		}
	}
	if dead := d.readDeadLetters(); len(dead) != 0 {
		t.Errorf("dead letters: %v", dead)
	}
}

// pushShared makes one push with a stream for each record.
func pushShared(t *testing.T, l *cluster.Loki, s *loki.Sink, records ...event.Record) *http.Response {
	t.Helper()
	var streams []loki.Stream
	for i := range records {
		streams = append(streams, loki.Stream{
			Labels: string(s.AppendStream(nil, &records[i])), Entry: s.AppendRecord(nil, &records[i]),
		})
	}
	resp, err := http.Post(l.URL()+"/loki/api/v1/push", "application/x-protobuf", bytes.NewReader(loki.EncodeShared(streams...)))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode == http.StatusNoContent && len(body) > 0 {
		t.Errorf("a response of 204 has the body %q", body)
	}
	return resp
}

// isStored reports whether Loki has an entry of the stream and time of a record.
func isStored(t *testing.T, l *cluster.Loki, s *loki.Sink, r *event.Record) bool {
	t.Helper()
	entries, err := l.Entries(t.Context(), string(s.AppendStream(nil, r)), r.Time, r.Time.Add(time.Nanosecond))
	if err != nil {
		t.Fatal(err)
	}
	return len(entries) > 0
}

// forgetStreams makes Loki flush all streams and remove them from memory, as it does with a stream
// that is idle or whose chunk is too old.
func forgetStreams(t *testing.T, l *cluster.Loki) {
	t.Helper()
	wait.Until(t, "Loki has no stream in memory", func() bool {
		if err := l.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		resp, err := http.Get(l.URL() + "/metrics")
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(body)) {
			if value, ok := strings.CutPrefix(line, `loki_ingester_memory_streams{tenant="fake"} `); ok {
				return strings.TrimSpace(value) == "0"
			}
		}
		return false
	})
}
