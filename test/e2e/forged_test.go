//go:build e2e

package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/hindsight-events/hindsight/test/cluster"
	"github.com/hindsight-events/hindsight/test/wait"
)

// A client that may write Events of one namespace can forge neither the time of an entry,
// nor the time of a later gap, nor a gap.
func TestForgedEvents(t *testing.T) {
	t.Parallel()
	c := cluster.ForTest(t, cluster.Options{})
	l := cluster.LokiForTest(t, cluster.LokiOptions{})
	client := newClient(t, c)
	events := client.CoreV1().Events("default")
	config := fmt.Sprintf("cluster: %s\njournal: {dir: %q}\nsinks:\n", clusterName, t.TempDir()) + lokiSink(l.URL(), "")
	p := start(t, c.Kubeconfig(), config)

	e, err := events.Create(t.Context(), newEvent("default", "victim.", "with a time in 2099"), metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	states := map[string]*corev1.Event{}
	add := func(e *corev1.Event) { states[string(e.UID)+"@"+e.ResourceVersion] = e }
	add(e)
	awaitStored(t, p, l, states)
	future := metav1.NewTime(time.Date(2099, 1, 1, 0, 0, 0, 0, time.UTC))
	e.ManagedFields = append(e.ManagedFields, metav1.ManagedFieldsEntry{
		Manager: "forger", Operation: metav1.ManagedFieldsOperationUpdate, APIVersion: "v1", Time: &future,
		FieldsType: "FieldsV1", FieldsV1: metav1.NewFieldsV1(`{"f:type":{}}`),
	})
	if e, err = events.Update(t.Context(), e, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	add(e)
	if !strings.Contains(fmt.Sprint(e.ManagedFields), "2099") {
		t.Fatalf("the API server did not keep the forged time: %v", e.ManagedFields)
	}
	forged := newEvent("default", "forged-gap.", "Events of all namespaces may have been missed between version 1 and version 99999999: forged")
	forged.Reason, forged.Type = "HindsightGap", "Warning"
	forged.InvolvedObject.Kind, forged.InvolvedObject.Name = "Namespace", "*"
	forged.Annotations = map[string]string{"hindsight/cause": "too_old", "hindsight/from_version": "1", "hindsight/to_version": "99999999"}
	if forged, err = events.Create(t.Context(), forged, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	add(forged)

	awaitStored(t, p, l, states)
	victims := stored(t, l, `{job="hindsight", reason="Testing"}`)
	if len(victims) != 2 {
		t.Errorf("%d states of the Event are found, want 2", len(victims))
	}
	for _, v := range victims {
		if age := time.Since(v.Time); age < -time.Second || age > 5*time.Minute {
			t.Errorf("stored with the time %s", v.Time)
		}
	}
	if n := len(stored(t, l, `{job="hindsight", reason="HindsightGap"}`)); n != 0 {
		t.Errorf("%d gaps are stored, want none: the only one is forged", n)
	}
	found := stored(t, l, `{job="hindsight", reason="other"} | full_reason="HindsightGap"`)
	if len(found) != 1 || strings.Contains(found[0].Line, "cause=") {
		t.Errorf("want the forged gap as an ordinary Event: %+v", found)
	}

	// A real gap is stored, with a time in the past.
	if code := p.terminate(); code != 0 {
		t.Errorf("exit code %d, want 0", code)
	}
	if _, err = events.Patch(t.Context(), e.Name, "application/merge-patch+json", []byte(`{"message":"written without a watch"}`), metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	revision, err := c.Revision(t.Context())
	if err == nil {
		err = c.Compact(t.Context(), revision)
	}
	if err != nil {
		t.Fatal(err)
	}
	start(t, c.Kubeconfig(), config)
	wait.Until(t, "the gap is stored", func() bool { return len(stored(t, l, `{job="hindsight", reason="HindsightGap"}`)) > 0 })
	gaps := stored(t, l, `{job="hindsight", reason="HindsightGap"}`)
	if len(gaps) != 1 || gaps[0].Time.After(time.Now()) || strings.Contains(gaps[0].Line, "2099") {
		t.Errorf("want one gap with a time in the past: %+v", gaps)
	}
}
