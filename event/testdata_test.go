package event

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

// caseDirs are the directories of testdata that hold an Event.
func caseDirs(t testing.TB) []string {
	t.Helper()
	inputs, err := filepath.Glob("testdata/*/input.json")
	if err != nil || len(inputs) == 0 {
		t.Fatalf("no cases in testdata: %v", err)
	}
	for i, path := range inputs {
		inputs[i] = filepath.Dir(path)
	}
	return inputs
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

// everything renders all of a record.
func everything(t testing.TB, r Record) string {
	t.Helper()
	e, err := json.Marshal(r.Event)
	if err != nil {
		t.Fatal(err)
	}
	r.Event = nil
	return fmt.Sprintf("%+v\n%s", r, e)
}
