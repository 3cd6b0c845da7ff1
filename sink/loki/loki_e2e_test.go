//go:build e2e

package loki_test

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/hindsight-events/hindsight/event"
	"github.com/hindsight-events/hindsight/event/format"
	"github.com/hindsight-events/hindsight/sink"
	"github.com/hindsight-events/hindsight/sink/loki"
	"github.com/hindsight-events/hindsight/test/cluster"
)

// wantStored checks that Loki has each of the records once, unchanged, and nothing else.
func wantStored(t *testing.T, l *cluster.Loki, records []event.Record, metadata bool) {
	t.Helper()
	from, to := records[0].Time, records[0].Time
	for i := range records {
		if records[i].Time.Before(from) {
			from = records[i].Time
		}
		if records[i].Time.After(to) {
			to = records[i].Time
		}
	}
	to = to.Add(time.Nanosecond)
	entries, err := l.Entries(t.Context(), `{job="hindsight"}`, from, to)
	if err != nil {
		t.Fatal(err)
	}
	type key struct {
		at   int64
		line string
	}
	found := map[key]cluster.LokiEntry{}
	for _, e := range entries {
		k := key{e.Time.UnixNano(), e.Line}
		if _, twice := found[k]; twice {
			t.Errorf("twice: %s %s", e.Time, e.Line)
		}
		found[k] = e
	}
	if len(entries) != len(records) {
		t.Errorf("Loki has %d entries, want %d", len(entries), len(records))
	}
	missing := 0
	for i := range records {
		r := &records[i]
		line := string(format.Encoder{Format: format.Logfmt, Standalone: !metadata}.Append(nil, r))
		e, ok := found[key{r.Time.UnixNano(), line}]
		if !ok {
			if missing++; missing < 5 {
				t.Errorf("not found: %s %s", r.Time, line)
			}
			continue
		}
		labels := map[string]string{
			"job": "hindsight", "cluster": "e2e", "namespace": r.Event.Namespace,
			"reason": r.Event.Reason, "service_name": "hindsight",
		}
		if !maps.Equal(e.Labels, labels) {
			t.Fatalf("%s has the labels %v, want %v", line, e.Labels, labels)
		}
		want := map[string]string{}
		if metadata {
			for _, p := range r.AppendMetadata(nil, event.DefaultLabels) {
				want[p.Name] = p.Value
			}
			if !maps.Equal(e.Metadata, want) {
				t.Fatalf("%s has the metadata %v, want %v", line, e.Metadata, want)
			}
		}
	}
	if missing > 0 {
		t.Errorf("%d records are not in Loki", missing)
	}
	streams, err := l.Streams(t.Context(), `{job="hindsight"}`, from, to)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range streams {
		if _, sharded := s["__stream_shard__"]; sharded {
			t.Fatalf("Loki has split a stream: %v", s)
		}
	}
}

// recent returns n records of the last half hour, many a second.
func recent(n int) []event.Record {
	start := time.Now().Add(-30 * time.Minute)
	records := make([]event.Record, n)
	for i := range records {
		records[i] = makeRecord(i, start.Add(time.Duration(i)*20*time.Minute/time.Duration(n)), nil)
	}
	return records
}

func TestManyStreamsArriveUnchanged(t *testing.T) {
	t.Parallel()
	l := cluster.LokiForTest(t, cluster.LokiOptions{})
	d := deliver(t, configFor(l), nil)
	records := recent(20_000)
	d.add(records...)
	d.finish()
	wantStored(t, l, records, true)
	if err := l.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	// The level does not depend on the message.
	now := time.Now()
	samples, err := l.Samples(t.Context(), `sum by (detected_level) (count_over_time({job="hindsight"}[1h]))`, now)
	if err != nil {
		t.Fatal(err)
	}
	sum := map[string]int{}
	for _, s := range samples {
		sum[s.Labels["detected_level"]] = int(s.Value)
	}
	want := map[string]int{}
	for i := range records {
		want[records[i].Value(event.FieldDetectedLevel)]++
	}
	if !maps.Equal(sum, want) {
		t.Errorf("levels are %v, want %v", sum, want)
	}
}

func TestOneBusyStreamIsNotSplit(t *testing.T) {
	t.Parallel()
	l := cluster.LokiForTest(t, cluster.LokiOptions{})
	c := configFor(l)
	c.MaxRate = 0
	d := deliver(t, c, nil)
	start := time.Now().Add(-20 * time.Minute)
	var records []event.Record
	for i := range 9000 { // 9 MiB of one stream
		records = append(records, makeRecord(i, start.Add(time.Duration(i/20)*time.Second), func(e *corev1.Event) {
			e.Namespace, e.Reason = "busy", "BackOff"
			e.Message = fmt.Sprintf("%d %s", i, strings.Repeat("0123456789", 60))
		}))
	}
	d.add(records...)
	d.finish()
	wantStored(t, l, records, true)
}

func TestEntriesOfRejectedAgeAreDeadLetters(t *testing.T) {
	t.Parallel()
	l := cluster.LokiForTest(t, cluster.LokiOptions{})
	d := deliver(t, configFor(l), func(limits *sink.Limits) { limits.BatchWait = 3 * time.Second })
	now := time.Now()
	var good, bad []event.Record
	stream := func(e *corev1.Event) { e.Namespace, e.Reason = "ages", "Aged" }
	for i := range 40 {
		bad = append(bad, makeRecord(i, now.Add(-8*24*time.Hour+time.Duration(i/4)*time.Second), stream))
	}
	for i := 100; i < 140; i++ {
		good = append(good, makeRecord(i, now.Add(-time.Minute), stream))
	}
	for i := 200; i < 220; i++ {
		bad = append(bad, makeRecord(i, now.Add(time.Hour), stream))
	}
	gap := event.NewGap(event.Gap{Namespace: "ages", Cause: event.CauseTooOld}) // without any time
	d.add(slices.Concat(bad[:40], good, bad[40:], []event.Record{gap})...)
	d.finish()
	wantStored(t, l, good, true)
	wantDeadLetters(t, d, append(bad, gap), "has timestamp too ")
}

func TestEntriesTooFarBehindAreDeadLetters(t *testing.T) {
	t.Parallel()
	l := cluster.LokiForTest(t, cluster.LokiOptions{})
	for name, count := range map[string]int{"few": 3, "more than Loki names": 60} {
		t.Run(name, func(t *testing.T) {
			stream := func(e *corev1.Event) { e.Namespace, e.Reason = "behind-"+strings.Fields(name)[0], "Behind" }
			d := deliver(t, configFor(l), func(limits *sink.Limits) { limits.BatchWait = 2 * time.Second })
			now := time.Now()
			var good, bad []event.Record
			good = append(good, makeRecord(0, now, stream))
			for i := 1; i <= count; i++ {
				bad = append(bad, makeRecord(i, now.Add(-3*time.Hour+time.Duration(i)*time.Second), stream))
				good = append(good, makeRecord(1000+i, now.Add(-10*time.Minute+time.Duration(i)*time.Second), stream))
			}
			var mixed []event.Record
			for i := range bad {
				mixed = append(mixed, good[i], bad[i])
			}
			d.add(append(mixed, good[count:]...)...)
			d.finish()
			wantDeadLetters(t, d, bad, "entry too far behind")
			entries, err := l.Entries(t.Context(), fmt.Sprintf(`{namespace="behind-%s"}`, strings.Fields(name)[0]), now.Add(-4*time.Hour), now.Add(time.Hour))
			if err != nil || len(entries) != len(good) {
				t.Errorf("Loki has %d entries, %v; want %d", len(entries), err, len(good))
			}
		})
	}
}

// wantDeadLetters checks that each of the records has one dead letter, with a message.
func wantDeadLetters(t *testing.T, d *pipeline, records []event.Record, message string) {
	t.Helper()
	got := map[string]int{}
	for _, l := range d.readDeadLetters() {
		got[l.Entry.Line]++
		if l.Status != http.StatusBadRequest || !strings.Contains(l.Error, message) || l.Labels == "" {
			t.Errorf("dead letter has %d %q for stream %s, want 400 and %q", l.Status, l.Error, l.Labels, message)
		}
	}
	for i := range records {
		line := string(format.Encoder{Format: format.Logfmt}.Append(nil, &records[i]))
		if got[line] != 1 {
			t.Errorf("%d dead letters of %s, want 1", got[line], line)
		}
		delete(got, line)
	}
	for line := range got {
		t.Errorf("a dead letter of %s, which is stored", line)
	}
}

func TestRateLimitsLoseNothing(t *testing.T) {
	t.Parallel()
	for name, limits := range map[string]map[string]any{
		"of a stream":                 {"per_stream_rate_limit": "64KB", "per_stream_rate_limit_burst": "64KB"},
		"of a stream, entry by entry": {"per_stream_rate_limit": "64KB", "per_stream_rate_limit_burst": "64KB", "shard_streams": map[string]any{"enabled": false}},
		"of the tenant":               {"ingestion_rate_mb": 0.25, "ingestion_burst_size_mb": 0.125},
		"of streams":                  {"max_global_streams_per_user": 1000},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := cluster.LokiForTest(t, cluster.LokiOptions{Limits: limits})
			d := deliver(t, configFor(l), nil)
			start := time.Now().Add(-20 * time.Minute)
			var records []event.Record
			for i := range 1500 {
				records = append(records, makeRecord(i, start.Add(time.Duration(i/20)*time.Second), func(e *corev1.Event) {
					e.Namespace, e.Reason = fmt.Sprintf("ns-%d", i%2), "BackOff"
					e.Message = fmt.Sprintf("%d %s", i, strings.Repeat("0123456789", 40))
				}))
			}
			d.add(records...)
			d.finish()
			wantStored(t, l, records, true)
			if dead := d.readDeadLetters(); len(dead) != 0 {
				t.Errorf("dead letters: %v", dead)
			}
		})
	}
}

// Each of these settings blocks the delivery with a clear error until it is corrected.
func TestWrongSettingsLoseNothing(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		limits  map[string]any
		message string
	}{
		"ingestion blocked, with the status 260": {
			map[string]any{"block_ingestion_until": time.Now().Add(time.Hour).UTC().Format(time.RFC3339)},
			"block_ingestion_until",
		},
		"ingestion blocked, with the status 400": {
			map[string]any{"block_ingestion_until": time.Now().Add(time.Hour).UTC().Format(time.RFC3339), "block_ingestion_status_code": 400},
			"block_ingestion_until",
		},
		"no structured metadata": {map[string]any{"allow_structured_metadata": false}, "set structured_metadata: false"},
		"fewer labels allowed":   {map[string]any{"max_label_names_per_series": 2}, "labels exceed the limits"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := cluster.LokiForTest(t, cluster.LokiOptions{Limits: c.limits})
			d := deliver(t, configFor(l), nil)
			records := recent(50)
			d.add(records...)
			d.waitForError(c.message)
			l.Kill()
			l.SetLimits(nil)
			if err := l.Start(t.Context()); err != nil {
				t.Fatal(err)
			}
			d.finish()
			wantStored(t, l, records, true)
			if dead := d.readDeadLetters(); len(dead) != 0 {
				t.Errorf("dead letters: %v", dead)
			}
		})
	}
}

func TestWithoutStructuredMetadata(t *testing.T) {
	t.Parallel()
	l := cluster.LokiForTest(t, cluster.LokiOptions{Limits: map[string]any{"allow_structured_metadata": false, "discover_log_levels": false}})
	c := configFor(l)
	c.StructuredMetadata = false
	d := deliver(t, c, nil)
	records := recent(50)
	d.add(records...)
	d.finish()
	wantStored(t, l, records, false)
}

func TestLabelValuesOfAnyBytes(t *testing.T) {
	t.Parallel()
	l := cluster.LokiForTest(t, cluster.LokiOptions{})
	c := configFor(l)
	c.Labels, c.Line = map[string]string{"kind": "kind"}, loki.LineShort
	d := deliver(t, c, nil)
	var records []event.Record
	for i, kind := range []string{"a\uFFFDb", "\xff\xfe", "\x00", "\"'\\}", "\uFEFF\u2028\n", "{é}", "\U0010FFFF\uFFFE"} {
		records = append(records, makeRecord(i, time.Now().Add(-time.Minute), func(e *corev1.Event) { e.InvolvedObject.Kind = kind }))
	}
	d.add(records...)
	d.finish()
	entries, err := l.Entries(t.Context(), `{job="hindsight"}`, time.Now().Add(-time.Hour), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) != len(records) {
		t.Errorf("%d of %d are in Loki: %v", len(entries), len(records), entries)
	}
	// Labels and metadata have other characters, but the line has the Event's own.
	for _, e := range entries {
		r, err := format.Parser{Labels: c.Labels}.Parse(format.Entry{Time: e.Time, Line: e.Line, Labels: e.Labels, Metadata: e.Metadata})
		i := slices.IndexFunc(records, func(sent event.Record) bool { return sent.Position.Version == r.Position.Version })
		if want := string([]rune(records[i].Event.InvolvedObject.Kind)); err != nil || r.Event.InvolvedObject.Kind != want {
			t.Errorf("%v: kind %q, want %q", err, r.Event.InvolvedObject.Kind, want)
		}
	}
	if letters := d.readDeadLetters(); len(letters) > 0 {
		t.Errorf("dead letters: %+v", letters)
	}
}

func TestTenant(t *testing.T) {
	t.Parallel()
	l := cluster.LokiForTest(t, cluster.LokiOptions{Auth: true})
	l.Tenant = "team-a"
	without := deliver(t, configFor(l), nil)
	records := recent(10)
	without.add(records...)
	without.waitForError("set tenant_id")

	c := configFor(l)
	c.TenantID = "team-a"
	d := deliver(t, c, nil)
	d.add(records...)
	d.finish()
	wantStored(t, l, records, true)
}

func TestWrongPath(t *testing.T) {
	t.Parallel()
	l := cluster.LokiForTest(t, cluster.LokiOptions{})
	c := configFor(l)
	c.URL += "/loki/push"
	d := deliver(t, c, nil)
	d.add(recent(10)...)
	d.waitForError("check the path of the url")
}

func TestLokiOutages(t *testing.T) {
	t.Parallel()
	l := cluster.StoppedLokiForTest(t, cluster.LokiOptions{})
	c := configFor(l)
	c.Timeout = 2e9
	d := deliver(t, c, nil)
	records := recent(6000)
	d.add(records[:2000]...)
	d.waitForError("connection refused")
	if err := l.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	d.add(records[2000:4000]...)
	l.Kill() // at any moment
	d.waitForError("push to")
	if err := l.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := l.Pause(); err != nil {
		t.Fatal(err)
	}
	d.add(records[4000:]...)
	d.waitForError("no response in time")
	if err := l.Resume(); err != nil {
		t.Fatal(err)
	}
	d.finish()
	wantStored(t, l, records, true)
}

// Rejections of a real Loki can be parsed.
func TestMessagesOfLoki(t *testing.T) {
	t.Parallel()
	l := cluster.LokiForTest(t, cluster.LokiOptions{Limits: map[string]any{"max_line_size": "300", "max_structured_metadata_entries_count": 100}})
	c := configFor(l)
	s, err := loki.New(c, loki.Options{Name: "loki"})
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	stream := func(e *corev1.Event) { e.Namespace, e.Reason = "words", "Words" }
	long := func(e *corev1.Event) { stream(e); e.Message = strings.Repeat("x", 400) }
	for name, records := range map[string][]event.Record{
		"ages":   {makeRecord(1, now.Add(-200*time.Hour), stream), makeRecord(2, now.Add(-200*time.Hour), stream), makeRecord(3, now.Add(time.Hour), stream)},
		"long":   {makeRecord(4, now, long)},
		"behind": {makeRecord(5, now, stream), makeRecord(6, now.Add(-3*time.Hour), stream)},
	} {
		b := &sink.Batch{}
		for i := range records {
			b.Stream = string(s.AppendStream(nil, &records[i]))
			b.Data = s.AppendRecord(b.Data, &records[i])
			b.Ends = append(b.Ends, len(b.Data))
		}
		resp, err := http.Post(l.URL()+"/loki/api/v1/push", "application/x-protobuf", bytes.NewReader(loki.Encode(b.Stream, b.Data)))
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%s: %d %q", name, resp.StatusCode, body)
		if !loki.ParsesRejection(string(body)) {
			t.Errorf("%s: cannot parse %d %s", name, resp.StatusCode, body)
		}
	}
}
