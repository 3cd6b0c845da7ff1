//go:build e2e

package chaos

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/hindsight-events/hindsight/test/cluster"
	"github.com/hindsight-events/hindsight/test/wait"
)

const (
	timeout = 2 * time.Minute

	leaseNamespace = "default"
	leaseName      = "hindsight"
	leaseDuration  = 4 * time.Second
)

// scene holds the real components, the replicas, the written states and the sinks.
type scene struct {
	*history
	t          *testing.T
	seed       uint64
	dir        string
	cluster    *cluster.Cluster
	stores     []stored
	client     kubernetes.Interface
	ledger     *ledger
	comparison *comparison
	stdout     *output

	replicas    []*replica
	elects      bool // one of several replicas is active
	variant     int  // of the configuration
	compactions []compaction
}

// newScene starts real components and prepares replicas. The first has its
// journal in a directory, the others in memory.
func newScene(t *testing.T, seed uint64, names ...string) *scene {
	t.Helper()
	s := &scene{history: &history{t: t, began: time.Now()}, t: t, seed: seed, elects: len(names) > 1, ledger: newLedger()}
	s.dir = workingDir(t)
	s.cluster = cluster.ForTest(t, cluster.Options{Dir: filepath.Join(s.dir, "cluster")})
	s.stores = startStores(t, s.dir)
	client, err := kubernetes.NewForConfig(s.cluster.Config())
	if err != nil {
		t.Fatal(err)
	}
	s.client = client
	makeNamespaces(t, client)
	for _, name := range names {
		s.replicas = append(s.replicas, newReplica(t, name, filepath.Join(s.dir, name), s.cluster.Kubeconfig(), s.cluster.URL(), s.note))
	}
	s.configure()
	s.stdout = newOutput("stdout", newLines(filepath.Join(s.dir, "*", "stdout-*.jsonl")).read)
	s.comparison = &comparison{ledger: s.ledger, outputs: []*output{
		s.stdout, newOutput("file", newLines(filepath.Join(s.dir, "*", "out", "events.jsonl")).read),
	}}
	for _, store := range s.stores {
		s.comparison.outputs = append(s.comparison.outputs, store.output)
	}
	return s
}

// startStores starts VictoriaLogs and, if there is one, Loki. Each is a sink.
func startStores(t *testing.T, dir string) (all []stored) {
	t.Helper()
	stores := []cluster.Store{cluster.StoppedVictoriaLogsForTest(t, filepath.Join(dir, "victorialogs"))}
	if cluster.HaveLoki(t) {
		stores = append(stores, cluster.StoppedLokiForTest(t, cluster.LokiOptions{Dir: filepath.Join(dir, "loki")}))
	}
	for _, store := range stores {
		if err := store.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		all = append(all, newStored(store))
	}
	return all
}

// makeNamespaces creates the namespaces of the writers.
func makeNamespaces(t *testing.T, client kubernetes.Interface) {
	t.Helper()
	for _, name := range namespaces {
		ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}
		if _, err := client.CoreV1().Namespaces().Create(t.Context(), ns, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
}

// workingDir is the directory of a test. It is removed unless the test fails or
// -chaos.dir is set.
func workingDir(t *testing.T) string {
	t.Helper()
	if *keepIn != "" {
		dir := filepath.Join(*keepIn, t.Name())
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	dir, err := os.MkdirTemp("", "hindsight-chaos-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the output of the processes is in %s", dir)
			return
		}
		os.RemoveAll(dir)
	})
	return dir
}

// configure writes the present variant of the configuration for all replicas. The
// variants do not differ in the sinks that are compared.
func (s *scene) configure() {
	s.t.Helper()
	types := []string{"Warning", "Normal"}
	var stores strings.Builder
	for _, store := range s.stores {
		fmt.Fprintf(&stores, "  - {name: %s, loki: {url: %q, batch_wait: 200ms, timeout: 3s}}\n", store.output.name, store.SinkURL())
	}
	for i, r := range s.replicas {
		journal, election := "{}", ""
		if i == 0 {
			journal = fmt.Sprintf("{dir: %q}", r.journalDir())
		}
		if s.elects {
			election = fmt.Sprintf("leader_election: {enabled: true, namespace: %s, name: %s, lease_duration: %s, renew_deadline: 3s, retry_period: 500ms}\n", leaseNamespace, leaseName, leaseDuration)
		}
		config := fmt.Sprintf(`cluster: chaos
journal: %s
%sdrain_timeout: %ds
enrich: {workload: true, namespace_labels: {ns: kubernetes.io/metadata.name}}
sinks:
%s  - {name: stdout, stdout: {}}
  - {name: file, file: {path: %q}}
  - {name: more, match: '{type=%q}', when_full: drop_oldest, file: {path: %q, format: text}}
`, journal, election, 20+s.variant%10, stores.String(), r.filePath(), types[s.variant%2], r.morePath())
		if err := r.configure(config); err != nil {
			s.t.Fatal(err)
		}
	}
}

// pause waits for a duration of a fault.
func (s *scene) pause(d time.Duration) {
	select {
	case <-time.After(d):
	case <-s.t.Context().Done():
	}
}

// until waits until a condition holds.
func (s *scene) until(condition string, holds func() bool) {
	s.t.Helper()
	if !wait.Within(s.t.Context(), timeout, holds) {
		s.t.Fatalf("not within %v: %s\n%s", timeout, condition, s.logs(time.Now().Add(-timeout)))
	}
}

// settle waits until every sink has all states that were written before.
func (s *scene) settle() {
	s.t.Helper()
	n := len(s.ledger.all())
	var missing map[*output][]*state
	if wait.Within(s.t.Context(), timeout, func() bool {
		s.comparison.update(s.t.Context())
		missing = s.comparison.missing(n)
		return len(missing) == 0
	}) {
		return
	}
	s.t.Fatalf("states are missing %v after the last fault (seed %d)\n%s\n%s", timeout, s.seed, s.comparison.describe(missing, s.history), s.logs(earliest(missing).Add(-time.Second)))
}

func earliest(missing map[*output][]*state) time.Time {
	first := time.Now()
	for _, lost := range missing {
		for _, s := range lost {
			if s.sent.Before(first) {
				first = s.sent
			}
		}
	}
	return first
}

// leader returns the replica that holds the Lease, nil if none does.
func (s *scene) leader() *replica {
	l, err := s.lease()
	if err != nil || l.Spec.HolderIdentity == nil || l.Spec.RenewTime == nil || time.Since(l.Spec.RenewTime.Time) > leaseDuration {
		return nil
	}
	for _, r := range s.replicas {
		// Not the previous process, which may have been killed while it led.
		if _, run, err := r.running(); err == nil && strings.Contains(run.logText(), "identity="+*l.Spec.HolderIdentity) {
			return r
		}
	}
	return nil
}

func (s *scene) lease() (*coordinationv1.Lease, error) {
	ctx, cancel := context.WithTimeout(s.t.Context(), writeTimeout)
	defer cancel()
	return s.client.CoordinationV1().Leases(leaseNamespace).Get(ctx, leaseName, metav1.GetOptions{})
}

// awaitLeader waits until a replica other than the given one leads.
func (s *scene) awaitLeader(other *replica) *replica {
	s.t.Helper()
	if !s.elects {
		return s.replicas[0]
	}
	var leader *replica
	s.until("another replica leads", func() bool {
		leader = s.leader()
		return leader != nil && leader != other
	})
	if other != nil {
		s.note("%s leads", leader.name)
	}
	return leader
}

// awaitLeading waits until a replica leads.
func (s *scene) awaitLeading(one *replica) {
	s.t.Helper()
	if s.elects {
		s.until(one.name+" leads", func() bool { return s.leader() == one })
	}
}

// awaitPositions waits until the positions of all sinks in the Lease are past a
// version. Without a Lease they are in the journal with the records.
func (s *scene) awaitPositions(version uint64) {
	s.t.Helper()
	if !s.elects {
		return
	}
	s.until("the positions in the Lease are new enough", func() bool {
		l, err := s.lease()
		if err != nil {
			return false
		}
		var held struct {
			Sinks map[string]map[string]struct{ Version uint64 }
		}
		if err := json.Unmarshal([]byte(l.Annotations["hindsight/positions"]), &held); err != nil {
			return false
		}
		for _, positions := range held.Sinks {
			if positions["*"].Version < version {
				return false
			}
		}
		return len(held.Sinks) > 0
	})
}

// logs returns the logs of the replicas since a time.
func (s *scene) logs(since time.Time) string {
	const most = 40 // lines of a process
	var b strings.Builder
	for _, r := range s.replicas {
		for _, run := range r.allRuns() {
			if run.ended && run.endedAt.Before(since) {
				continue
			}
			all := linesSince(run.log, since)
			fmt.Fprintf(&b, "log of %s (%s)\n", &run, run.log)
			if left := len(all) - most; left > 0 {
				fmt.Fprintf(&b, "  … %d lines\n", left)
				all = all[left:]
			}
			for _, line := range all {
				fmt.Fprintf(&b, "  %s\n", line)
			}
		}
	}
	return b.String()
}

// linesSince returns the lines of a log from a time on. Lines without a time
// belong to those before them.
func linesSince(path string, since time.Time) (all []string) {
	f, err := os.Open(path)
	if err != nil {
		return []string{err.Error()}
	}
	defer f.Close()
	in := false
	for lines := bufio.NewScanner(f); lines.Scan(); {
		text, _, _ := strings.Cut(strings.TrimPrefix(lines.Text(), "time="), " ")
		if at, err := time.Parse(time.RFC3339Nano, text); err == nil {
			in = at.After(since)
		}
		if in {
			all = append(all, lines.Text())
		}
	}
	return all
}
