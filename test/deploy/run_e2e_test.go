//go:build e2e

package deploy

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"gopkg.in/yaml.v3"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/hindsight-events/hindsight/internal/config"
	"github.com/hindsight-events/hindsight/sink/stdout"
	"github.com/hindsight-events/hindsight/test/program"
	"github.com/hindsight-events/hindsight/test/wait"
)

// runProgram runs hindsight with the installed configuration and the
// ServiceAccount's token. Only its sinks are replaced, its directory, and its
// port, since other tests run hindsight at the same time.
func (i *installed) runProgram(t *testing.T) {
	c := i.configuration(t)
	out := stdout.DefaultConfig()
	dir := t.TempDir()
	c.Listen = "127.0.0.1:0"
	c.Journal.Dir = filepath.Join(dir, "journal")
	c.Canary.QueryURL = ""
	c.Sinks = []config.Sink{{Name: "stdout", WhenFull: c.Sinks[0].WhenFull, Start: c.Sinks[0].Start, Stdout: &out}}
	text, err := yaml.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	kubeconfig := filepath.Join(dir, "kubeconfig")
	if err := i.cluster.WriteKubeconfig(kubeconfig, i.token(t, serviceAccount)); err != nil {
		t.Fatal(err)
	}

	var output program.Output
	p := program.ForTest(t, program.Options{
		Args: []string{"run", "--kubeconfig", kubeconfig}, Config: string(text), Stdout: &output,
		// As the pod gets them from the downward API.
		Env: []string{"POD_NAMESPACE=" + i.namespace, "POD_NAME=hindsight-0"},
	})
	for _, name := range []string{"listed", "watched"} {
		i.report(t, name)
		wait.Until(t, "the Event "+name+" is delivered", func() bool { return strings.Contains(output.String(), `"name":"`+name+`"`) })
	}
	if c.LeaderElection.Enabled {
		wait.Until(t, "the Lease is renewed", func() bool {
			return slices.ContainsFunc(i.requests(t), func(r request) bool { return r.Verb == "patch" && r.ObjectRef.Resource == "leases" })
		})
	}
	if code, err := p.Stop(t.Context()); code != 0 || err != nil {
		t.Errorf("exit code %d, error %v", code, err)
	}

	used := set("list events", "watch events", "get namespaces/kube-system")
	if c.LeaderElection.Enabled {
		maps.Copy(used, set("get leases.coordination.k8s.io/hindsight", "create leases.coordination.k8s.io/hindsight",
			"update leases.coordination.k8s.io/hindsight", "patch leases.coordination.k8s.io/hindsight"))
	}
	for right := range enrichRights(c) {
		if !strings.HasPrefix(right, "get ") { // of an object of a kind that the Events are not about
			used[right] = true
		}
	}
	// A request is in the audit log a moment after its answer.
	wait.Success(t, "the program uses all its rights", func() error {
		missing := maps.Clone(used)
		for _, r := range i.requests(t) {
			delete(missing, r.String())
		}
		if len(missing) > 0 {
			return fmt.Errorf("%q are not used; the requests were %v", sorted(missing), i.requests(t))
		}
		return nil
	})
	var refused []string
	if len(c.Source.Namespaces) > 0 {
		refused = []string{"get namespaces/kube-system"} // optional
	}
	for _, r := range i.requests(t) {
		if r.ResponseStatus.Code == http.StatusForbidden && !slices.Contains(refused, r.String()) {
			t.Errorf("%s in %q was forbidden", r, r.ObjectRef.Namespace)
		}
	}
}

// report creates an Event in a namespace that every configuration watches.
func (i *installed) report(t *testing.T, name string) {
	t.Helper()
	event := &corev1.Event{
		ObjectMeta:     metav1.ObjectMeta{Name: name, Namespace: "team-a"},
		InvolvedObject: corev1.ObjectReference{Kind: "Pod", Namespace: "team-a", Name: "p"},
		Reason:         "Preempted",
		Message:        "by a test",
		Type:           corev1.EventTypeWarning,
		LastTimestamp:  metav1.Now(),
	}
	if _, err := i.client.CoreV1().Events("team-a").Create(t.Context(), event, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}

// request is a request of the ServiceAccount in the audit log of the API server.
type request struct {
	Verb      string
	User      struct{ Username string }
	ObjectRef struct {
		APIGroup, Resource, Namespace, Name string
	}
	ResponseStatus struct{ Code int }
}

func (r request) String() string {
	s := strings.TrimSuffix(r.Verb+" "+r.ObjectRef.Resource+"."+r.ObjectRef.APIGroup, ".")
	if r.ObjectRef.Name != "" {
		s += "/" + r.ObjectRef.Name
	}
	return s
}

// requests returns the program's requests to the API server.
func (i *installed) requests(t *testing.T) (all []request) {
	t.Helper()
	log, err := os.ReadFile(i.audit)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(log)) {
		if !strings.HasSuffix(line, "\n") {
			break // it is being written
		}
		var r request
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			t.Fatalf("%v in %s", err, line)
		}
		if r.User.Username == "system:serviceaccount:"+i.namespace+":"+serviceAccount && r.ObjectRef.Resource != "selfsubjectrulesreviews" {
			all = append(all, r)
		}
	}
	return all
}
