package outage

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// story summarizes an outage from its Events.
type story struct {
	events     int
	namespaces []string
	from, to   time.Time
	// preempted counts Preempted Events by "preemptor's namespace → victim's".
	preempted map[string]int
	// unknown are the preemptors that no Event is about.
	unknown []types.UID
}

var preemptor = regexp.MustCompile(`^Preempted by pod (\S+) on node \S+$`)

func tell(events []corev1.Event) (story, error) {
	s := story{events: len(events), preempted: make(map[string]int)}
	namespaces := make(map[string]bool)
	namespaceOf := make(map[types.UID]string) // of the objects that Events are about
	for _, e := range events {
		namespaces[e.Namespace] = true
		namespaceOf[e.InvolvedObject.UID] = e.InvolvedObject.Namespace
		if created := e.CreationTimestamp.UTC(); s.from.IsZero() || created.Before(s.from) {
			s.from = created
		}
		for _, t := range []time.Time{e.CreationTimestamp.UTC(), e.LastTimestamp.UTC()} {
			if t.After(s.to) {
				s.to = t
			}
		}
	}
	s.namespaces = slices.Sorted(maps.Keys(namespaces))
	for _, e := range events {
		if e.Reason != "Preempted" {
			continue
		}
		match := preemptor.FindStringSubmatch(e.Message)
		if match == nil {
			return s, fmt.Errorf("message %q does not name the preemptor", e.Message)
		}
		uid := types.UID(match[1])
		namespace, known := namespaceOf[uid]
		if !known {
			s.unknown = append(s.unknown, uid)
		}
		s.preempted[namespace+" → "+e.Namespace]++
	}
	return s, nil
}

// facts are the lines of the README that depend on the recording.
func (s story) facts() []string {
	own := s.preempted["prod-metrics → prod-metrics"]
	foreign := s.preempted["dedicated-metrics → prod-metrics"]
	return []string{
		fmt.Sprintf("| Events | %d |", s.events),
		fmt.Sprintf("| from, to | %s, %s |", s.from.Format(time.RFC3339), s.to.Format(time.RFC3339)),
		fmt.Sprintf("| namespaces | `%s` |", strings.Join(s.namespaces, "`, `")),
		fmt.Sprintf("| pods preempted | %d |", own+foreign),
		fmt.Sprintf("| … by pods of `dedicated-metrics` | %d |", foreign),
		fmt.Sprintf("| … by pods of `prod-metrics` itself | %d |", own),
	}
}

// check checks the properties of every re-enactment.
func (s story) check(t *testing.T) {
	t.Helper()
	own := s.preempted["prod-metrics → prod-metrics"]
	foreign := s.preempted["dedicated-metrics → prod-metrics"]
	// How they share it differs: a pod takes four queriers or one ingester, or
	// room that another one made.
	if foreign == 0 || own <= foreign || own+foreign < 50 {
		t.Errorf("%d pods were preempted from outside and %d by their own replacements: no cascade", foreign, own)
	}
	if len(s.preempted) != 2 {
		t.Errorf("others took part: %v", s.preempted)
	}
	if len(s.unknown) > 0 {
		t.Errorf("no Event is about the preemptors %v", s.unknown)
	}
}

func TestRecording(t *testing.T) {
	dir := filepath.Join("..", "..", "examples", "outage")
	data, err := os.ReadFile(filepath.Join(dir, "events.json"))
	if err != nil {
		t.Fatal(err)
	}
	if len(data) >= 1<<20 {
		t.Errorf("the recording has %d bytes, want less than 1 MiB", len(data))
	}
	var list corev1.EventList
	if err := json.Unmarshal(data, &list); err != nil {
		t.Fatal(err)
	}
	s, err := tell(list.Items)
	if err != nil {
		t.Fatal(err)
	}
	s.check(t)

	readme, err := os.ReadFile(filepath.Join(dir, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, fact := range s.facts() {
		if !strings.Contains(string(readme), fact+"\n") {
			t.Errorf("README.md lacks the line %s", fact)
		}
	}
}
