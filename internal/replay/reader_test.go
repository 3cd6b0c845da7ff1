package replay_test

import (
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/hindsight-events/hindsight/internal/replay"
)

// read returns the messages of all Events and the text of all errors.
func read(t *testing.T, input string) (messages, bad []string) {
	t.Helper()
	r := replay.NewReader(strings.NewReader(input))
	for {
		doc, err := r.Next()
		var b *replay.BadInput
		switch {
		case errors.Is(err, io.EOF):
			return messages, bad
		case errors.As(err, &b):
			bad = append(bad, b.Error())
			continue
		case err != nil:
			t.Fatal(err)
		}
		for _, e := range doc.Events {
			messages = append(messages, e.Message)
		}
		for _, b := range doc.Bad {
			bad = append(bad, b.Error())
		}
	}
}

func TestReader(t *testing.T) {
	const (
		one = `{"apiVersion":"v1","kind":"Event","metadata":{"name":"a"},"message":"one"}`
		two = `{"apiVersion":"v1","kind":"Event","metadata":{"name":"b"},"message":"two"}`

		router1 = `{"verb":"ADDED","event":{"metadata":{"name":"a"},"message":"one"}}`
		router2 = `{"verb":"UPDATED","event":{"metadata":{"name":"b"},"message":"two"},"old_event":{"metadata":{"name":"b"},"message":"before"}}`

		pretty1 = "{\n    \"apiVersion\": \"v1\",\n    \"kind\": \"Event\",\n    \"metadata\": {\n        \"name\": \"a\"\n    },\n    \"message\": \"one\"\n}"
		pretty2 = "{\n    \"apiVersion\": \"v1\",\n    \"kind\": \"Event\",\n    \"metadata\": {\n        \"name\": \"b\"\n    },\n    \"message\": \"two\"\n}"
	)
	for name, c := range map[string]struct {
		input    string
		messages []string
		bad      []string
	}{
		"a list on one line": {
			input:    `{"kind":"List","items":[` + one + "," + two + `]}`,
			messages: []string{"one", "two"},
		},
		"a list as kubectl prints it": {
			input:    "{\n    \"apiVersion\": \"v1\",\n    \"items\": [\n        " + one + ",\n        " + two + "\n    ],\n    \"kind\": \"List\"\n}\n",
			messages: []string{"one", "two"},
		},
		"an empty list": {input: `{"kind":"EventList","items":[]}`},
		"a list with something else in it": {
			input:    "\n" + `{"kind":"List","items":[` + one + `,{"kind":"Pod","metadata":{"name":"web-0"}},` + two + `]}`,
			messages: []string{"one", "two"},
			bad:      []string{"line 2: item 2 of the list that begins here: no Event, but a Pod"},
		},
		"a YAML list": {
			input:    "apiVersion: v1\nitems:\n- kind: Event\n  metadata: {name: a}\n  message: one\n- kind: Event\n  metadata: {name: b}\n  message: two\nkind: List\n",
			messages: []string{"one", "two"},
		},
		"YAML documents": {
			input:    "---\nkind: Event\nmetadata: {name: a}\nmessage: one\n---\nkind: Pod\nmetadata: {name: web-0}\n---\nkind: Event\nmetadata: {name: b}\nmessage: two\n---\n",
			messages: []string{"one", "two"},
			bad:      []string{"line 6: no Event, but a Pod"},
		},
		"a YAML document that is none": {
			input:    "kind: Event\n  metadata: [\n---\nkind: Event\nmetadata: {name: b}\nmessage: two\n",
			messages: []string{"two"},
			bad:      []string{"line 1: a document that begins here: yaml: line 2: mapping values are not allowed in this context"},
		},
		"a watch as kubectl prints it": {
			input: pretty1 + "\n" + pretty2 + "\n", messages: []string{"one", "two"},
		},
		"watch events": {
			input:    `{"type":"ADDED","object":` + one + "}\n" + `{"type":"MODIFIED","object":` + two + "}\n",
			messages: []string{"one", "two"},
		},
		"lines of eventrouter": {
			input: router1 + "\n" + router2, messages: []string{"one", "two"},
		},
		"lines that are no Events, among others that are": {
			input: "hello\n" + router1 + "\n42\n\n" + `{"level":"info","msg":"started"}` + "\n" + `{"verb":"ADDED","event":{}}` + "\n" + router2 + "\n",
			messages: []string{
				"one", "two",
			},
			bad: []string{
				`line 1: neither JSON nor the beginning of YAML: "hello"`,
				`line 3: neither JSON nor the beginning of YAML: "42"`,
				"line 5: no Event: it has no kind",
				"line 6: no Event: neither it nor the object it is about has a name",
			},
		},
		"a torn line spoils no more than itself": {
			input:    router1[:30] + "\n" + router2 + "\n",
			messages: []string{"two"},
			bad:      []string{"line 1: not an Event in JSON: unexpected end of JSON input"},
		},
		"the last line is torn": {
			input:    router1 + "\n" + router2[:30],
			messages: []string{"one"},
			bad:      []string{"line 2: not an Event in JSON: unexpected end of JSON input"},
		},
		"an object that breaks off is reported once": {
			input:    pretty1[:60] + "\n" + pretty2 + "\n",
			messages: []string{"two"},
			bad:      []string{"line 1: not an Event in JSON: unexpected end of JSON input"},
		},
		"a time that is none": {
			input: `{"kind":"Event","metadata":{"name":"a"},"lastTimestamp":"yesterday"}`,
			bad:   []string{`line 1: not an Event in JSON: parsing time "yesterday" as "2006-01-02T15:04:05Z07:00": cannot parse "yesterday" as "2006"`},
		},
		"nothing": {input: ""},
	} {
		t.Run(name, func(t *testing.T) {
			messages, bad := read(t, c.input)
			if !slices.Equal(messages, c.messages) {
				t.Errorf("got Events %q, want %q", messages, c.messages)
			}
			if !slices.Equal(bad, c.bad) {
				t.Errorf("got errors\n%q\nwant\n%q", bad, c.bad)
			}
		})
	}
}

// A stream is not waited for: what has come is returned before the rest is
// there.
func TestReaderDoesNotWaitForTheEnd(t *testing.T) {
	in, out := io.Pipe()
	r := replay.NewReader(in)
	for range 3 {
		go io.WriteString(out, "{\n  \"kind\": \"Event\",\n  \"metadata\": {\"name\": \"a\"}\n}\n")
		if _, err := r.Next(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestReaderOfTheNewerGroup(t *testing.T) {
	r := replay.NewReader(strings.NewReader(`{"apiVersion":"events.k8s.io/v1","kind":"Event",
  "metadata":{"name":"a"},"note":"one","regarding":{"kind":"Pod","name":"web-0"},"eventTime":"2019-07-19T11:00:00.123456Z",
  "deprecatedCount":3,"deprecatedSource":{"component":"kubelet"},"series":{"count":2,"lastObservedTime":"2019-07-19T11:05:00.000000Z"}}`))
	doc, err := r.Next()
	if err != nil {
		t.Fatal(err)
	}
	e := doc.Events[0]
	if e.Message != "one" || e.InvolvedObject.Name != "web-0" || e.Count != 3 || e.Source.Component != "kubelet" || e.Series.Count != 2 || e.EventTime.Nanosecond() != 123456000 {
		t.Errorf("fields are missing in %+v", e)
	}
}

func TestShift(t *testing.T) {
	at := time.Date(2019, 7, 19, 11, 0, 0, 123456000, time.UTC)
	e := &corev1.Event{
		ObjectMeta:    metav1.ObjectMeta{CreationTimestamp: metav1.NewTime(at)},
		LastTimestamp: metav1.NewTime(at),
		EventTime:     metav1.NewMicroTime(at),
		Series:        &corev1.EventSeries{LastObservedTime: metav1.NewMicroTime(at)},
	}
	replay.Shift(e, 3600)
	want := at.Add(time.Hour)
	for name, got := range map[string]time.Time{
		"creationTimestamp": e.CreationTimestamp.Time, "lastTimestamp": e.LastTimestamp.Time,
		"eventTime": e.EventTime.Time, "series.lastObservedTime": e.Series.LastObservedTime.Time,
	} {
		if !got.Equal(want) {
			t.Errorf("%s is %v, want %v", name, got, want)
		}
	}
	if !e.FirstTimestamp.IsZero() {
		t.Errorf("a time that was not set became %v", e.FirstTimestamp)
	}
}

func FuzzReader(f *testing.F) {
	f.Add("{\n}\n{\"kind\":\"Event\"}\n---\na: b")
	f.Add(`{"kind":"List","items":[{}]}`)
	f.Fuzz(func(t *testing.T, input string) {
		r := replay.NewReader(strings.NewReader(input))
		for range len(input) + 2 {
			_, err := r.Next()
			if errors.Is(err, io.EOF) {
				return
			}
		}
		t.Fatal("the reader does not come to an end")
	})
}
