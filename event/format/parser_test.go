package format

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/hindsight-events/hindsight/event"
)

// records returns the records of testdata and a gap record.
func records(t testing.TB) map[string]event.Record {
	t.Helper()
	inputs, err := filepath.Glob("../testdata/*/input.json")
	if err != nil || len(inputs) < 5 {
		t.Fatalf("%d inputs: %v", len(inputs), err)
	}
	all := map[string]event.Record{
		"a gap": event.NewGap(event.Gap{
			Namespace: "monitoring", Cause: event.CauseTooOld, MissedAtLeast: 3,
			From: event.Position{Version: 10}, To: event.Position{Version: 20},
		}),
	}
	for _, path := range inputs {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		e := &corev1.Event{}
		if err := json.Unmarshal(data, e); err != nil {
			t.Fatal(err)
		}
		all[filepath.Base(filepath.Dir(path))] = event.New(e)
	}
	enriched := all["core-recorder-counted"]
	enriched.Attributes = []event.Pair{{Name: "app", Value: "web"}, {Name: "runbook", Value: `a "b" {c="d"}, é` + "\n…"}, {Name: "workload_kind", Value: "Deployment"}, {Name: "workload_name", Value: "web"}}
	all["attributes"] = enriched
	return all
}

// entry returns the entry that a sink stores for a record.
func entry(r event.Record, f Format, metadata bool) Entry {
	return entryOf(r, Encoder{Format: f, Standalone: !metadata})
}

func entryOf(r event.Record, enc Encoder) Entry {
	e := Entry{
		Time:   r.Time,
		Line:   string(enc.Append(nil, &r)),
		Labels: map[string]string{"namespace": valid(r.Event.Namespace), "reason": valid(r.Event.Reason)},
	}
	if !enc.Standalone {
		e.Metadata = map[string]string{}
		for _, p := range r.AppendMetadata(nil, event.DefaultLabels) {
			e.Metadata[p.Name] = p.Value
		}
	}
	return e
}

func valid(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }

// Labels and metadata have all fields, in any format.
func TestFieldsFromLabelsAndMetadata(t *testing.T) {
	for name, r := range records(t) {
		for _, f := range formats {
			got, err := Parser{}.Parse(entry(r, f, true))
			if err != nil {
				t.Errorf("%s in %s: %v", name, f, err)
				continue
			}
			for field := event.FieldNamespace; field.String() != ""; field++ {
				want := valid(r.Value(field))
				if field >= event.FieldFullReason {
					continue
				}
				if v := valid(got.Value(field)); v != want {
					t.Errorf("%s in %s: %s is %q, want %q", name, f, field, v, want)
				}
			}
			if !got.Time.Equal(r.Time) || got.WholeEvent != (f == EventRouter) || got.Gap != r.Gap {
				t.Errorf("%s in %s: time %s, whole %v, gap %v", name, f, got.Time, got.WholeEvent, got.Gap)
			}
		}
	}
}

// The level is the stored one, whatever the type.
func TestStoredLevel(t *testing.T) {
	for name, r := range records(t) {
		for _, f := range formats {
			for _, level := range []event.Level{event.LevelOfType, event.LevelDebug, event.LevelInfo, event.LevelWarn, event.LevelError, event.LevelCritical} {
				r.Level = level
				want := r.Value(event.FieldDetectedLevel)
				for _, metadata := range []bool{true, false} {
					if !metadata && (f == EventRouter || f == Text) {
						continue // the line has no level
					}
					got, err := Parser{}.Parse(entry(r, f, metadata))
					if err != nil || got.Value(event.FieldDetectedLevel) != want || got.Event.Type != valid(r.Event.Type) && f != EventRouter {
						t.Errorf("%s in %s, metadata %v: %v: level %s, type %s, want %s", name, f, metadata, err, got.Value(event.FieldDetectedLevel), got.Event.Type, want)
					}
				}
			}
		}
	}
}

// Encoding a parsed standalone line gives the same line.
func TestStandaloneRoundTrip(t *testing.T) {
	for name, r := range records(t) {
		for _, f := range formats {
			want := string(Encoder{Format: f, Standalone: true}.Append(nil, &r))
			if r.Time.IsZero() && f == Text {
				continue // a standalone text line is recognized by its time
			}
			got, err := Parser{}.Parse(Entry{Line: want})
			if err != nil {
				t.Errorf("%s in %s: %v", name, f, err)
				continue
			}
			if again := string(Encoder{Format: f, Standalone: true}.Append(nil, &got.Record)); again != want {
				t.Errorf("%s in %s:\n%s\nbecomes\n%s", name, f, want, again)
			}
		}
	}
}

// A short line and its metadata have the fields of the full line and its metadata.
func TestShortLines(t *testing.T) {
	for name, r := range records(t) {
		checkShortLines(t, name, r)
	}
	for i := range 2 * 3 * 3 * 3 * 3 {
		choose := func(values ...string) string {
			v := values[i%len(values)]
			i /= len(values)
			return v
		}
		r := event.New(&corev1.Event{
			InvolvedObject:      corev1.ObjectReference{Kind: choose("Pod", "Node"), Name: "n-1"},
			Source:              corev1.EventSource{Component: choose("", "kubelet", "x"), Host: choose("", "n-1", "n-2")},
			ReportingController: choose("", "kubelet", "x"), ReportingInstance: choose("", "n-1", "n-2"),
		})
		checkShortLines(t, "the reporter", r)
	}
	// Values that the metadata truncates stay in the line.
	long := strings.Repeat("x", event.MaxMetadataValue+1)
	r := event.New(&corev1.Event{
		InvolvedObject: corev1.ObjectReference{Kind: long, Name: long},
		Source:         corev1.EventSource{Component: long, Host: long}, ReportingController: long, ReportingInstance: long,
	})
	if line := entryOf(r, Encoder{Short: true}).Line; strings.Count(line, long) != 6 {
		t.Errorf("%d long values are in the line", strings.Count(line, long))
	}
	// So do values in which Loki replaces U+FFFD.
	r = event.New(&corev1.Event{
		InvolvedObject: corev1.ObjectReference{Kind: "a\xff", Name: "b\uFFFD"},
		Source:         corev1.EventSource{Component: "c\uFFFD", Host: "d\uFFFD"}, ReportingController: "c\uFFFD",
	})
	e := entryOf(r, Encoder{Short: true})
	for name, value := range e.Metadata {
		e.Metadata[name] = strings.ReplaceAll(value, "\uFFFD", " ")
	}
	got, err := Parser{}.Parse(e)
	if o := got.Event.InvolvedObject; err != nil || o.Kind != "a\uFFFD" || o.Name != "b\uFFFD" ||
		got.Event.Source != r.Event.Source || got.Event.ReportingController != "c\uFFFD" {
		t.Errorf("%v: %s becomes %v", err, e.Line, got.Event)
	}
}

func checkShortLines(t *testing.T, name string, r event.Record) {
	t.Helper()
	for _, f := range []Format{Logfmt, JSON} {
		full, err := Parser{}.Parse(entryOf(r, Encoder{Format: f}))
		if err != nil {
			t.Errorf("%s in %s: %v", name, f, err)
			continue
		}
		e := entryOf(r, Encoder{Format: f, Short: true})
		short, err := Parser{}.Parse(e)
		if err != nil {
			t.Errorf("%s in %s: %v", name, f, err)
			continue
		}
		if !reflect.DeepEqual(short, full) {
			t.Errorf("%s in %s: %s\nbecomes\n%+v\n%+v\nwant\n%+v\n%+v", name, f, e.Line, short, short.Event, full, full.Event)
		}
	}
}

// Lines that begin with the object, as earlier versions wrote them, have the same fields.
func TestEarlierOrder(t *testing.T) {
	data, err := os.ReadFile("testdata/earlier.logfmt")
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for text := range strings.Lines(string(data)) {
		name, earlier, _ := strings.Cut(strings.TrimSuffix(text, "\n"), "\t")
		r := goldenRecord(t, testdata+"/"+name)
		now := entryOf(r, Encoder{Standalone: seen[name]})
		seen[name] = true
		want, err := Parser{}.Parse(now)
		if err != nil {
			t.Fatal(err)
		}
		now.Line = earlier
		got, err := Parser{}.Parse(now)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %v: %s\nis parsed as\n%+v\nwant\n%+v", name, err, earlier, got.Event, want.Event)
		}
	}
	if len(seen) < 15 {
		t.Errorf("%d cases", len(seen))
	}
}

func TestTextLines(t *testing.T) {
	for text, want := range map[string][6]string{ // namespace, type, reason, kind, name, message
		"2019-07-19T11:05:00.000000011Z team-b Warning Preempted Pod/ingester-0: by x on node n":     {"team-b", "Warning", "Preempted", "Pod", "ingester-0", "Preempted by x on node n"},
		"2019-07-19T11:05:00Z team-b Pulled Pod/web-0: image is there: yes":                          {"team-b", "Normal", "Pulled", "Pod", "web-0", "image is there: yes"},
		"2019-07-19T11:05:00Z default Warning Rebooted Node/n-1: was it? (x7)":                       {"default", "Warning", "Rebooted", "Node", "n-1", "was it?"},
		"2019-07-19T11:05:00Z default Starting Node/n-1":                                             {"default", "Normal", "Starting", "Node", "n-1", ""},
		"2019-07-19T11:05:00Z a Created ClusterRole/system:node: bound":                              {"a", "Normal", "Created", "ClusterRole", "system:node", "bound"},
		"2019-07-19T11:05:00Z a Killing Pod/x: by y (observed at 2019-07-19T10:00:00Z, too far off)": {"a", "Normal", "Killing", "Pod", "x", "Killing by y"},
	} {
		r, err := Parser{}.Parse(Entry{Line: text})
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		e := r.Event
		if got := [6]string{e.Namespace, e.Type, e.Reason, e.InvolvedObject.Kind, e.InvolvedObject.Name, e.Message}; got != want {
			t.Errorf("%s: %q, want %q", text, got, want)
		}
	}
}

func TestForeignLines(t *testing.T) {
	for _, text := range []string{"", "hello", `{"a":1}`, `{"verb":"ADDED"}`, "{", `level=info msg="x"`, "GET /a/b"} {
		if r, err := (Parser{}).Parse(Entry{Line: text}); err == nil {
			t.Errorf("%q is parsed as %+v", text, r.Event)
		}
	}
}

// A sink truncates lines that are too long for Loki. The fields in metadata remain.
func TestTruncatedLine(t *testing.T) {
	for name, r := range records(t) {
		for _, f := range []Format{JSON, EventRouter} {
			e := entry(r, f, true)
			e.Line = e.Line[:len(e.Line)/2]
			got, err := Parser{}.Parse(e)
			if err != nil || got.Value(event.FieldEventUID) != valid(r.Value(event.FieldEventUID)) || got.Event.Message != e.Line {
				t.Errorf("%s in %s: %v: %+v", name, f, err, got.Event)
			}
		}
	}
}

func TestConfiguredLabels(t *testing.T) {
	p := Parser{Labels: map[string]string{"ns": "namespace", "why": "reason"}}
	got, err := p.Parse(Entry{
		Line:     "name=web-0 kind=Pod",
		Labels:   map[string]string{"ns": "prod", "why": event.OtherLabel, "reason": "foreign", "node": "foreign"},
		Metadata: map[string]string{"full_reason": "disk full", "node_extracted": "n-1", "kind": "Job", "kind_extracted": "foreign"},
	})
	if err != nil || got.Event.Namespace != "prod" || got.Event.Reason != "disk full" ||
		got.Value(event.FieldNode) != "n-1" || got.Value(event.FieldKind) != "Job" {
		t.Errorf("%v: %+v", err, got)
	}
}

// FuzzParse checks that any line that can be parsed is unchanged after encoding and parsing
// it again.
func FuzzParse(f *testing.F) {
	for _, r := range records(f) {
		for _, format := range formats {
			f.Add(entry(r, format, false).Line, "")
			f.Add(entry(r, format, true).Line, string(r.Event.UID))
		}
	}
	f.Fuzz(func(t *testing.T, text, uid string) {
		e := Entry{Line: valid(text)} // as in every line
		if uid != "" {
			e.Metadata = map[string]string{"event_uid": uid}
		}
		r, err := Parser{}.Parse(e)
		if err != nil {
			if uid != "" {
				t.Fatal(err)
			}
			return
		}
		for _, format := range []Format{Logfmt, JSON} {
			enc := Encoder{Format: format, Standalone: true}
			first := string(enc.Append(nil, &r.Record))
			again, err := Parser{}.Parse(Entry{Line: first})
			if err != nil {
				continue // no field has a value
			}
			if again.Event.Message != valid(r.Event.Message) || again.Value(event.FieldName) != valid(r.Value(event.FieldName)) {
				t.Errorf("%q becomes %q", text, first)
			}
		}
	})
}
