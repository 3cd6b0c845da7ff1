package format

import (
	"bytes"
	"encoding/json"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/go-logfmt/logfmt"
	"gopkg.in/yaml.v3"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/hindsight-events/hindsight/event"
)

// checkLine checks that line is one line that is safe to print.
func checkLine(t *testing.T, line []byte) {
	t.Helper()
	if !utf8.Valid(line) {
		t.Errorf("not valid UTF-8: %q", line)
	}
	for _, r := range string(line) {
		if unicode.IsControl(r) || unicode.In(r, unicode.Zl, unicode.Zp, unicode.Bidi_Control) {
			t.Errorf("%U is not escaped: %q", r, line)
		}
	}
}

type field struct{ name, value string }

// decodeLogfmt decodes a line like other programs.
func decodeLogfmt(t *testing.T, line []byte) []field {
	t.Helper()
	var fields []field
	dec := logfmt.NewDecoderSize(bytes.NewReader(line), len(line)+1)
	for dec.ScanRecord() {
		for dec.ScanKeyval() {
			fields = append(fields, field{string(dec.Key()), string(dec.Value())})
		}
	}
	if err := dec.Err(); err != nil {
		t.Fatalf("logfmt: %v\n%s", err, line)
	}
	return fields
}

// decodeJSON decodes a flat object in the order of its fields.
func decodeJSON(t *testing.T, line []byte) []field {
	t.Helper()
	var fields []field
	dec := json.NewDecoder(bytes.NewReader(line))
	dec.UseNumber()
	next := func() json.Token {
		tok, err := dec.Token()
		if err != nil {
			t.Fatalf("json: %v\n%s", err, line)
		}
		return tok
	}
	next() // {
	for dec.More() {
		name := next().(string)
		switch v := next().(type) {
		case string:
			fields = append(fields, field{name, v})
		case json.Number:
			fields = append(fields, field{name, v.String()})
		default:
			t.Fatalf("field %s is neither a string nor a number: %v", name, v)
		}
	}
	next() // }
	if dec.More() {
		t.Fatalf("more than one object:\n%s", line)
	}
	return fields
}

// replaced returns s with U+FFFD for each invalid byte.
func replaced(s string) string { return string([]rune(s)) }

// checkEncodings encodes the record in each format and decodes it with standard decoders.
func checkEncodings(t *testing.T, r *event.Record) {
	t.Helper()
	e := r.Event
	for _, standalone := range []bool{false, true} {
		line := func(f Format) []byte {
			t.Helper()
			b := Encoder{Format: f, Standalone: standalone}.Append(nil, r)
			checkLine(t, b)
			return b
		}

		fields := decodeLogfmt(t, line(Logfmt))
		if j := decodeJSON(t, line(JSON)); !slices.Equal(fields, j) {
			t.Errorf("the formats differ:\nlogfmt %q\njson   %q", fields, j)
		}
		got := map[string]string{}
		for _, f := range fields {
			if _, twice := got[f.name]; twice {
				t.Errorf("%s is in the line twice: %q", f.name, fields)
			}
			if f.value == "" {
				t.Errorf("%s is empty", f.name)
			}
			got[f.name] = f.value
		}
		want := map[string]string{
			"name": e.InvolvedObject.Name, "kind": e.InvolvedObject.Kind, "action": e.Action,
			"objectAPIversion": e.InvolvedObject.APIVersion, "objectRV": e.InvolvedObject.ResourceVersion,
			"eventRV": e.ResourceVersion, "reportinginstance": e.ReportingInstance,
			"reportingcontroller": e.ReportingController, "sourcecomponent": e.Source.Component,
			"sourcehost": e.Source.Host, "reason": e.Reason, "type": e.Type, "msg": e.Message,
			"event": e.Name, "fieldpath": e.InvolvedObject.FieldPath,
		}
		if standalone {
			want["namespace"] = e.Namespace
			for _, p := range r.AppendMetadata(nil, event.DefaultLabels) {
				switch p.Name {
				case "event_version", "full_reason": // eventRV, reason
				default:
					if replaced(got[p.Name]) != p.Value && utf8.ValidString(r.Value(fieldNamed(t, p.Name))) {
						t.Errorf("%s is %q in the metadata and %q in the line", p.Name, p.Value, got[p.Name])
					}
				}
			}
		}
		for name, value := range want {
			if got[name] != replaced(value) {
				t.Errorf("%s decodes as %q, want %q", name, got[name], value)
			}
		}

		var routed struct {
			Verb  string
			Event json.RawMessage
		}
		if err := json.Unmarshal(line(EventRouter), &routed); err != nil {
			t.Fatalf("eventrouter: %v", err)
		}
		plain, err := json.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		if routed.Verb != verb(r) || !sameJSON(t, routed.Event, plain) {
			t.Errorf("eventrouter decodes as %s\n%s\nwant\n%s", routed.Verb, routed.Event, plain)
		}

		text := string(line(Text))
		if !strings.Contains(text, r.Event.InvolvedObject.Name) && checkable(r.Event.InvolvedObject.Name) {
			t.Errorf("no %q in %q", r.Event.InvolvedObject.Name, text)
		}
	}
}

// checkable reports whether a value is in a text line without escapes.
func checkable(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r >= 0x7f || r == '"' || r == '\\' })
}

func fieldNamed(t *testing.T, name string) event.Field {
	t.Helper()
	f, ok := event.ParseField(name)
	if !ok {
		t.Fatalf("structured metadata %q is not a field", name)
	}
	return f
}

func sameJSON(t *testing.T, a, b []byte) bool {
	t.Helper()
	var x, y any
	if err := json.Unmarshal(a, &x); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, &y); err != nil {
		t.Fatal(err)
	}
	xs, _ := json.Marshal(x)
	ys, _ := json.Marshal(y)
	return bytes.Equal(xs, ys)
}

func TestEncodingsDecodeToTheEvent(t *testing.T) {
	for _, dir := range append(caseDirs(t), testdata+"/gap") {
		t.Run(filepath.Base(dir), func(t *testing.T) {
			r := goldenRecord(t, dir)
			checkEncodings(t, &r)
		})
	}
}

func TestInvalidUTF8IsReplaced(t *testing.T) {
	// The API server checks neither message nor involved object.
	const cut = "caf\xc3"
	r := event.New(&corev1.Event{
		ObjectMeta:     metav1.ObjectMeta{Namespace: "a", Name: "b", Annotations: map[string]string{cut: cut}},
		InvolvedObject: corev1.ObjectReference{Kind: "Po\xffd", Name: cut},
		Reason:         "Re\x80ason",
		Message:        cut + " \xed\xa0\x80 \xf4\x90\x80\x80",
	})
	r.Decisions[0] = event.LabelDecision{Set: event.DefaultLabels, Kept: event.LabelNamespace}
	checkEncodings(t, &r)
	for _, p := range r.AppendMetadata(nil, event.DefaultLabels) {
		if !utf8.ValidString(p.Value) {
			t.Errorf("structured metadata %s=%q is not valid UTF-8", p.Name, p.Value)
		}
	}
	for _, f := range event.LabelFields {
		if !utf8.ValidString(r.Label(f, event.LabelSetOf(event.LabelFields...))) {
			t.Errorf("label %s=%q is not valid UTF-8", f, r.Label(f, event.LabelSetOf(event.LabelFields...)))
		}
	}
}

func TestLongMessagesAreComplete(t *testing.T) {
	e := readEvent(t, testdata+"/core-recorder-first")
	e.Message = strings.Repeat("0123456789 \"quoted\"\n\u202e漢字\x1b[2J", 7000)
	if len(e.Message) < 200_000 {
		t.Fatalf("%d bytes are not a long message", len(e.Message))
	}
	r := event.New(e)
	checkEncodings(t, &r)
}

func TestTextOmitsARepeatedReason(t *testing.T) {
	for _, tt := range []struct {
		name, reason, message, want string
	}{
		{"the message continues the reason", "Preempted", "Preempted by x", "Preempted Pod/p: by x"},
		{"other letter case", "Waiting", "waiting for x", "Waiting Pod/p: waiting for x"},
		{"followed by a colon", "Failed", "Failed: no such image", "Failed Pod/p: Failed: no such image"},
		{"not a continuation", "Created", "Created container: c", "Created Pod/p: Created container: c"},
		{"equal to the reason", "Started", "Started", "Started Pod/p: Started"},
		{"ambiguous continuation", "Preempted", "by x", `Preempted Pod/p: "by x"`},
		{"with characters to quote", "Preempted", `Preempted by \`, `Preempted Pod/p: "Preempted by \\"`},
		{"a longer word", "Fail", "Failed to pull", "Fail Pod/p: Failed to pull"},
		{"another message", "Pulled", "Successfully pulled", "Pulled Pod/p: Successfully pulled"},
		{"a prefix of the reason", "BackOff", "Back", "BackOff Pod/p: Back"},
		{"empty", "Killing", "", "Killing Pod/p"},
		{"no reason", "", "hello", "Pod/p: hello"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := event.New(&corev1.Event{
				InvolvedObject: corev1.ObjectReference{Kind: "Pod", Name: "p"},
				Reason:         tt.reason, Message: tt.message,
			})
			if got := string(Encoder{Format: Text}.Append(nil, &r)); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestEmptyEventsHaveALine(t *testing.T) {
	r := event.New(&corev1.Event{})
	want := map[Format]string{
		Logfmt: "", JSON: "{}", Text: `Event/""`,
		EventRouter: `{"verb":"ADDED","event":{"metadata":{},"involvedObject":{},"source":{},"firstTimestamp":null,"lastTimestamp":null,"eventTime":null,"reportingComponent":"","reportingInstance":""}}`,
	}
	for f, line := range want {
		if got := string(Encoder{Format: f}.Append(nil, &r)); got != line {
			t.Errorf("%s: got %q, want %q", f, got, line)
		}
	}
}

func TestEventThatCannotBeEncoded(t *testing.T) {
	r := event.Record{Event: &corev1.Event{ObjectMeta: metav1.ObjectMeta{
		ManagedFields: []metav1.ManagedFieldsEntry{{FieldsV1: metav1.NewFieldsV1("{\n\"")}},
	}}}
	line := Encoder{Format: EventRouter}.Append(nil, &r)
	checkLine(t, line)
	var got struct{ Event struct{ Error string } }
	if err := json.Unmarshal(line, &got); err != nil || got.Event.Error == "" {
		t.Errorf("got %s, %v; want an error in it", line, err)
	}
}

func TestAppendKeepsDst(t *testing.T) {
	r := event.New(readEvent(t, testdata+"/core-recorder-first"))
	for _, f := range formats {
		enc := Encoder{Format: f, Standalone: true}
		alone := enc.Append(nil, &r)
		after := enc.Append([]byte("before\n"), &r)
		if string(after) != "before\n"+string(alone) {
			t.Errorf("%s: got %q after other bytes, %q alone", f, after, alone)
		}
		if got := enc.Append([]byte("before\n"), &event.Record{}); string(got) != "before\n" {
			t.Errorf("%s: a record without an event gives %q", f, got)
		}
	}
}

// A record that is sent again from the journal, or read from another API server in another
// encoding, must give the same bytes, or Loki stores it twice.
func TestTheSameStateGivesTheSameBytes(t *testing.T) {
	for _, dir := range caseDirs(t) {
		t.Run(filepath.Base(dir), func(t *testing.T) {
			want := everything(event.New(readEvent(t, dir)))

			// As the API server sends it in protobuf.
			b, err := readEvent(t, dir).Marshal()
			if err != nil {
				t.Fatal(err)
			}
			e := &corev1.Event{}
			if err := e.Unmarshal(b); err != nil {
				t.Fatal(err)
			}
			if got := everything(event.New(e)); got != want {
				t.Errorf("decoded from protobuf:\n%s\nfrom JSON:\n%s", got, want)
			}

			r := event.New(readEvent(t, dir))
			if got := everything(roundTrip(t, &r)); got != want {
				t.Errorf("after the journal:\n%s\nbefore:\n%s", got, want)
			}
		})
	}
}

// everything returns all bytes that a sink may send for a record.
func everything(r event.Record) string {
	b := describe(&r)
	b = strconv.AppendInt(b, r.Time.UnixNano(), 10)
	for _, f := range formats {
		for _, standalone := range []bool{false, true} {
			b = append(b, '\n')
			b = Encoder{Format: f, Standalone: standalone}.Append(b, &r)
		}
	}
	return string(b)
}

func TestFormatsAreReadFromConfiguration(t *testing.T) {
	for _, name := range []string{"eventrouter", "json", "logfmt", "text"} {
		var c struct{ Format Format }
		if err := yaml.Unmarshal([]byte("format: "+name), &c); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if c.Format.String() != name {
			t.Errorf("got %q, want %q", c.Format, name)
		}
	}
	var c struct{ Format Format }
	err := yaml.Unmarshal([]byte("format: xml"), &c)
	const want = `unknown format "xml": want one of eventrouter, json, logfmt, text`
	if err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("got %v, want %s", err, want)
	}
}
