//go:build e2e

package watch

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/hindsight-events/hindsight/event"
	"github.com/hindsight-events/hindsight/test/cluster"
	"github.com/hindsight-events/hindsight/test/wait"
)

// One API server serves all steps, because a start takes seconds. Each step reads from its own
// position; the steps that change the history come last.
func TestAgainstAnAPIServer(t *testing.T) {
	t.Parallel()
	s := &server{auditLog: filepath.Join(t.TempDir(), "audit.log")}
	s.Cluster = cluster.ForTest(t, cluster.Options{APIServerFlags: auditFlags(t, s.auditLog)})
	s.client = clientFor(t, s.Config())
	for _, step := range []struct {
		name string
		run  func(*testing.T, *server)
	}{
		{"a list and a watch deliver each state once", firstStart},
		{"a restart resumes at its position", resume},
		{"a short downtime needs no list", downtimeNeedsNoList},
		{"sinks at different positions need no list", sinksBehindNeedNoList},
		{"a dead sink does not affect the others", deadSink},
		{"the API server is killed under writes", killedUnderWrites},
		{"the API server pauses", paused},
		{"etcd is unavailable", etcdLost},
		{"the position is too old for a watch", tooOldForAWatch},
		{"the position is at the boundary of a compaction", atTheBoundary},
		{"an interrupted list is read at the same version", interruptedList},
		{"the version of an interrupted list is compacted", interruptedListTooOld},
		{"a list outlives its version", listOutlivesItsVersion},
		{"permission is granted late", permissionGrantedLate},
		{"etcd is restored without a watch", restoredUnwatched},
		{"etcd is restored during a watch", restoredUnderAWatch},
		{"etcd is restored during a list", restoredDuringAList},
		{"another cluster has the address", anotherCluster},
	} {
		if !t.Run(step.name, func(t *testing.T) { step.run(t, s) }) {
			return // the next step may depend on this one
		}
	}
}

// server is an API server and a client that writes to it.
type server struct {
	*cluster.Cluster
	client   kubernetes.Interface
	auditLog string
}

func clientFor(t *testing.T, cfg *rest.Config) kubernetes.Interface {
	t.Helper()
	client, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return client
}

// write writes the next state of an Event and returns it as "name@version".
func (s *server) write(ctx context.Context, name string) (string, error) {
	events := s.client.CoreV1().Events("default")
	e, err := events.Get(ctx, name, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		now := metav1.Now()
		e, err = events.Create(ctx, &corev1.Event{
			ObjectMeta:     metav1.ObjectMeta{Name: name},
			InvolvedObject: corev1.ObjectReference{Kind: "Pod", Namespace: "default", Name: "p"},
			Reason:         "Written", FirstTimestamp: now, LastTimestamp: now, Count: 1, Type: "Normal",
		}, metav1.CreateOptions{})
	case err == nil:
		e.Count++
		e.LastTimestamp = metav1.Now()
		e, err = events.Update(ctx, e, metav1.UpdateOptions{})
	}
	if err != nil {
		return "", err
	}
	return name + "@" + e.ResourceVersion, nil
}

func (s *server) mustWrite(t *testing.T, names ...string) []string {
	t.Helper()
	var written []string
	for _, name := range names {
		state, err := s.write(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		written = append(written, state)
	}
	return written
}

// here returns the newest position.
func (s *server) here(t *testing.T) event.Position {
	t.Helper()
	revision, err := s.Revision(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	namespace, err := s.client.CoreV1().Namespaces().Get(t.Context(), "kube-system", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return event.Position{Epoch: event.Epoch{Cluster: string(namespace.UID)}, Version: uint64(revision)}
}

func (s *server) compact(t *testing.T, version uint64) {
	t.Helper()
	if err := s.Compact(t.Context(), int64(version)); err != nil {
		t.Fatal(err)
	}
}

// follow starts a Watcher.
func (s *server) follow(t *testing.T, cfg *rest.Config, start event.Position, options ...func(*Options)) *running {
	t.Helper()
	client, err := NewClient(cfg)
	if err != nil {
		t.Fatal(err)
	}
	inFile := func(o *Options) { o.SortDir = t.TempDir() }
	return follow(t, client, start, append(options, inFile)...)
}

// ours returns the emitted records, except for Events that the API server itself writes.
func ours(r *running) []event.Record {
	return slices.DeleteFunc(r.journal.all(), func(r event.Record) bool {
		return r.Event != nil && cluster.EventByAPIServer(r.Event)
	})
}

func ourStates(r *running) []string { return states(ours(r)) }

// wantEventually waits until the wanted number of states is emitted, and compares them.
func wantEventually(t *testing.T, r *running, want ...string) {
	t.Helper()
	wait.Within(t.Context(), wait.Timeout, func() bool { return len(ourStates(r)) >= len(want) })
	wantStates(t, "emitted", ourStates(r), want...)
	wantGrowing(t, r.journal.all())
}

// latest returns the last state of each name, in their order.
func latest(written []string) []string {
	last := map[string]int{}
	for i, state := range written {
		name, _, _ := strings.Cut(state, "@")
		last[name] = i
	}
	var states []string
	for _, i := range slices.Sorted(maps.Values(last)) {
		states = append(states, written[i])
	}
	return states
}

func firstStart(t *testing.T, s *server) {
	written := s.mustWrite(t, "b", "a", "b", "c")
	r := s.follow(t, s.Config(), event.Position{})
	wantEventually(t, r, latest(written)...)
	want := append(latest(written), s.mustWrite(t, "a", "a", "d", "b")...)
	wantEventually(t, r, want...)

	// The list of one Event has the newest version.
	for range 20 {
		s.mustWrite(t, "e")
		before := s.here(t).Version
		got, err := r.newestVersion(t.Context())
		if after := s.here(t).Version; err != nil || got < before || got > after { // the API server writes as well
			t.Errorf("newest version is %d, want %d to %d: %v", got, before, after, err)
		}
	}
}

func resume(t *testing.T, s *server) {
	start := s.here(t)
	r := s.follow(t, s.Config(), start)
	want := s.mustWrite(t, "a", "b")
	wantEventually(t, r, want...)
	if err := r.stop(); err != nil {
		t.Error(err)
	}
	want = s.mustWrite(t, "a", "b", "a", "new")
	if err := s.client.CoreV1().Events("default").Delete(t.Context(), "new", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	want = append(want, s.mustWrite(t, "new")...)
	wantEventually(t, s.follow(t, s.Config(), r.position()), want...)
}

// auditFlags make the API server log each list of Events before it answers.
func auditFlags(t *testing.T, log string) []string {
	t.Helper()
	policy := filepath.Join(t.TempDir(), "policy.yaml")
	err := os.WriteFile(policy, []byte(`
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [ResponseStarted, ResponseComplete]
rules:
- level: Metadata
  verbs: [list]
  resources: [{group: "", resources: [events]}]
- level: None
`), 0o600)
	if err != nil {
		t.Fatal(err)
	}
	return []string{"--audit-policy-file=" + policy, "--audit-log-path=" + log}
}

// lists returns the queries of all requested lists of Events.
func (s *server) lists(t *testing.T) []url.Values {
	t.Helper()
	log, err := os.ReadFile(s.auditLog)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	var queries []url.Values
	for line := range strings.Lines(string(log)) {
		var entry struct {
			RequestURI string `json:"requestURI"`
		}
		if err := json.Unmarshal([]byte(line), &entry); err != nil {
			t.Fatalf("audit log: %v: %s", err, line)
		}
		u, err := url.Parse(entry.RequestURI)
		if err != nil {
			t.Fatal(err)
		}
		queries = append(queries, u.Query())
	}
	return queries
}

// countedLists returns the number of lists from the API server's metrics.
func (s *server) countedLists(t *testing.T) int {
	t.Helper()
	metrics, err := s.client.Discovery().RESTClient().Get().AbsPath("/metrics").DoRaw(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(bytes.NewReader(metrics))
	if err != nil {
		t.Fatal(err)
	}
	n := 0.0
	for _, m := range families["apiserver_request_total"].GetMetric() {
		labels := map[string]string{}
		for _, l := range m.GetLabel() {
			labels[l.GetName()] = l.GetValue()
		}
		if labels["resource"] == "events" && labels["verb"] == "LIST" {
			n += m.GetCounter().GetValue()
		}
	}
	return int(n)
}

// wantProbes checks that all lists during f have limit=1, and their number.
func (s *server) wantProbes(t *testing.T, want int, f func()) {
	t.Helper()
	before, counted := len(s.lists(t)), s.countedLists(t)
	f()
	lists := s.lists(t)[before:]
	if len(lists) != want {
		t.Errorf("%d lists, want %d: %v", len(lists), want, lists)
	}
	for _, q := range lists {
		if q.Get("limit") != "1" {
			t.Errorf("list with query %v", q)
		}
	}
	// The metric counts a request at its end.
	wait.Within(t.Context(), 10*time.Second, func() bool { return s.countedLists(t)-counted >= want })
	if n := s.countedLists(t) - counted; n != want {
		t.Errorf("%d lists by the metrics, want %d", n, want)
	}
}

func downtimeNeedsNoList(t *testing.T, s *server) {
	r := s.follow(t, s.Config(), s.here(t))
	wantEventually(t, r, s.mustWrite(t, "a", "b")...)
	if err := r.stop(); err != nil {
		t.Error(err)
	}
	want := s.mustWrite(t, "a", "b", "a", "a")
	s.wantProbes(t, 1, func() { wantEventually(t, s.follow(t, s.Config(), r.position()), want...) })
}

func sinksBehindNeedNoList(t *testing.T, s *server) {
	behind := map[string]event.Position{"slow": s.here(t)}
	want := s.mustWrite(t, "a", "b")
	behind["file"] = s.here(t)
	want = append(want, s.mustWrite(t, "a", "a")...)
	start := s.here(t)
	want = append(want, s.mustWrite(t, "b")...)
	// One to detect a restore, one for the lowest position.
	s.wantProbes(t, 2, func() { wantEventually(t, s.follow(t, s.Config(), start, sinksAt(behind)), want...) })
}

func deadSink(t *testing.T, s *server) {
	dead := s.here(t)
	s.mustWrite(t, "a", "b", "a")
	want := []string{"dead:gap:too_old"}
	slow := s.here(t)
	for _, state := range stateList(t, s, dead.Version) {
		want = append(want, "dead:"+state)
	}
	want = append(want, "dead:="+slow.String())
	s.compact(t, slow.Version)
	want = append(want, s.mustWrite(t, "b", "a")...)
	start := s.here(t)
	want = append(want, s.mustWrite(t, "a", "c")...)
	r := s.follow(t, s.Config(), start, sinksAt(map[string]event.Position{"dead": dead, "slow": slow}))
	wait.Within(t.Context(), wait.Timeout, func() bool { return len(addressed(ours(r))) >= len(want) })
	wantStates(t, "emitted", addressed(ours(r)), want...)
}

func killedUnderWrites(t *testing.T, s *server) {
	r := s.follow(t, s.Config(), s.here(t))
	ctx, cancel := context.WithCancel(t.Context())
	var written []string
	unknown := 0 // failed writes, which may have succeeded in etcd
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := 0; ctx.Err() == nil; i++ {
			state, err := s.write(ctx, "k"+strconv.Itoa(i%50))
			if err != nil {
				unknown++
				time.Sleep(50 * time.Millisecond)
				continue
			}
			written = append(written, state)
		}
	}()
	for range 3 {
		time.Sleep(2 * time.Second)
		if err := s.RestartAPIServer(ctx); err != nil {
			t.Fatal(err)
		}
	}
	time.Sleep(2 * time.Second)
	cancel()
	<-done
	end := s.mustWrite(t, "end")[0]

	wait.Within(t.Context(), wait.Timeout, func() bool { return slices.Contains(r.states(), end) })
	wantGrowing(t, r.journal.all())
	got := map[string]bool{}
	for _, state := range ourStates(r) {
		got[state] = true
	}
	for _, state := range written {
		if !got[state] {
			t.Errorf("%s was written and not emitted", state)
		}
		delete(got, state)
	}
	t.Logf("%d states written, %d writes of unknown outcome, %d other states", len(written), unknown, len(got)-1)
	if len(got)-1 > unknown {
		t.Errorf("%d states more than written", len(got)-1)
	}
}

func paused(t *testing.T, s *server) {
	r := s.follow(t, s.Config(), s.here(t))
	want := s.mustWrite(t, "a")
	wantEventually(t, r, want...)
	if err := s.PauseAPIServer(); err != nil {
		t.Fatal(err)
	}
	time.Sleep(5 * time.Second)
	if err := s.ResumeAPIServer(); err != nil {
		t.Fatal(err)
	}
	want = append(want, s.mustWrite(t, "a", "b")...)
	wantEventually(t, r, want...)
}

func etcdLost(t *testing.T, s *server) {
	r := s.follow(t, s.Config(), s.here(t))
	want := s.mustWrite(t, "a")
	wantEventually(t, r, want...)
	s.KillEtcd()
	time.Sleep(5 * time.Second)
	if err := s.StartEtcd(t.Context()); err != nil {
		t.Fatal(err)
	}
	wait.Success(t, "a write after the start of etcd", func() error {
		state, err := s.write(t.Context(), "a")
		if err == nil {
			want = append(want, state)
		}
		return err
	})
	want = append(want, s.mustWrite(t, "b")...)
	wantEventually(t, r, want...)
}

func tooOldForAWatch(t *testing.T, s *server) {
	start := s.here(t)
	s.mustWrite(t, "a", "b", "a", "d")
	s.compact(t, s.here(t).Version)
	s.mustWrite(t, "c")
	want := append([]string{"gap:too_old"}, stateList(t, s, start.Version)...)
	r := s.follow(t, s.Config(), start)
	wantEventually(t, r, want...)
	want = append(want, s.mustWrite(t, "a")...)
	wantEventually(t, r, want...)
}

// stateList returns the states in the API server that are newer than a version, in version order.
func stateList(t *testing.T, s *server, than uint64) []string {
	t.Helper()
	list, err := s.client.CoreV1().Events("").List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	versions := map[uint64]string{}
	for _, e := range list.Items {
		version, err := strconv.ParseUint(e.ResourceVersion, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		if version > than && !cluster.EventByAPIServer(&e) {
			versions[version] = e.Name + "@" + e.ResourceVersion
		}
	}
	var states []string
	for _, version := range slices.Sorted(maps.Keys(versions)) {
		states = append(states, versions[version])
	}
	return states
}

func atTheBoundary(t *testing.T, s *server) {
	s.mustWrite(t, "boundary")
	start := s.here(t)
	s.mustWrite(t, "boundary")
	s.compact(t, start.Version+1)
	want := append([]string{"gap:too_old"}, s.mustWrite(t, "boundary", "after")...)
	r := s.follow(t, s.Config(), start)
	wantEventually(t, r, want...)
	want = append(want, s.mustWrite(t, "boundary")...)
	wantEventually(t, r, want...)
	if !strings.Contains(r.log.String(), "PrevKv=nil") {
		t.Error("the API server did not answer with PrevKv=nil")
	}
}

func interruptedList(t *testing.T, s *server) {
	start := s.here(t)
	want := s.mustWrite(t, "a", "b")
	start.ListVersion = s.here(t).Version
	// States of the list are overwritten and deleted.
	want = append(want, s.mustWrite(t, "a", "c")...)
	if err := s.client.CoreV1().Events("default").Delete(t.Context(), "b", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	r := s.follow(t, s.Config(), start)
	wantEventually(t, r, want...)
}

func interruptedListTooOld(t *testing.T, s *server) {
	start := s.here(t)
	s.mustWrite(t, "a", "b")
	start.ListVersion = s.here(t).Version
	s.mustWrite(t, "a", "c")
	s.compact(t, s.here(t).Version)
	want := append([]string{"gap:too_old"}, stateList(t, s, start.Version)...)
	wantEventually(t, s.follow(t, s.Config(), start), want...)
}

func listOutlivesItsVersion(t *testing.T, s *server) {
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for j := range 100 {
				if _, err := s.write(t.Context(), fmt.Sprintf("many-%d-%d", i, j)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	held := stateList(t, s, 0)
	cfg := s.Config()
	expired := make(chan []string, 1) // states written before the list continues
	var once sync.Once
	cfg.Wrap(func(next http.RoundTripper) http.RoundTripper {
		return roundTripper(func(req *http.Request) (*http.Response, error) {
			if req.URL.Query().Get("continue") != "" {
				once.Do(func() {
					var late []string
					for _, name := range []string{"late", "many-0-0"} {
						state, err := s.write(req.Context(), name)
						if err != nil {
							t.Error(err)
						}
						late = append(late, state)
					}
					revision, err := s.Revision(req.Context())
					if err == nil {
						err = s.Compact(req.Context(), revision)
					}
					if err != nil {
						t.Error(err)
					}
					expired <- late
				})
			}
			return next.RoundTrip(req)
		})
	})
	r := s.follow(t, cfg, event.Position{})
	var late []string
	select {
	case late = <-expired:
	case <-time.After(30 * time.Second):
		t.Fatal("the list has one page")
	}
	end := s.mustWrite(t, "end")[0]
	deadline := time.Now().Add(30 * time.Second)
	for !slices.Contains(r.states(), end) && time.Now().Before(deadline) {
		time.Sleep(20 * time.Millisecond)
	}
	wantGrowing(t, r.journal.all())
	// All current states are emitted once, and nearly all states from the beginning of the list.
	// Its version is compacted, so there is a gap.
	got := r.states()
	for _, state := range append(late, stateList(t, s, 0)...) {
		if !slices.Contains(got, state) {
			t.Errorf("%s was not emitted", state)
		}
	}
	missing := 0
	for _, state := range held {
		if !slices.Contains(got, state) {
			missing++
		}
	}
	if missing > 1 {
		t.Errorf("%d states from the beginning of the list were not emitted", missing)
	}
	if !slices.Contains(got, "gap:too_old") {
		t.Error("no gap")
	}
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }

func permissionGrantedLate(t *testing.T, s *server) {
	start := s.here(t)
	start.Epoch.Cluster = "" // cannot be read
	r := s.follow(t, s.ConfigFor(cluster.NobodyToken), start)
	wait.Within(t.Context(), 10*time.Second, func() bool { return r.Ready() != nil })
	if err := r.Ready(); err == nil || !strings.Contains(err.Error(), `cannot list resource "events"`) {
		t.Errorf("ready: %v; want the missing permission", err)
	}
	want := s.mustWrite(t, "a")

	rbac := s.client.RbacV1()
	_, err := rbac.ClusterRoles().Create(t.Context(), &rbacv1.ClusterRole{
		ObjectMeta: metav1.ObjectMeta{Name: "events"},
		Rules:      []rbacv1.PolicyRule{{APIGroups: []string{""}, Resources: []string{"events"}, Verbs: []string{"list", "watch"}}},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	_, err = rbac.ClusterRoleBindings().Create(t.Context(), &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "events"},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "events"},
		Subjects:   []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: "Group", Name: "system:authenticated"}},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	wantEventually(t, r, want...)
	if err := r.Ready(); err != nil {
		t.Errorf("not ready: %v", err)
	}
}

func restoredUnwatched(t *testing.T, s *server) {
	s.mustWrite(t, "a", "b")
	snapshot, err := s.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	s.mustWrite(t, "a", "b", "lost", "b")
	start := s.here(t)
	start.Version += 100 // more than the restart itself writes
	if err := s.Restore(t.Context(), snapshot); err != nil {
		t.Fatal(err)
	}
	want := append([]string{"gap:restored"}, stateList(t, s, 0)...)
	r := s.follow(t, s.Config(), start)
	wantEventually(t, r, want...)
	want = append(want, s.mustWrite(t, "after")...)
	wantEventually(t, r, want...)
	if got, want := r.position().Epoch.Restores, start.Epoch.Restores+1; got != want {
		t.Errorf("%d restores, want %d", got, want)
	}
}

func restoredUnderAWatch(t *testing.T, s *server) {
	snapshot, err := s.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	r := s.follow(t, s.Config(), s.here(t))
	var written []string
	for range 200 { // more than the restart itself writes
		written = append(written, s.mustWrite(t, "lost")...)
	}
	wantEventually(t, r, written...)
	if err := s.Restore(t.Context(), snapshot); err != nil {
		t.Fatal(err)
	}
	want := slices.Concat(written, []string{"gap:restored"}, stateList(t, s, 0))
	wantEventually(t, r, want...)
	want = append(want, s.mustWrite(t, "after")...)
	wantEventually(t, r, want...)
}

func restoredDuringAList(t *testing.T, s *server) {
	snapshot, err := s.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	for range 200 {
		s.mustWrite(t, "lost")
	}
	cfg := s.Config()
	var once sync.Once
	restored := make(chan struct{})
	cfg.Wrap(func(next http.RoundTripper) http.RoundTripper {
		return roundTripper(func(req *http.Request) (*http.Response, error) {
			if req.URL.Query().Get("continue") != "" {
				once.Do(func() {
					defer close(restored)
					if err := s.Restore(t.Context(), snapshot); err != nil {
						t.Error(err)
					}
				})
			}
			return next.RoundTrip(req)
		})
	})
	r := s.follow(t, cfg, event.Position{})
	<-restored
	want := stateList(t, s, 0)
	wantEventually(t, r, want...)
	wantEventually(t, r, append(want, s.mustWrite(t, "after")...)...)
	if !strings.Contains(r.log.String(), "Too large resource version") {
		t.Error("the API server did not refuse the continue token")
	}
}

func anotherCluster(t *testing.T, s *server) {
	start := s.here(t)
	if err := s.Reset(t.Context()); err != nil {
		t.Fatal(err)
	}
	want := append([]string{"gap:other_cluster"}, s.mustWrite(t, "x", "y")...)
	r := s.follow(t, s.Config(), start)
	wantEventually(t, r, want...)
	if got, want := r.position().Epoch, s.here(t).Epoch; got != want {
		t.Errorf("epoch %s, want %s", got, want)
	}
}
