package format

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/hindsight-events/hindsight/event"
)

// testdata is shared with the tests of package event.
const testdata = "../testdata"

var update = flag.Bool("update", false, "write the golden files in testdata")

// TestGolden compares the record and the lines of each Event in testdata. The file of a
// format has the line for Loki, then the standalone line, then the short line if there is one.
func TestGolden(t *testing.T) {
	for _, dir := range append(caseDirs(t), testdata+"/gap") {
		t.Run(filepath.Base(dir), func(t *testing.T) {
			r := goldenRecord(t, dir)
			golden(t, filepath.Join(dir, "record.golden"), describe(&r))
			for _, f := range formats {
				var lines []byte
				encoders := []Encoder{{Format: f}, {Format: f, Standalone: true}}
				if f.HasShort() {
					encoders = append(encoders, Encoder{Format: f, Short: true})
				}
				for _, enc := range encoders {
					line := enc.Append(nil, &r)
					checkLine(t, line)
					lines = append(append(lines, line...), '\n')
				}
				golden(t, filepath.Join(dir, string(f)+".golden"), lines)
			}
		})
	}
}

// caseDirs are the directories of testdata that hold an Event.
func caseDirs(t testing.TB) []string {
	t.Helper()
	inputs, err := filepath.Glob(testdata + "/*/input.json")
	if err != nil || len(inputs) == 0 {
		t.Fatalf("no cases in testdata: %v", err)
	}
	for i, path := range inputs {
		inputs[i] = filepath.Dir(path)
	}
	return inputs
}

func goldenRecord(t *testing.T, dir string) event.Record {
	switch filepath.Base(dir) {
	case "gap":
		return event.NewGap(exampleGap())
	case "replayed":
		return event.NewReplayed(readEvent(t, dir))
	case "reason-not-a-label", "hostile-everywhere":
		r := event.New(readEvent(t, dir))
		r.Decisions[0] = event.LabelDecision{Set: event.DefaultLabels, Kept: event.LabelNamespace} // as the intake would
		return r
	default:
		return event.New(readEvent(t, dir))
	}
}

func exampleGap() event.Gap {
	return event.Gap{
		Namespace: "monitoring",
		From: event.Position{
			Epoch:   event.Epoch{Cluster: "8d1c9c9e-7a3c-4a55-8f3e-2a1b3c4d5e6f"},
			Version: 48377,
			Time:    time.Date(2026, 3, 6, 14, 5, 44, 0, time.UTC),
		},
		To: event.Position{
			Epoch:   event.Epoch{Cluster: "8d1c9c9e-7a3c-4a55-8f3e-2a1b3c4d5e6f"},
			Version: 51017,
			Time:    time.Date(2026, 3, 6, 14, 38, 10, 0, time.UTC),
		},
		Cause:         event.CauseTooOld,
		MissedAtLeast: 12,
	}
}

func readEvent(t testing.TB, dir string) *corev1.Event {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, "input.json"))
	if err != nil {
		t.Fatal(err)
	}
	e := &corev1.Event{}
	if err := json.Unmarshal(b, e); err != nil {
		t.Fatalf("%s: %v", dir, err)
	}
	return e
}

// describe returns the parts of a record that are not in the line.
func describe(r *event.Record) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "time: %s\n", r.Time.Format(time.RFC3339Nano))
	fmt.Fprintf(&b, "server time: %s\n", r.Position.Time.Format(time.RFC3339Nano))
	fmt.Fprintf(&b, "version: %d\nverb: %s\n", r.Position.Version, verb(r))
	b.WriteString("\nlabels\n")
	kept := event.LabelSetOf(event.LabelFields...) &^ (event.DefaultLabels &^ r.KeptLabels(event.DefaultLabels))
	for _, f := range event.LabelFields {
		fmt.Fprintf(&b, "%s: %q\n", f, r.Label(f, kept))
	}
	b.WriteString("\nstructured metadata\n")
	for _, p := range r.AppendMetadata(nil, event.DefaultLabels) {
		fmt.Fprintf(&b, "%s: %q\n", p.Name, p.Value)
	}
	return b.Bytes()
}

func golden(t *testing.T, path string, got []byte) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s (run with -update to rewrite it)\n got:\n%s\nwant:\n%s", path, got, want)
	}
}
