package router

import (
	"bytes"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"reflect"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/hindsight-events/hindsight/event"
)

// record returns a record with the namespace and reason.
func record(version uint64, namespace, reason string) event.Record {
	return event.New(&corev1.Event{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: namespace, Name: "x", ResourceVersion: fmt.Sprint(version),
			CreationTimestamp: metav1.Unix(1563535200, 0),
		},
		Reason: reason,
	})
}

func deletion(version uint64) event.Record {
	return event.Record{Position: event.Position{Version: version}}
}

// versions returns the versions of the records, in parentheses without an Event.
func versions(records []event.Record) string {
	var s []string
	for i := range records {
		v := fmt.Sprint(records[i].Position.Version)
		if records[i].PositionOnly() {
			v = "(" + v + ")"
		}
		s = append(s, v)
	}
	return strings.Join(s, " ")
}

func TestDroppedRecordsOnlyMoveThePosition(t *testing.T) {
	in := NewIntake(IntakeOptions{Drop: mustParse(t, `{namespace="kube-system", reason=~"Pulled|Created"}`, `{message="noise"}`)})
	dropped := record(7, "kube-system", "Pulled")
	dropped.Source, dropped.OnlySink, dropped.Position.ListVersion = "kube-system", "loki", 9
	got := in.Apply([]event.Record{dropped})
	want := event.Record{Source: "kube-system", OnlySink: "loki", Position: dropped.Position}
	if len(got) != 1 || !reflect.DeepEqual(got[0], want) {
		t.Errorf("got %+v, want %+v", got, want)
	}

	got = in.Apply([]event.Record{record(8, "kube-system", "Killing"), record(9, "default", "Pulled")})
	if versions(got) != "8 9" {
		t.Errorf("others are kept: got %s", versions(got))
	}
}

func TestDropMatchesBeforeRedaction(t *testing.T) {
	in := NewIntake(IntakeOptions{
		Drop:   mustParse(t, `{message=~".*querier-7.*"}`),
		Redact: mustRedact(t, `querier-\d+`, `querier`),
	})
	if got := in.Apply([]event.Record{preempted()}); !got[0].PositionOnly() {
		t.Errorf("not dropped: %v", got[0].Event.Message)
	}
}

func TestSupersededPositionsAreOmitted(t *testing.T) {
	gap := event.NewGap(event.Gap{From: event.Position{Version: 3}, To: event.Position{Version: 9}})
	elsewhere := deletion(5)
	elsewhere.Source = "team-a"
	addressed := record(6, "a", "Killing")
	addressed.OnlySink = "loki"
	for _, tt := range []struct {
		name    string
		records []event.Record
		want    string
	}{
		{"nothing", nil, ""},
		{"deletions in a row", []event.Record{deletion(1), deletion(2), deletion(3)}, "(3)"},
		{"before an Event", []event.Record{deletion(1), deletion(2), record(3, "a", "Killing")}, "3"},
		{"after an Event", []event.Record{record(1, "a", "Killing"), deletion(2), deletion(3)}, "1 (3)"},
		{"between Events", []event.Record{deletion(1), record(2, "a", "Killing"), deletion(3), record(4, "a", "Killing")}, "2 4"},
		{"a dropped Event among them", []event.Record{deletion(1), record(2, "noise", "Killing"), deletion(3)}, "(3)"},
		{"a gap record does not supersede", []event.Record{deletion(4), gap}, "(4) 3"},
		{"another source does not supersede", []event.Record{deletion(4), elsewhere, deletion(6)}, "(4) (5) (6)"},
		{"a record for one sink does not supersede", []event.Record{deletion(5), addressed}, "(5) 6"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			in := NewIntake(IntakeOptions{Drop: mustParse(t, `{namespace="noise"}`)})
			kept := in.Apply(tt.records)
			if got := versions(kept); got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
			for _, r := range tt.records[len(kept):] {
				if r.Event != nil {
					t.Errorf("an Event is still referenced: %v", r.Event)
				}
			}
		})
	}
}

func TestGapRecordsPassUnchanged(t *testing.T) {
	in := NewIntake(IntakeOptions{
		Drop:       mustParse(t, `{reason=~".*"}`),
		Redact:     mustRedact(t, `.+`, `…`),
		MaxStreams: 1,
	})
	in.Apply([]event.Record{record(1, "a", "Killing")})
	g := event.Gap{Namespace: "hindsight", To: event.Position{Version: 9}, Cause: event.CauseTooOld}
	got, want := in.Apply([]event.Record{event.NewGap(g)}), event.NewGap(g)
	if len(got) != 1 || got[0].Event.String() != want.Event.String() || reasonLabel(&got[0]) != event.GapReason {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestReasonLabel(t *testing.T) {
	long := "A" + strings.Repeat("a", 63)
	for reason, want := range map[string]string{
		"BackOff":                      "BackOff",
		"FailedScheduling":             "FailedScheduling",
		"NodeNotReady":                 "NodeNotReady",
		"FailedToUpdateEndpointSlices": "FailedToUpdateEndpointSlices",
		"CIDRAssignmentFailed":         "CIDRAssignmentFailed",
		"EvictedByVPA":                 "EvictedByVPA",
		"HTTPRouteUpdated":             "HTTPRouteUpdated",
		"Sync":                         "Sync",
		"CREATE":                       "CREATE", // ingress-nginx
		"DNSConfigForming":             "DNSConfigForming",
		"Restarted3Times":              "Restarted3Times",
		long:                           long,
		long + "a":                     "other",
		"":                             "other",
		"other":                        "other",
		"info":                         "other",
		"New Member Added":             "other", // etcd-operator
		"pod-7f9c-evicted":             "other",
		"Evicted_7":                    "other",
		"3Retries":                     "other",
		"Évincé":                       "other",
		"Bad\"}\n":                     "other",
	} {
		got := NewIntake(IntakeOptions{}).Apply([]event.Record{record(1, "a", reason)})[0]
		if label := reasonLabel(&got); label != want {
			t.Errorf("reason %q: got label %q, want %q", reason, label, want)
		}
		if got.Event.Reason != reason {
			t.Errorf("reason %q: the Event's reason changed to %q", reason, got.Event.Reason)
		}
	}
}

// reasonLabel returns the reason label of a sink with default labels.
func reasonLabel(r *event.Record) string {
	return r.Label(event.FieldReason, r.KeptLabels(event.DefaultLabels))
}

// labelOf returns the reason label of a new record.
func labelOf(in *Intake, namespace, reason string) string {
	return reasonLabel(&in.Apply([]event.Record{record(1, namespace, reason)})[0])
}

func TestMaxStreams(t *testing.T) {
	in := NewIntake(IntakeOptions{MaxStreams: 2})
	for _, tt := range []struct{ namespace, reason, want string }{
		{"a", "Killing", "Killing"},
		{"a", "no reason", "other"}, // does not count
		{"b", "Killing", "Killing"},
		{"c", "Killing", "other"},
		{"a", "Evicted", "other"},
		{"a", "Killing", "Killing"},
		{"b", "Killing", "Killing"},
	} {
		if got := labelOf(in, tt.namespace, tt.reason); got != tt.want {
			t.Errorf("%s/%s: got %q, want %q", tt.namespace, tt.reason, got, tt.want)
		}
	}
}

func TestStreamsExpireAfterAnHour(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in := NewIntake(IntakeOptions{MaxStreams: 2})
		check := func(namespace, want string) {
			t.Helper()
			if got := labelOf(in, namespace, "Killing"); got != want {
				t.Errorf("%s: got %q, want %q", namespace, got, want)
			}
		}
		check("unused", "Killing")
		time.Sleep(20 * time.Minute)
		check("used", "Killing")
		check("new", "other")
		time.Sleep(40*time.Minute - time.Nanosecond)
		check("new", "other")
		check("used", "Killing")
		time.Sleep(time.Nanosecond)
		check("new", "Killing")
		check("unused", "other")
		check("used", "Killing")
		time.Sleep(30 * time.Minute)
		check("third", "other") // an hour after the first use of "used", not after its last
		time.Sleep(time.Hour)
		check("third", "Killing")
		check("fourth", "Killing")
		check("used", "other")
	})
}

func TestStormOfReasonsIsLimited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const (
			namespaces = 2000
			maxStreams = 300
		)
		random := rand.New(rand.NewPCG(1, 2))
		garbage := func() string {
			b := make([]byte, random.IntN(12))
			for i := range b {
				b[i] = "ABCabc019-_ \n\"\xff"[random.IntN(15)]
			}
			return string(b)
		}
		in := NewIntake(IntakeOptions{MaxStreams: maxStreams})
		type pair struct{ namespace, label string }
		pairs := map[pair]bool{}
		named := 0
		for range 50 {
			var batch []event.Record
			for range 1000 {
				reason := garbage()
				if random.IntN(2) == 0 {
					reason = fmt.Sprintf("Storm%d", random.Uint32())
				}
				batch = append(batch, record(1, fmt.Sprintf("ns-%d", random.IntN(namespaces)), reason))
			}
			for _, r := range in.Apply(batch) {
				if p := (pair{r.Event.Namespace, reasonLabel(&r)}); !pairs[p] {
					pairs[p] = true
					if p.label != event.OtherLabel {
						named++
					}
				}
			}
			time.Sleep(time.Minute) // 50 minutes in total: nothing expires
		}
		if named != maxStreams {
			t.Errorf("%d pairs have a reason of their own, want max_streams, %d", named, maxStreams)
		}
		if len(pairs) > maxStreams+namespaces {
			t.Errorf("%d label sets, want at most %d", len(pairs), maxStreams+namespaces)
		}
		if n := len(in.limiter.sets[0].lastUsed); n > maxStreams {
			t.Errorf("%d pairs are remembered, want at most %d", n, maxStreams)
		}
	})
}

func TestMaxStreamsIsLoggedOncePerStorm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		in := NewIntake(IntakeOptions{
			MaxStreams: 1, Logger: slog.New(slog.NewTextHandler(&log, nil)),
			Labels: []SinkLabels{{Sink: "loki", Fields: event.DefaultLabels}},
		})
		labelOf(in, "a", "Killing")
		storm := func(wantLines int) {
			t.Helper()
			for range 3 {
				labelOf(in, "a", "Evicted")
			}
			if got := strings.Count(log.String(), "max_streams is reached"); got != wantLines {
				t.Errorf("%d lines, want %d:\n%s", got, wantLines, &log)
			}
		}
		storm(1)
		for range 2 {
			time.Sleep(59 * time.Minute)
			labelOf(in, "a", "Killing") // stays in use
			storm(1)
		}
		time.Sleep(59 * time.Minute)
		labelOf(in, "a", "Killing")
		time.Sleep(2 * time.Minute)
		storm(2)
	})
}

func TestIntakeMetrics(t *testing.T) {
	reg := prometheus.NewRegistry()
	in := NewIntake(IntakeOptions{
		Drop:       mustParse(t, `{namespace="noise"}`),
		Redact:     mustRedact(t, `querier-\d+`, `…`),
		MaxStreams: 1,
		Registerer: reg,
	})
	count := func(dropped, malformed, tooMany, redacted int) {
		t.Helper()
		want := fmt.Sprintf(`
# HELP hindsight_intake_dropped_total States dropped by a rule.
# TYPE hindsight_intake_dropped_total counter
hindsight_intake_dropped_total %d
# HELP hindsight_intake_other_labels_total States with a label "other", by cause: the reason is not CamelCase of at most 64 characters (malformed), or max_streams is reached.
# TYPE hindsight_intake_other_labels_total counter
hindsight_intake_other_labels_total{cause="malformed"} %d
hindsight_intake_other_labels_total{cause="max_streams"} %d
# HELP hindsight_intake_redacted_total States changed by a redaction.
# TYPE hindsight_intake_redacted_total counter
hindsight_intake_redacted_total %d
`, dropped, malformed, tooMany, redacted)
		if err := testutil.GatherAndCompare(reg, strings.NewReader(want)); err != nil {
			t.Error(err)
		}
	}
	count(0, 0, 0, 0)
	in.Apply([]event.Record{
		preempted(), deletion(2), record(3, "noise", "x"), record(4, "noise", "x"), record(5, "noise", "x"),
		record(6, "a", "x y"), record(7, "a", ""), record(8, "a", "Killing"),
	})
	count(3, 2, 1, 1)
}

func TestApplyDoesNotAllocate(t *testing.T) {
	in := NewIntake(IntakeOptions{
		Drop:   mustParse(t, `{namespace=~"kube-.*"}`, `{reason=~"Pulled|Created"}`),
		Redact: mustRedact(t, `token=\S+`, `…`),
	})
	records := []event.Record{preempted()}
	// With the race detector, regexp's sync.Pool drops items at random.
	if n := testing.AllocsPerRun(100, func() { in.Apply(records) }); n > 1 {
		t.Errorf("%v allocations", n)
	}
}

func TestSourcesShareTheLimit(t *testing.T) {
	in := NewIntake(IntakeOptions{MaxStreams: 100})
	var (
		wg sync.WaitGroup
		mu sync.Mutex // guards labels
	)
	labels := map[string]bool{}
	for source := range 4 {
		wg.Go(func() {
			for i := range 200 {
				l := labelOf(in, "a", fmt.Sprintf("Storm%d", source*50+i))
				mu.Lock()
				labels[l] = true
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if len(labels) != 101 {
		t.Errorf("%d labels, want max_streams and other", len(labels))
	}
}

func BenchmarkApply(b *testing.B) {
	for _, bm := range []struct {
		name string
		o    IntakeOptions
	}{
		{"no rules", IntakeOptions{}},
		{"levels", IntakeOptions{Levels: DefaultLevels()}},
		{"drop and redact", IntakeOptions{
			Drop:   mustParse(b, `{namespace=~"kube-.*", reason=~"Pulled|Created"}`, `{type="Normal"}`),
			Redact: mustRedact(b, `token=\S+`, `…`),
		}},
	} {
		b.Run(bm.name, func(b *testing.B) {
			in := NewIntake(bm.o)
			records := make([]event.Record, 512)
			for i := range records {
				records[i] = preempted()
				records[i].Event.Namespace = fmt.Sprintf("team-%d", i%100)
			}
			b.ReportAllocs()
			n := 0
			for b.Loop() {
				in.Apply(records)
				n += len(records)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(n), "ns/record")
		})
	}
	b.Run("all streams in any order", func(b *testing.B) {
		in := NewIntake(IntakeOptions{})
		records := make([]event.Record, 10*DefaultMaxStreams)
		for i := range records {
			records[i] = record(1, fmt.Sprintf("team-%d", rand.N(DefaultMaxStreams)), "Killing")
		}
		b.ReportAllocs()
		n := 0
		for b.Loop() {
			in.Apply(records)
			n += len(records)
		}
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(n), "ns/record")
	})
	b.Run("storm of new reasons", func(b *testing.B) {
		in := NewIntake(IntakeOptions{})
		for i := range DefaultMaxStreams {
			labelOf(in, "a", fmt.Sprintf("Reason%d", i))
		}
		records := []event.Record{record(1, "a", "New")}
		for b.Loop() {
			in.Apply(records)
		}
	})
}
