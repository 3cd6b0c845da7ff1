package query

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hindsight-events/hindsight/query/file"
)

const preemptorUID, unknownUID = "f8e9598f-f9fc-45e8-aaad-c2eea84b20ed", "11111111-f9fc-45e8-aaad-c2eea84b20ed"

func preemptionLines() []string {
	line := func(minute int, namespace, name, uid, reason, message string) string {
		return fmt.Sprintf("time=%s namespace=%s kind=Pod name=%s uid=%s reason=%s event_uid=%s-%d eventRV=%d msg=%q detected_level=info",
			noon.Add(time.Duration(minute-60)*time.Minute).Format(time.RFC3339), namespace, name, uid, reason, name, minute, minute, message)
	}
	return []string{
		line(1, "batch", "crunch-x2k9d", preemptorUID, "FailedScheduling", "0/8 nodes are available"),
		line(2, "prod", "web-a", "a", "Preempted", "Preempted by pod "+preemptorUID+" on node n-1"),
		line(3, "prod", "web-b", "b", "Preempted", "Preempted by pod "+unknownUID+" on node n-1"),
		line(4, "prod", "web-b", "b", "Killing", "Stopping container"),
	}
}

// TestResolver checks that uids are named by Events of another namespace, in any output.
func TestResolver(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "events.log")
	if err := os.WriteFile(path, []byte(strings.Join(preemptionLines(), "\n")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	open := func(s *Selection) Source {
		files, err := file.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		return Files{Files: files, Selection: s}
	}
	selection, err := NewSelection(Filter{Namespace: "prod"})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		output string
		beside bool
		want   []string
	}{
		{"table", false, []string{"Preempted by pod batch/crunch-x2k9d on node n-1", "Preempted by pod " + unknownUID + " on", "Stopping container"}},
		{"json", true, []string{"Preempted by pod " + preemptorUID + " (batch/crunch-x2k9d) on node n-1", "Preempted by pod " + unknownUID + " on"}},
		{"name", true, []string{"event/web-a-2", "event/web-b-3"}},
	} {
		t.Run(c.output, func(t *testing.T) {
			var b bytes.Buffer
			p, err := NewPrinter(c.output, &b, Style{})
			if err != nil {
				t.Fatal(err)
			}
			_, err = Run(t.Context(), Request{
				Source: open(selection), Selection: selection, From: noon.Add(-24 * time.Hour), To: noon,
				Printer: &Resolver{Printer: p, Beside: c.beside, Open: open, Selection: selection, Context: t.Context()},
			})
			if err != nil {
				t.Fatal(err)
			}
			for _, want := range c.want {
				if !strings.Contains(b.String(), want) {
					t.Errorf("%q is missing in\n%s", want, b.String())
				}
			}
			if strings.Contains(b.String(), "FailedScheduling") {
				t.Error("an Event that was read for its uid alone is printed")
			}
		})
	}
}
