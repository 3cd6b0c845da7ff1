//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/events"
	"k8s.io/client-go/tools/record"

	"github.com/hindsight-events/hindsight/test/cluster"
	"github.com/hindsight-events/hindsight/test/wait"
)

// Every state is delivered once and in order, from every kind of client, while the
// API server is killed and etcd compacted.
func TestEveryStateOnce(t *testing.T) {
	t.Parallel()
	c := cluster.ForTest(t, cluster.Options{})
	client := newClient(t, c)
	ledger := newLedger()
	// Some Events exist before the start.
	for i := range 20 {
		mustCreate(t, ledger, client, newEvent("default", fmt.Sprintf("before.%d", i), "there before"))
	}
	p := start(t, c.Kubeconfig(), "")
	awaitDelivered(t, p, ledger) // no state may be overwritten before this

	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var writers sync.WaitGroup
	writers.Go(func() { recordCore(ctx, t, client, ledger) })
	writers.Go(func() { recordSeries(ctx, t, client, ledger) })
	writers.Go(func() { writePlain(ctx, client, ledger) })

	for _, text := range hostile {
		mustCreate(t, ledger, client, newEvent("default", "hostile.", text))
	}
	createByKubectl(t, c, client, ledger)
	compacted := int64(0)
	for round := range 3 {
		var revision int64
		wait.Until(t, "something was written since the last compaction", func() bool {
			var err error
			revision, err = c.Revision(t.Context())
			return err == nil && revision > compacted
		})
		wait.Until(t, "all states before the compaction are delivered", func() bool {
			seen := p.seen()
			return len(seen) > 0 && mustParse(t, seen[len(seen)-1].Event.Metadata.ResourceVersion) >= uint64(revision)
		})
		if err := c.Compact(t.Context(), revision); err != nil {
			t.Fatal(err)
		}
		compacted = revision
		if round == 1 {
			continue // a compaction only
		}
		c.KillAPIServer()
		if err := c.StartAPIServer(t.Context()); err != nil {
			t.Fatal(err)
		}
		before := ledger.len()
		wait.Until(t, "Events are written again", func() bool { return ledger.len() > before+50 })
	}
	stop()
	writers.Wait()
	awaitDelivered(t, p, ledger)
	if code := p.terminate(); code != 0 {
		t.Errorf("exit code %d, want 0", code)
	}
	wantOrder(t, p)
	for _, s := range p.seen() {
		if s.Event.Reason == "HindsightGap" {
			t.Errorf("a gap was declared without a cause: %s", s.Event.Message)
		}
	}
	wantMessages(t, p)
	t.Logf("%d states written, %d came out", ledger.len(), len(p.seen()))
}

// wantMessages checks that messages are delivered unchanged.
func wantMessages(t *testing.T, p *running) {
	t.Helper()
	got := map[string]bool{}
	for _, s := range p.seen() {
		got[s.Event.Message] = true
	}
	for _, text := range hostile {
		if !got[text] {
			t.Errorf("a message was not delivered unchanged: %.100q", text)
		}
	}
}

var hostile = []string{
	"two\nlines",
	"carriage\rreturn and tab\t",
	`quotes " and \ backslashes`,
	`{"verb":"ADDED","event":{"metadata":{"uid":"forged"}}}` + "\n" + `{"verb":"ADDED","event":{}}`,
	"\x1b[31mred\x1b[0m \u009b2J",
	"NUL \x00 in the middle",
	"right to left \u202e override, separator \u2028 line",
	"emoji 🐳 and umlauts äöü",
	strings.Repeat("long ", 40_000), // 200 KB
}

func TestGapIsDeclared(t *testing.T) {
	t.Parallel()
	c := cluster.ForTest(t, cluster.Options{})
	client := newClient(t, c)
	before, after := newLedger(), newLedger()
	mustCreate(t, before, client, newEvent("default", "before.", "before"))
	p := start(t, c.Kubeconfig(), "")
	awaitDelivered(t, p, before)

	// While hindsight is paused, an Event is created and updated, and etcd is
	// compacted.
	if err := p.Pause(); err != nil {
		t.Fatal(err)
	}
	if err := c.RestartAPIServer(t.Context()); err != nil {
		t.Fatal(err)
	}
	e, err := client.CoreV1().Events("default").Create(t.Context(), newEvent("default", "inside.", "first"), metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	time.Sleep(1100 * time.Millisecond) // the API server's times are in seconds
	e.Count = 2
	if e, err = client.CoreV1().Events("default").Update(t.Context(), e, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	after.wrote(e, "updated in the gap")
	mustCreate(t, after, client, newEvent("default", "after.", "after"))
	revision, err := c.Revision(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Compact(t.Context(), revision); err != nil {
		t.Fatal(err)
	}
	if err := p.Resume(); err != nil {
		t.Fatal(err)
	}
	awaitDelivered(t, p, after)
	if code := p.terminate(); code != 0 {
		t.Errorf("exit code %d, want 0", code)
	}
	wantOrder(t, p)
	var gaps []state
	for _, s := range p.seen() {
		if s.Event.Reason == "HindsightGap" {
			gaps = append(gaps, s)
		}
	}
	if len(gaps) != 1 {
		t.Fatalf("%d gaps were declared, want 1", len(gaps))
	}
	notes := gaps[0].Event.Metadata.Annotations
	if notes["hindsight/cause"] != "too_old" || notes["hindsight/missed_at_least"] != "1" {
		t.Errorf("the gap has the annotations %v, want the cause too_old and at least 1 missed", notes)
	}
}

func TestConfiguredNamespacesNeedRolesOnly(t *testing.T) {
	t.Parallel()
	c := cluster.ForTest(t, cluster.Options{})
	client := newClient(t, c)
	inside, outside := newLedger(), newLedger()
	for _, ns := range []string{"team-a", "team-b", "team-c"} {
		if _, err := client.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: ns}}, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := client.CoreV1().ServiceAccounts("team-a").Create(t.Context(), &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "hindsight"}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	allow := func(ns string) {
		t.Helper()
		role := &rbacv1.Role{
			ObjectMeta: metav1.ObjectMeta{Name: "hindsight"},
			Rules:      []rbacv1.PolicyRule{{APIGroups: []string{""}, Resources: []string{"events"}, Verbs: []string{"list", "watch"}}},
		}
		binding := &rbacv1.RoleBinding{
			ObjectMeta: metav1.ObjectMeta{Name: "hindsight"},
			Subjects:   []rbacv1.Subject{{Kind: "ServiceAccount", Namespace: "team-a", Name: "hindsight"}},
			RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: "hindsight"},
		}
		if _, err := client.RbacV1().Roles(ns).Create(t.Context(), role, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		if _, err := client.RbacV1().RoleBindings(ns).Create(t.Context(), binding, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	allow("team-a")
	token, err := c.ServiceAccountToken(t.Context(), "team-a", "hindsight")
	if err != nil {
		t.Fatal(err)
	}
	kubeconfig := t.TempDir() + "/kubeconfig"
	if err := c.WriteKubeconfig(kubeconfig, token); err != nil {
		t.Fatal(err)
	}

	p := start(t, kubeconfig, "source: {namespaces: [team-a, team-b]}\nsinks: [{name: out, stdout: {}}]\n")
	mustCreate(t, inside, client, newEvent("team-a", "a.", "of team-a"))
	mustCreate(t, outside, client, newEvent("team-c", "c.", "of team-c"))
	awaitDelivered(t, p, inside)

	// The missing permission is logged, and used as soon as it is granted.
	wait.Until(t, "the missing permission is logged", func() bool { return p.Logged("team-b") && p.Logged("forbidden") })
	mustCreate(t, inside, client, newEvent("team-b", "b.", "of team-b"))
	allow("team-b")
	awaitDelivered(t, p, inside)
	if got := len(outside.missing(p.seen())); got != 1 {
		t.Error("an Event of another namespace was delivered")
	}
	if code := p.terminate(); code != 0 {
		t.Errorf("exit code %d, want 0", code)
	}
}

func TestUnreadPipe(t *testing.T) {
	t.Parallel()
	c := cluster.ForTest(t, cluster.Options{})
	client := newClient(t, c)
	const config = "journal: {max_bytes: 1MiB}\ndrain_timeout: 2s\nsinks: [{name: out, stdout: {}}]\n"
	start := func() (*running, *os.File) {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		p := startWith(t, c.Kubeconfig(), config, w, &states{})
		w.Close()
		t.Cleanup(func() { r.Close() })
		return p, r
	}
	p, r := start()
	ledger := newLedger()
	for i := range 600 { // 6 MB: six times the journal
		mustCreate(t, ledger, client, newEvent("default", fmt.Sprintf("many.%d.", i), strings.Repeat("x", 10_000)))
	}
	wait.Until(t, "the journal is full", func() bool {
		status, body := p.get("/readyz")
		return status == 503 && strings.Contains(body, "journal")
	})
	_, metrics := p.get("/metrics")
	if !strings.Contains(metrics, "hindsight_journal_bytes") {
		t.Error("hindsight_journal_bytes is missing in the metrics")
	}

	// Once the pipe is read, all states are delivered.
	go io.Copy(p.states, r)
	awaitDelivered(t, p, ledger)
	wantOrder(t, p)
	p.untilReady()

	// If the pipe is never read, the program exits at the drain timeout with an error.
	p, _ = start()
	wait.Until(t, "the journal is full", func() bool { status, _ := p.get("/readyz"); return status == 503 })
	if code := p.terminate(); code != 1 {
		t.Errorf("exit code %d, want 1", code)
	}
	if !p.Logged("not delivered") {
		t.Errorf("no error about undelivered records:\n%s", p.Log())
	}
}

func TestClosedPipe(t *testing.T) {
	t.Parallel()
	c := cluster.ForTest(t, cluster.Options{})
	client := newClient(t, c)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	p := startWith(t, c.Kubeconfig(), "", w, &states{})
	w.Close()
	r.Close()
	mustCreate(t, newLedger(), client, newEvent("default", "one.", "never read"))
	if code := p.exitCode(); code != 1 {
		t.Errorf("exit code %d, want 1", code)
	}
	if !p.Logged("hindsight: sink stdout: write stdout: write /dev/stdout: broken pipe") {
		t.Errorf("no error about the pipe:\n%s", p.Log())
	}
}

func newClient(t *testing.T, c *cluster.Cluster) kubernetes.Interface {
	t.Helper()
	cfg := c.Config()
	cfg.QPS = -1
	client, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return client
}

func newEvent(namespace, prefix, message string) *corev1.Event {
	now := metav1.Now()
	return &corev1.Event{
		ObjectMeta:     metav1.ObjectMeta{Namespace: namespace, GenerateName: prefix},
		InvolvedObject: corev1.ObjectReference{APIVersion: "v1", Kind: "Pod", Namespace: namespace, Name: "web-0"},
		Reason:         "Testing",
		Message:        message,
		Type:           corev1.EventTypeNormal,
		FirstTimestamp: now,
		LastTimestamp:  now,
		Count:          1,
	}
}

func mustCreate(t *testing.T, l *ledger, client kubernetes.Interface, e *corev1.Event) {
	t.Helper()
	if _, err := l.put(t.Context(), client, e); err != nil {
		t.Fatal(err)
	}
}

// writePlain creates Events and increases their counts until ctx ends. It completes a
// request that it has sent, so that the ledger is complete.
func writePlain(ctx context.Context, client kubernetes.Interface, l *ledger) {
	requests := context.WithoutCancel(ctx)
	for i := 0; ctx.Err() == nil; i++ {
		e, err := l.put(requests, client, newEvent("default", fmt.Sprintf("plain.%d.", i), "plain"))
		for count := int32(2); err == nil && count <= 3; count++ {
			e.Count = count
			if e, err = client.CoreV1().Events("default").Update(requests, e, metav1.UpdateOptions{}); err == nil {
				l.wrote(e, "updated")
			}
		}
		pause(ctx, 20*time.Millisecond)
	}
}

// recordCore writes with the recorder of core/v1 until ctx ends.
func recordCore(ctx context.Context, t *testing.T, client kubernetes.Interface, l *ledger) {
	b := record.NewBroadcaster(record.WithContext(ctx), record.WithSleepDuration(100*time.Millisecond),
		record.WithCorrelatorOptions(record.CorrelatorOptions{BurstSize: 10_000, QPS: 1000}))
	defer b.Shutdown()
	b.StartRecordingToSink(newCoreSink(client, l))
	r := b.NewRecorder(scheme.Scheme, corev1.EventSource{Component: "test", Host: "node-1"})
	for i := 0; ctx.Err() == nil; i++ {
		pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: fmt.Sprintf("pod-%d", i/5), UID: "1"}}
		r.Event(pod, corev1.EventTypeWarning, "BackOff", "Back-off restarting failed container")
		pause(ctx, 20*time.Millisecond)
	}
}

// recordSeries writes with the recorder of events.k8s.io until ctx ends.
func recordSeries(ctx context.Context, t *testing.T, client kubernetes.Interface, l *ledger) {
	b := events.NewBroadcaster(newSeriesSink(client, l))
	defer b.Shutdown()
	if err := b.StartRecordingToSinkWithContext(ctx); err != nil {
		t.Error(err)
		return
	}
	r := b.NewRecorder(scheme.Scheme, "example.com/test")
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "node-1"}}
	for i := 0; ctx.Err() == nil; i++ {
		pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: fmt.Sprintf("pod-%d", i/5), UID: "1"}}
		r.Eventf(pod, node, corev1.EventTypeNormal, "Scheduled", "Binding", "assigned to %s", node.Name)
		r.Eventf(node, nil, corev1.EventTypeWarning, "NodeNotReady", "Watching", "not ready, %d", i)
		pause(ctx, 50*time.Millisecond)
	}
}

func createByKubectl(t *testing.T, c *cluster.Cluster, client kubernetes.Interface, l *ledger) {
	t.Helper()
	const manifest = `{"apiVersion":"v1","kind":"Event","metadata":{"name":"by-kubectl","namespace":"default"},
"involvedObject":{"kind":"Service","name":"web","namespace":"default"},"reason":"Tried","message":"by hand","type":"Normal"}`
	cmd := c.KubectlCommand(t.Context(), "create", "-f", "-")
	cmd.Stdin = strings.NewReader(manifest)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("kubectl create: %v\n%s", err, out)
	}
	e, err := client.CoreV1().Events("default").Get(t.Context(), "by-kubectl", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	l.wrote(e, "created by kubectl")
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
