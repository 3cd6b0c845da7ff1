package query

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/hindsight-events/hindsight/event/format"
)

// Outputs are the names that NewPrinter knows.
var Outputs = []string{"table", "wide", "json", "yaml", "logfmt", "text", "name"}

// Style is how a table is written.
type Style struct {
	Width         int  // of the terminal; 0: lines are not broken
	Color         bool // of what deserves attention
	NoHeaders     bool
	AllNamespaces bool           // a column for the namespace
	Times         bool           // instead of ages, which are written while no row is older than a day
	Zone          *time.Location // of times; nil: UTC
	Now           time.Time      // that ages are counted to; zero: the time of writing
}

// NewPrinter returns the printer of that name.
func NewPrinter(output string, w io.Writer, s Style) (Printer, error) {
	switch output {
	case "", "table":
		return newTable(w, s, false), nil
	case "wide":
		return newTable(w, s, true), nil
	case "json":
		return linePrinter{w, appendJSON}, nil
	case "yaml":
		return linePrinter{w, appendYAML}, nil
	case "logfmt":
		return linePrinter{w, encoded(format.Logfmt)}, nil
	case "text":
		return linePrinter{w, encoded(format.Text)}, nil
	case "name":
		return linePrinter{w, appendName}, nil
	}
	return nil, fmt.Errorf("--output: %q is unknown; valid are %s", output, strings.Join(Outputs, ", "))
}

// linePrinter writes each record at once.
type linePrinter struct {
	w      io.Writer
	append func(dst []byte, r *format.Record) ([]byte, error)
}

func (p linePrinter) Print(r *format.Record) error {
	b, err := p.append(nil, r)
	if err != nil {
		return err
	}
	_, err = p.w.Write(append(b, '\n'))
	return err
}

func (p linePrinter) Flush() error {
	if f, ok := p.w.(interface{ Flush() error }); ok {
		return f.Flush()
	}
	return nil
}

func encoded(f format.Format) func([]byte, *format.Record) ([]byte, error) {
	enc := format.Encoder{Format: f, Standalone: true}
	return func(dst []byte, r *format.Record) ([]byte, error) { return enc.Append(dst, &r.Record), nil }
}

// appendJSON writes the whole Event where the line held it, else what it said.
func appendJSON(dst []byte, r *format.Record) ([]byte, error) {
	if !r.WholeEvent {
		return format.Encoder{Format: format.JSON, Standalone: true}.Append(dst, &r.Record), nil
	}
	whole, e := r.Record, *r.Event
	e.TypeMeta = metav1.TypeMeta{Kind: "Event", APIVersion: corev1.SchemeGroupVersion.String()}
	whole.Event = &e
	// Of {"verb":"…","event":{…}}, what is inside; and in it the time that a line
	// that stands alone has behind it, where the Event does not give it.
	enc := format.Encoder{Format: format.EventRouter}
	text := string(enc.Append(nil, &whole))
	enc.Standalone = true
	filed := strings.TrimPrefix(string(enc.Append(nil, &whole)), strings.TrimSuffix(text, "}"))
	_, text, ok := strings.Cut(text, `"event":`)
	if !ok {
		return nil, fmt.Errorf("print Event %s/%s: it cannot be encoded", e.Namespace, e.Name)
	}
	dst = append(dst, strings.TrimSuffix(text, "}}")...)
	return append(dst, filed...), nil
}

// appendYAML writes a document. One with characters that could drive a terminal is
// written in JSON, which is YAML too: outside of double quotes they cannot be escaped.
func appendYAML(dst []byte, r *format.Record) ([]byte, error) {
	asJSON, err := appendJSON(nil, r)
	var b []byte
	if err == nil {
		b, err = yaml.JSONToYAML(asJSON)
	}
	if err != nil {
		return nil, fmt.Errorf("print as YAML: %w", err)
	}
	dst = append(dst, "---\n"...)
	text := strings.TrimSuffix(string(b), "\n")
	if bare := strings.ReplaceAll(text, "\t", " "); bare == printableLines(bare) {
		return append(dst, text...), nil
	}
	indented := bytes.NewBuffer(dst)
	if err := json.Indent(indented, asJSON, "", "  "); err != nil {
		return nil, fmt.Errorf("print as YAML: %w", err)
	}
	return indented.Bytes(), nil
}

// appendName writes the name that kubectl get knows the Event by, for as long as
// the cluster has it.
func appendName(dst []byte, r *format.Record) ([]byte, error) {
	name := r.Event.Name
	if name == "" {
		name = string(r.Event.UID) // a sentence does not have the name
	}
	return append(dst, "event/"+printable(name)...), nil
}
