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

// Outputs are the names of the printers.
var Outputs = []string{"table", "wide", "json", "yaml", "logfmt", "text", "name"}

// Style is the style of a table.
type Style struct {
	Width         int // of the terminal; 0: lines are not wrapped
	Color         bool
	NoHeaders     bool
	AllNamespaces bool           // with a column for the namespace
	Times         bool           // instead of ages, also while no row is older than a day
	Zone          *time.Location // of times; nil: UTC
	Now           time.Time      // to which ages are counted; zero: the current time
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

// linePrinter prints each record without buffering.
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

// appendJSON appends the whole Event if the line contains it, otherwise the fields of the line.
func appendJSON(dst []byte, r *format.Record) ([]byte, error) {
	if !r.WholeEvent {
		return format.Encoder{Format: format.JSON, Standalone: true}.Append(dst, &r.Record), nil
	}
	whole, e := r.Record, *r.Event
	e.TypeMeta = metav1.TypeMeta{Kind: "Event", APIVersion: corev1.SchemeGroupVersion.String()}
	whole.Event = &e
	// The inner object of {"verb":"…","event":{…}}, with the time that a standalone line has after
	// it if the Event does not contain it.
	enc := format.Encoder{Format: format.EventRouter}
	text := string(enc.Append(nil, &whole))
	enc.Standalone = true
	timeField := strings.TrimPrefix(string(enc.Append(nil, &whole)), strings.TrimSuffix(text, "}"))
	_, text, ok := strings.Cut(text, `"event":`)
	if !ok {
		return nil, fmt.Errorf("encode Event %s/%s: no event in the line", e.Namespace, e.Name)
	}
	dst = append(dst, strings.TrimSuffix(text, "}}")...)
	return append(dst, timeField...), nil
}

// appendYAML appends a YAML document. If it would contain terminal control characters, it is JSON,
// which is valid YAML: outside of double quotes YAML cannot escape them.
func appendYAML(dst []byte, r *format.Record) ([]byte, error) {
	asJSON, err := appendJSON(nil, r)
	var b []byte
	if err == nil {
		b, err = yaml.JSONToYAML(asJSON)
	}
	if err != nil {
		return nil, fmt.Errorf("encode as YAML: %w", err)
	}
	dst = append(dst, "---\n"...)
	text := strings.TrimSuffix(string(b), "\n")
	if bare := strings.ReplaceAll(text, "\t", " "); bare == printableLines(bare) {
		return append(dst, text...), nil
	}
	indented := bytes.NewBuffer(dst)
	if err := json.Indent(indented, asJSON, "", "  "); err != nil {
		return nil, fmt.Errorf("encode as YAML: %w", err)
	}
	return indented.Bytes(), nil
}

// appendName appends the name of the Event for kubectl get, while the cluster still has the Event.
func appendName(dst []byte, r *format.Record) ([]byte, error) {
	name := r.Event.Name
	if name == "" {
		name = string(r.Event.UID) // the format text does not contain the name
	}
	return append(dst, "event/"+Printable(name)...), nil
}
