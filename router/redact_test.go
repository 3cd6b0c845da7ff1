package router

import (
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"

	"gopkg.in/yaml.v3"
	corev1 "k8s.io/api/core/v1"

	"github.com/hindsight-events/hindsight/event"
)

func mustRedact(t testing.TB, pairs ...string) (rs Redactions) {
	t.Helper()
	for i := 0; i < len(pairs); i += 2 {
		r, err := NewRedaction(pairs[i], pairs[i+1])
		if err != nil {
			t.Fatal(err)
		}
		rs = append(rs, r)
	}
	return rs
}

func TestRedactionOfMessages(t *testing.T) {
	for _, tt := range []struct {
		name          string
		redact        Redactions
		message, want string
	}{
		{"every match", mustRedact(t, `token=\S+`, `token=…`), "token=a then token=b", "token=… then token=…"},
		{"no match", mustRedact(t, `token=\S+`, `token=…`), "nothing here", "nothing here"},
		{"by nothing", mustRedact(t, ` at \d+\.\d+\.\d+\.\d+`, ``), "refused at 10.0.0.1", "refused"},
		{"groups are kept", mustRedact(t, `(\w+)://\S+@(?P<host>\S+)`, `${1}://…@$host`), "pull https://u:p@reg/x", "pull https://…@reg/x"},
		{"the only group", mustRedact(t, `(pass)word=\S+`, `$1`), "password=x", "pass"},
		{"a dollar sign", mustRedact(t, `\d+ USD`, `$$$$`), "costs 5 USD", "costs $$"},
		{"one after the other", mustRedact(t, `a`, `b`, `b+`, `c`), "aab", "c"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := preempted()
			r.Event.Message = tt.message
			r.Event.Annotations = map[string]string{"note": tt.message}
			NewIntake(IntakeOptions{Redact: tt.redact}).Apply([]event.Record{r})
			if r.Event.Message != tt.want {
				t.Errorf("message: got %q, want %q", r.Event.Message, tt.want)
			}
			if got := r.Event.Annotations["note"]; got != tt.want {
				t.Errorf("annotation: got %q, want %q", got, tt.want)
			}
			if r.Event.Reason != "Preempted" || r.Event.InvolvedObject.Name != "ingester-3" {
				t.Errorf("other fields changed: %v", r.Event)
			}
		})
	}
}

func TestRedactionRemovesLastAppliedConfiguration(t *testing.T) {
	const applied = `{"message":"said \"password\": \"hunter2\""}`
	apply := func(redact Redactions) *corev1.Event {
		r := preempted()
		r.Event.Message = "a later message"
		r.Event.Annotations = map[string]string{corev1.LastAppliedConfigAnnotation: applied, "kept": "x"}
		return NewIntake(IntakeOptions{Redact: redact}).Apply([]event.Record{r})[0].Event
	}
	if got := apply(nil).Annotations[corev1.LastAppliedConfigAnnotation]; got != applied {
		t.Errorf("without redactions: got %q, want it untouched", got)
	}
	e := apply(mustRedact(t, `"password": "[^"]*"`, `…`))
	if strings.Contains(e.String(), "hunter2") {
		t.Errorf("the password is still in %s", e)
	}
	if want := map[string]string{"kept": "x"}; !maps.Equal(e.Annotations, want) {
		t.Errorf("annotations: got %v, want %v", e.Annotations, want)
	}
}

func TestInvalidRedaction(t *testing.T) {
	for _, tt := range []struct{ name, match, with, want string }{
		{"no match", "", "x", "redaction has no match"},
		{"bad regexp", "a(", "", "redaction \"a(\": error parsing regexp: missing closing ): `a(`"},
		{"the empty string", "a*", "", `redaction "a*": it matches the empty string`},
		{"the beginning", "^", "", `redaction "^": it matches the empty string`},
		{
			"a group beyond the last", "(a)", "$2",
			`redaction "(a)": "$2" refers to the unknown group "2"; write ${1} before other text, and $$ for a dollar sign`,
		},
		{
			"text after the number", "(a)", "$1x",
			`redaction "(a)": "$1x" refers to the unknown group "1x"; write ${1} before other text, and $$ for a dollar sign`,
		},
		{
			"an unknown name", "(?P<a>a)", "${b}",
			`redaction "(?P<a>a)": "${b}" refers to the unknown group "b"; write ${1} before other text, and $$ for a dollar sign`,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := NewRedaction(tt.match, tt.with)
			if err == nil || err.Error() != tt.want {
				t.Errorf("got  %v\nwant %s", err, tt.want)
			}
		})
	}
}

func TestRedactionsInYAML(t *testing.T) {
	decode := func(text string) (Redactions, error) {
		var c struct {
			Redact Redactions `yaml:"redact"`
		}
		dec := yaml.NewDecoder(strings.NewReader(text))
		dec.KnownFields(true)
		err := dec.Decode(&c)
		return c.Redact, err
	}
	t.Run("round trip", func(t *testing.T) {
		const text = "- match: token=\\S+\n  with: token=…\n- match: a+\n  with: \"\"\n"
		rs, err := decode("redact:\n" + text)
		if err != nil {
			t.Fatal(err)
		}
		if b, err := yaml.Marshal(rs); err != nil || string(b) != text {
			t.Errorf("got %s %v, want %s", b, err, text)
		}
	})
	for _, tt := range []struct {
		name, yaml string
		want       []string
	}{
		{"bad ones with their lines", "redact:\n- {match: 'a('}\n- {match: ok}\n-\n", []string{
			"line 2: redaction \"a(\": error parsing regexp: missing closing ): `a(`",
			"line 4: redaction has no match",
		}},
		{"an unknown key", "redact:\n- {match: a, by: x}", []string{"line 2: field by not found in type router.redactionYAML"}},
		{"not a list", "redact: a", []string{"line 1: cannot unmarshal !!str `a` into []*router.redactionYAML"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := decode(tt.yaml)
			var typeError *yaml.TypeError
			if !errors.As(err, &typeError) {
				t.Fatalf("got %v", err)
			}
			if !slices.Equal(typeError.Errors, tt.want) {
				t.Errorf("got %q, want %q", typeError.Errors, tt.want)
			}
		})
	}
}
