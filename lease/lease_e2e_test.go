//go:build e2e

package lease_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"reflect"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/hindsight-events/hindsight/event"
	"github.com/hindsight-events/hindsight/lease"
	"github.com/hindsight-events/hindsight/test/cluster"
)

const namespace = "default"

// All candidates have the permissions that the package asks for and no others.
// The usual durations: shorter ones would make a busy machine look like a fault.
func TestAgainstAnAPIServer(t *testing.T) {
	c := cluster.ForTest(t, cluster.Options{})
	admin, err := kubernetes.NewForConfig(c.Config())
	if err != nil {
		t.Fatal(err)
	}
	s := &server{Cluster: c, admin: admin}
	t.Run("without permission", s.withoutPermission)
	t.Run("group", func(t *testing.T) {
		for name, run := range map[string]func(*testing.T){
			"three candidates, one after the other": s.inTurn,
			"a leader is cut off":                   s.cutOff,
			"a leader is killed":                    s.killed,
			"a leader stands still":                 s.stopped,
			"others write the lease, and delete it": s.otherWriters,
			"candidates at the same instant":        s.race,
			"the lease is deleted, others wait":     s.deleted,
			"positions do not fit":                  s.tooLarge,
		} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				run(t)
			})
		}
	})
}

type server struct {
	*cluster.Cluster
	admin kubernetes.Interface
}

// candidate is a replica in this process.
type candidate struct {
	*lease.Lease
	cut     atomic.Bool           // from the API server
	leading chan lease.Checkpoint // what it took over
	ended   chan error            // what its context ended by
	done    chan error            // what Run returned
	stop    context.CancelFunc
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func options(cfg *rest.Config, name, identity string) lease.Options {
	return lease.Options{
		Kubernetes: cfg, Namespace: namespace, Name: name, Identity: identity,
		Duration: 15 * time.Second, RenewDeadline: 10 * time.Second, RetryPeriod: time.Second,
	}
}

func (s *server) start(t *testing.T, name, identity string, keep *lease.Checkpoint) *candidate {
	t.Helper()
	c := &candidate{leading: make(chan lease.Checkpoint, 1), ended: make(chan error, 1), done: make(chan error, 1)}
	cfg := s.ConfigFor(cluster.NobodyToken)
	cfg.Wrap(func(next http.RoundTripper) http.RoundTripper {
		return roundTripper(func(r *http.Request) (*http.Response, error) {
			if c.cut.Load() {
				<-r.Context().Done()
				return nil, r.Context().Err()
			}
			return next.RoundTrip(r)
		})
	})
	o := options(cfg, name, identity)
	o.Logger = slog.New(slog.NewTextHandler(t.Output(), nil)).With("replica", identity)
	var err error
	if c.Lease, err = lease.New(o); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	c.stop = stop
	over := make(chan struct{})
	go func() {
		defer close(over)
		c.done <- c.Run(ctx, func(ctx context.Context, held lease.Checkpoint) error {
			if keep != nil {
				c.SetCheckpoint(func() lease.Checkpoint { return *keep })
			}
			c.leading <- held
			<-ctx.Done()
			c.ended <- context.Cause(ctx)
			return nil
		})
	}()
	t.Cleanup(func() { stop(); <-over })
	return c
}

// within is for what has to happen, however slow the machine is.
const within = 2 * time.Minute

func receive[T any](t *testing.T, what string, from <-chan T) T {
	t.Helper()
	select {
	case v := <-from:
		return v
	case <-time.After(within):
		t.Fatalf("not within %v: %s", within, what)
		panic("unreachable")
	}
}

func taken(version uint64) *lease.Checkpoint {
	p := event.Position{Epoch: event.Epoch{Cluster: "5a3c0d7e"}, Version: version, Time: time.Unix(1563534000, 0).UTC()}
	return &lease.Checkpoint{
		Sinks: map[string]map[string]event.Position{"loki": {"": p}},
		Gaps:  []event.Gap{{From: p, To: p, Cause: event.CauseTooOld}},
	}
}

func want(t *testing.T, got lease.Checkpoint, want *lease.Checkpoint) {
	t.Helper()
	if want == nil {
		want = &lease.Checkpoint{}
	}
	if !reflect.DeepEqual(got, *want) {
		t.Errorf("held %+v, want %+v", got, *want)
	}
}

// eventually waits until ok returns true, which it is asked often.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(within); !ok(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", within, what)
		}
	}
}

// says waits until the Lease says that much.
func (s *server) says(t *testing.T, name string, version uint64) {
	t.Helper()
	eventually(t, "the lease says the position", func() bool {
		l, err := s.admin.CoordinationV1().Leases(namespace).Get(t.Context(), name, metav1.GetOptions{})
		return err == nil && strings.Contains(l.Annotations["hindsight/positions"], `"version":`+strconv.FormatUint(version, 10)+`,`)
	})
}

func (s *server) withoutPermission(t *testing.T) {
	c := s.start(t, "permission", "a", nil)
	eventually(t, "it is said that permission is missing", func() bool {
		err := c.Ready()
		return err != nil && strings.Contains(err.Error(), `cannot get resource "leases"`) && strings.Contains(err.Error(), `in the namespace "default"`)
	})
	meta := metav1.ObjectMeta{Name: "hindsight-lease"}
	if _, err := s.admin.RbacV1().Roles(namespace).Create(t.Context(), &rbacv1.Role{ObjectMeta: meta, Rules: []rbacv1.PolicyRule{
		{APIGroups: []string{"coordination.k8s.io"}, Resources: []string{"leases"}, Verbs: []string{"get", "create", "update"}},
	}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.admin.RbacV1().RoleBindings(namespace).Create(t.Context(), &rbacv1.RoleBinding{
		ObjectMeta: meta,
		Subjects:   []rbacv1.Subject{{Kind: rbacv1.UserKind, Name: "nobody", APIGroup: rbacv1.GroupName}},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: meta.Name},
	}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	want(t, receive(t, "it leads", c.leading), nil)
	if err := c.Ready(); err != nil {
		t.Error(err)
	}
}

func (s *server) inTurn(t *testing.T) {
	const name = "in-turn"
	first := s.start(t, name, "first", taken(100))
	want(t, receive(t, "the first leads", first.leading), nil)
	second := s.start(t, name, "second", nil)
	first.stop()
	if err := receive(t, "the first has ended", first.done); err != nil {
		t.Error(err)
	}
	// What the first held at its end is there, whether or not it was ever renewed;
	// and the second, which keeps nothing of its own, hands it on.
	want(t, receive(t, "the second leads", second.leading), taken(100))
	third := s.start(t, name, "third", nil)
	second.stop()
	want(t, receive(t, "the third leads", third.leading), taken(100))
	if !third.Leading() || first.Leading() || second.Leading() {
		t.Errorf("leading: first %v, second %v, third %v", first.Leading(), second.Leading(), third.Leading())
	}
}

func (s *server) cutOff(t *testing.T) {
	const name = "cut-off"
	first := s.start(t, name, "first", taken(100))
	receive(t, "the first leads", first.leading)
	s.says(t, name, 100)
	second := s.start(t, name, "second", nil)
	first.cut.Store(true)
	want(t, receive(t, "the second leads", second.leading), taken(100))
	if first.Leading() {
		t.Error("two lead")
	}
	if err := receive(t, "the first is told", first.ended); !errors.Is(err, lease.ErrLost) {
		t.Errorf("its context ended by %v", err)
	}
	if err := receive(t, "the first has ended", first.done); !errors.Is(err, lease.ErrLost) {
		t.Errorf("Run returned %v", err)
	}
}

func (s *server) otherWriters(t *testing.T) {
	const name = "other-writers"
	c := s.start(t, name, "first", taken(100))
	receive(t, "it leads", c.leading)
	leases := s.admin.CoordinationV1().Leases(namespace)
	for i := range 5 {
		before, err := leases.Patch(t.Context(), name, types.MergePatchType,
			fmt.Appendf(nil, `{"metadata":{"labels":{"n":"%d"}}}`, i), metav1.PatchOptions{})
		if err != nil {
			t.Fatal(err)
		}
		eventually(t, "it is renewed again", func() bool {
			l, err := leases.Get(t.Context(), name, metav1.GetOptions{})
			return err == nil && l.Spec.RenewTime.After(before.Spec.RenewTime.Time) && l.Labels["n"] == strconv.Itoa(i)
		})
	}
	if err := leases.Delete(t.Context(), name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	s.says(t, name, 100)
	if !c.Leading() {
		t.Error("does not lead any more")
	}
}

// kubectl delete lease while one replica leads and another waits: never do both
// lead, and the leader goes on. After one that died with its Lease, the other leads
// with the positions that it had seen.
func (s *server) deleted(t *testing.T) {
	const name = "deleted"
	first := s.start(t, name, "first", taken(100))
	receive(t, "the first leads", first.leading)
	s.says(t, name, 100)
	second := s.start(t, name, "second", nil)

	watching, stop := context.WithCancel(t.Context())
	var both atomic.Bool
	over := make(chan struct{})
	go func() {
		defer close(over)
		for watching.Err() == nil {
			if first.Leading() && second.Leading() {
				both.Store(true)
			}
			time.Sleep(time.Millisecond)
		}
	}()
	defer func() { stop(); <-over }()

	leases := s.admin.CoordinationV1().Leases(namespace)
	for range 10 {
		before, err := leases.Get(t.Context(), name, metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Kubectl(t.Context(), "delete", "lease", name, "--namespace", namespace); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the lease is made again", func() bool {
			l, err := leases.Get(t.Context(), name, metav1.GetOptions{})
			return err == nil && l.UID != before.UID
		})
	}
	if !first.Leading() {
		t.Error("the first does not lead any more")
	}

	first.cut.Store(true)
	if _, err := s.Kubectl(t.Context(), "delete", "lease", name, "--namespace", namespace); err != nil {
		t.Fatal(err)
	}
	want(t, receive(t, "the second leads", second.leading), taken(100))
	if err := receive(t, "the first has ended", first.done); !errors.Is(err, lease.ErrLost) {
		t.Errorf("Run returned %v", err)
	}
	if both.Load() {
		t.Error("two led at a time")
	}
}

// What the API server would refuse costs neither the Lease nor the positions that
// it has.
func (s *server) tooLarge(t *testing.T) {
	const name = "too-large"
	many := func(namespaces int) *lease.Checkpoint {
		h := taken(300)
		for i := range namespaces {
			h.Sinks["loki"][fmt.Sprintf("namespace-of-a-team-%d", i)] = h.Sinks["loki"][""]
		}
		return h
	}
	fits, tooMany := many(2000), many(5000)
	var keep atomic.Pointer[lease.Checkpoint]
	keep.Store(taken(100))
	c := s.start(t, name, "first", nil)
	receive(t, "it leads", c.leading)
	c.SetCheckpoint(func() lease.Checkpoint { return *keep.Load() })
	s.says(t, name, 100)

	for _, test := range []struct {
		held   *lease.Checkpoint
		others int // bytes of somebody else's annotation
	}{{tooMany, 0}, {fits, 120 << 10}} {
		keep.Store(test.held)
		leases := s.admin.CoordinationV1().Leases(namespace)
		note := fmt.Appendf(nil, `{"metadata":{"annotations":{"example.com/note":%q}}}`, strings.Repeat("x", test.others))
		if _, err := leases.Patch(t.Context(), name, types.MergePatchType, note, metav1.PatchOptions{}); err != nil {
			t.Fatal(err)
		}
		eventually(t, "it is unready", func() bool {
			err := c.Ready()
			return err != nil && strings.Contains(err.Error(), "positions are not saved since")
		})
		time.Sleep(12 * time.Second) // longer than the renew deadline
		if !c.Leading() {
			t.Fatal("does not lead any more")
		}
		s.says(t, name, 100)
		if _, err := leases.Patch(t.Context(), name, types.MergePatchType, []byte(`{"metadata":{"annotations":{"example.com/note":null}}}`), metav1.PatchOptions{}); err != nil {
			t.Fatal(err)
		}
		keep.Store(taken(100))
		eventually(t, "it is ready again", func() bool { return c.Ready() == nil })
	}
	keep.Store(fits)
	s.says(t, name, 300)
	if err := c.Ready(); err != nil {
		t.Error(err)
	}
}

func (s *server) race(t *testing.T) {
	const name = "race"
	leading := make(chan *candidate, 3)
	for _, identity := range []string{"a", "b", "c"} {
		c := s.start(t, name, identity, nil)
		go func() {
			select {
			case <-c.leading:
				leading <- c
			case <-t.Context().Done():
			}
		}()
	}
	first := receive(t, "one leads", leading)
	first.stop()
	if err := receive(t, "it has ended", first.done); err != nil {
		t.Error(err)
	}
	second := receive(t, "another leads", leading)
	select {
	case c := <-leading:
		if second.Leading() && c.Leading() {
			t.Error("two lead")
		}
	default:
	}
}

// killed and stopped are about processes: this test, started again.
const processVariable = "HINDSIGHT_TEST_LEASE"

// TestProcess is a replica: it says when it leads, and then, over and over, when
// it last knew that it may act.
func TestProcess(t *testing.T) {
	name := os.Getenv(processVariable)
	if name == "" {
		t.Skip("is started by other tests")
	}
	cfg := &rest.Config{Host: os.Getenv("HOST"), BearerToken: cluster.NobodyToken, TLSClientConfig: rest.TLSClientConfig{CAFile: os.Getenv("CA")}}
	l, err := lease.New(options(cfg, name, "process"))
	if err != nil {
		t.Fatal(err)
	}
	err = l.Run(t.Context(), func(ctx context.Context, _ lease.Checkpoint) error {
		l.SetCheckpoint(func() lease.Checkpoint { return *taken(100) })
		for ctx.Err() == nil {
			now := time.Now()
			if _, ok := l.Valid(); ok {
				fmt.Println("acts", now.UnixNano())
			}
			time.Sleep(10 * time.Millisecond)
		}
		return nil
	})
	if errors.Is(err, lease.ErrLost) {
		fmt.Println("lost")
	}
}

// process starts a replica of its own; acted is when it last acted, in ns.
func (s *server) process(t *testing.T, name string) (cmd *exec.Cmd, acted *atomic.Int64, lost chan bool) {
	t.Helper()
	cmd = exec.Command(os.Args[0], "-test.run=^TestProcess$")
	cmd.Env = append(os.Environ(), processVariable+"="+name, "HOST="+s.URL(), "CA="+s.CAFile())
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	acted, lost = new(atomic.Int64), make(chan bool, 1)
	read := make(chan struct{})
	go func() {
		defer close(read)
		said := false
		for lines := bufio.NewScanner(stdout); lines.Scan(); {
			if at, ok := strings.CutPrefix(lines.Text(), "acts "); ok {
				ns, _ := strconv.ParseInt(at, 10, 64)
				acted.Store(ns)
			}
			said = said || lines.Text() == "lost"
		}
		lost <- said
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-read
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("the process said on its standard error: %s", &stderr)
		}
	})
	eventually(t, "the process leads", func() bool { return acted.Load() > 0 })
	s.says(t, name, 100)
	return cmd, acted, lost
}

func (s *server) killed(t *testing.T) {
	const name = "killed"
	process, _, _ := s.process(t, name)
	second := s.start(t, name, "second", nil)
	if err := process.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	want(t, receive(t, "the second leads", second.leading), taken(100))
}

func (s *server) stopped(t *testing.T) {
	const name = "stopped"
	process, acted, lost := s.process(t, name)
	second := s.start(t, name, "second", nil)
	if err := process.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	want(t, receive(t, "the second leads", second.leading), taken(100))
	taken := time.Now()
	if err := process.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	if !receive(t, "the process ends", lost) {
		t.Error("the process did not find that it had lost the lease")
	}
	if at := time.Unix(0, acted.Load()); at.After(taken) {
		t.Errorf("the process acted %v after another led", at.Sub(taken))
	}
	if !second.Leading() {
		t.Error("the second does not lead any more")
	}
}
