//go:build e2e

package lease_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
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
	"github.com/hindsight-events/hindsight/test/wait"
)

const namespace = "default"

// All candidates have only the permissions that the package requires. With shorter durations than
// usual, a busy machine would look like a fault.
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
			"orderly failovers":                        s.failovers,
			"a leader is disconnected":                 s.disconnected,
			"a leader is killed":                       s.killed,
			"a leader is suspended":                    s.suspended,
			"other clients write and delete the lease": s.otherClients,
			"simultaneous candidates":                  s.simultaneous,
			"the lease is deleted repeatedly":          s.deleted,
			"the checkpoint is too large":              s.tooLarge,
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
	disconnected atomic.Bool
	leading      chan lease.Checkpoint // receives the checkpoint found in the Lease
	ended        chan error            // receives the cause of the end of its context
	done         chan error            // receives the error of Run
	stop         context.CancelFunc
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func options(cfg *rest.Config, name, identity string) lease.Options {
	return lease.Options{
		Kubernetes: cfg, Namespace: namespace, Name: name, Identity: identity,
		Duration: 15 * time.Second, RenewDeadline: 10 * time.Second, RetryPeriod: time.Second,
	}
}

func (s *server) start(t *testing.T, name, identity string, checkpoint *lease.Checkpoint) *candidate {
	t.Helper()
	c := &candidate{leading: make(chan lease.Checkpoint, 1), ended: make(chan error, 1), done: make(chan error, 1)}
	cfg := s.ConfigFor(cluster.NobodyToken)
	cfg.Wrap(func(next http.RoundTripper) http.RoundTripper {
		return roundTripper(func(r *http.Request) (*http.Response, error) {
			if c.disconnected.Load() {
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
	finished := make(chan struct{})
	go func() {
		defer close(finished)
		c.done <- c.Run(ctx, func(ctx context.Context, found lease.Checkpoint) error {
			if checkpoint != nil {
				c.SetCheckpoint(func() lease.Checkpoint { return *checkpoint })
			}
			c.leading <- found
			<-ctx.Done()
			c.ended <- context.Cause(ctx)
			return nil
		})
	}()
	t.Cleanup(func() { stop(); <-finished })
	return c
}

func receive[T any](t *testing.T, description string, from <-chan T) T {
	t.Helper()
	select {
	case v := <-from:
		return v
	case <-time.After(wait.Timeout):
		t.Fatalf("not within %v: %s", wait.Timeout, description)
		panic("unreachable")
	}
}

func at(version uint64) *lease.Checkpoint {
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
		t.Errorf("checkpoint %+v, want %+v", got, *want)
	}
}

// waitForVersion waits until the checkpoint in the Lease has a version.
func (s *server) waitForVersion(t *testing.T, name string, version uint64) {
	t.Helper()
	s.waitForAnnotation(t, name, `"version":`+strconv.FormatUint(version, 10)+`,`)
}

// waitForAnnotation waits until the checkpoint in the Lease contains a text.
func (s *server) waitForAnnotation(t *testing.T, name, text string) {
	t.Helper()
	wait.Until(t, "the checkpoint contains "+text, func() bool {
		l, err := s.admin.CoordinationV1().Leases(namespace).Get(t.Context(), name, metav1.GetOptions{})
		return err == nil && strings.Contains(l.Annotations["hindsight/positions"], text)
	})
}

func (s *server) withoutPermission(t *testing.T) {
	c := s.start(t, "permission", "a", nil)
	wait.Until(t, "the missing permission is reported", func() bool {
		err := c.Ready()
		return err != nil && strings.Contains(err.Error(), `cannot get resource "leases"`) && strings.Contains(err.Error(), `in the namespace "default"`)
	})
	meta := metav1.ObjectMeta{Name: "hindsight-lease"}
	if _, err := s.admin.RbacV1().Roles(namespace).Create(t.Context(), &rbacv1.Role{ObjectMeta: meta, Rules: []rbacv1.PolicyRule{
		{APIGroups: []string{"coordination.k8s.io"}, Resources: []string{"leases"}, Verbs: []string{"get", "create", "update", "patch"}},
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

func (s *server) failovers(t *testing.T) {
	const name = "failovers"
	first := s.start(t, name, "first", at(100))
	want(t, receive(t, "the first leads", first.leading), nil)
	second := s.start(t, name, "second", nil)
	first.stop()
	if err := receive(t, "the first ends", first.done); err != nil {
		t.Error(err)
	}
	// The release stored the checkpoint of the first, and the second, which has not set its own, keeps
	// it.
	want(t, receive(t, "the second leads", second.leading), at(100))
	third := s.start(t, name, "third", nil)
	second.stop()
	want(t, receive(t, "the third leads", third.leading), at(100))
	if !third.Leading() || first.Leading() || second.Leading() {
		t.Errorf("leading: first %v, second %v, third %v", first.Leading(), second.Leading(), third.Leading())
	}
}

func (s *server) disconnected(t *testing.T) {
	const name = "disconnected"
	first := s.start(t, name, "first", at(100))
	receive(t, "the first leads", first.leading)
	s.waitForVersion(t, name, 100)
	second := s.start(t, name, "second", nil)
	first.disconnected.Store(true)
	want(t, receive(t, "the second leads", second.leading), at(100))
	if first.Leading() {
		t.Error("two leaders")
	}
	if err := receive(t, "the context of the first ends", first.ended); !errors.Is(err, lease.ErrLost) {
		t.Errorf("its context ended with the cause %v", err)
	}
	if err := receive(t, "the first ends", first.done); !errors.Is(err, lease.ErrLost) {
		t.Errorf("Run returned %v", err)
	}
}

func (s *server) otherClients(t *testing.T) {
	const name = "other-clients"
	c := s.start(t, name, "first", at(100))
	receive(t, "it leads", c.leading)
	leases := s.admin.CoordinationV1().Leases(namespace)
	for i := range 5 {
		before, err := leases.Patch(t.Context(), name, types.MergePatchType,
			fmt.Appendf(nil, `{"metadata":{"labels":{"n":"%d"}}}`, i), metav1.PatchOptions{})
		if err != nil {
			t.Fatal(err)
		}
		wait.Until(t, "it is renewed again", func() bool {
			l, err := leases.Get(t.Context(), name, metav1.GetOptions{})
			return err == nil && l.Spec.RenewTime.After(before.Spec.RenewTime.Time) && l.Labels["n"] == strconv.Itoa(i)
		})
	}
	if err := leases.Delete(t.Context(), name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	s.waitForVersion(t, name, 100)
	if !c.Leading() {
		t.Error("is not the leader any more")
	}
}

// kubectl delete lease, with a leader and a candidate: there are never two leaders, and the leader
// continues. If the leader dies together with the Lease, the candidate leads with the last
// checkpoint that it has seen.
func (s *server) deleted(t *testing.T) {
	const name = "deleted"
	first := s.start(t, name, "first", at(100))
	receive(t, "the first leads", first.leading)
	s.waitForVersion(t, name, 100)
	second := s.start(t, name, "second", nil)

	watching, stop := context.WithCancel(t.Context())
	var both atomic.Bool
	finished := make(chan struct{})
	go func() {
		defer close(finished)
		for watching.Err() == nil {
			if first.Leading() && second.Leading() {
				both.Store(true)
			}
			time.Sleep(time.Millisecond)
		}
	}()
	defer func() { stop(); <-finished }()

	leases := s.admin.CoordinationV1().Leases(namespace)
	for range 10 {
		before, err := leases.Get(t.Context(), name, metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Kubectl(t.Context(), "delete", "lease", name, "--namespace", namespace); err != nil {
			t.Fatal(err)
		}
		wait.Until(t, "the lease is recreated", func() bool {
			l, err := leases.Get(t.Context(), name, metav1.GetOptions{})
			return err == nil && l.UID != before.UID
		})
	}
	if !first.Leading() {
		t.Error("the first is not the leader any more")
	}

	first.disconnected.Store(true)
	if _, err := s.Kubectl(t.Context(), "delete", "lease", name, "--namespace", namespace); err != nil {
		t.Fatal(err)
	}
	want(t, receive(t, "the second leads", second.leading), at(100))
	if err := receive(t, "the first ends", first.done); !errors.Is(err, lease.ErrLost) {
		t.Errorf("Run returned %v", err)
	}
	if both.Load() {
		t.Error("there were two leaders")
	}
}

// While a checkpoint is larger than the API server accepts, the Lease is renewed and keeps the
// previous one.
func (s *server) tooLarge(t *testing.T) {
	const name = "too-large"
	many := func(namespaces int) *lease.Checkpoint {
		h := at(300)
		for i := range namespaces {
			h.Sinks["loki"][fmt.Sprintf("%x", sha256.Sum256([]byte{byte(i), byte(i >> 8)}))[:20]] = h.Sinks["loki"][""]
		}
		return h
	}
	large, tooLarge := many(4000), many(8000)
	var checkpoint atomic.Pointer[lease.Checkpoint]
	checkpoint.Store(at(100))
	c := s.start(t, name, "first", nil)
	receive(t, "it leads", c.leading)
	c.SetCheckpoint(func() lease.Checkpoint { return *checkpoint.Load() })
	s.waitForVersion(t, name, 100)

	for _, test := range []struct {
		checkpoint *lease.Checkpoint
		others     int // bytes of another client's annotation
	}{{tooLarge, 0}, {large, 220 << 10}} {
		checkpoint.Store(test.checkpoint)
		leases := s.admin.CoordinationV1().Leases(namespace)
		note := fmt.Appendf(nil, `{"metadata":{"annotations":{"example.com/note":%q}}}`, strings.Repeat("x", test.others))
		if _, err := leases.Patch(t.Context(), name, types.MergePatchType, note, metav1.PatchOptions{}); err != nil {
			t.Fatal(err)
		}
		wait.Until(t, "it is unready", func() bool {
			err := c.Ready()
			return err != nil && strings.Contains(err.Error(), "checkpoint not stored since")
		})
		time.Sleep(12 * time.Second) // longer than the renew deadline
		if !c.Leading() {
			t.Fatal("is not the leader any more")
		}
		s.waitForVersion(t, name, 100)
		if _, err := leases.Patch(t.Context(), name, types.MergePatchType, []byte(`{"metadata":{"annotations":{"example.com/note":null}}}`), metav1.PatchOptions{}); err != nil {
			t.Fatal(err)
		}
		checkpoint.Store(at(100))
		wait.Until(t, "it is ready again", func() bool { return c.Ready() == nil })
	}
	checkpoint.Store(large)
	s.waitForAnnotation(t, name, `"gzip":`)
	if err := c.Ready(); err != nil {
		t.Error(err)
	}
	c.stop()
	receive(t, "it has released the lease", c.done)
	next := s.start(t, name, "next", nil)
	want(t, receive(t, "the next leads", next.leading), large)
}

func (s *server) simultaneous(t *testing.T) {
	const name = "simultaneous"
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
	if err := receive(t, "it ends", first.done); err != nil {
		t.Error(err)
	}
	second := receive(t, "another leads", leading)
	select {
	case c := <-leading:
		if second.Leading() && c.Leading() {
			t.Error("two leaders")
		}
	default:
	}
}

// killed and suspended start this test binary again, as a process of its own.
const processVariable = "HINDSIGHT_TEST_LEASE"

// TestProcess is a replica that prints the times at which it was the leader.
func TestProcess(t *testing.T) {
	name := os.Getenv(processVariable)
	if name == "" {
		t.Skip("started by other tests")
	}
	cfg := &rest.Config{Host: os.Getenv("HOST"), BearerToken: cluster.NobodyToken, TLSClientConfig: rest.TLSClientConfig{CAFile: os.Getenv("CA")}}
	l, err := lease.New(options(cfg, name, "process"))
	if err != nil {
		t.Fatal(err)
	}
	err = l.Run(t.Context(), func(ctx context.Context, _ lease.Checkpoint) error {
		l.SetCheckpoint(func() lease.Checkpoint { return *at(100) })
		for ctx.Err() == nil {
			now := time.Now()
			if _, ok := l.Valid(); ok {
				fmt.Println("leads", now.UnixNano())
			}
			time.Sleep(10 * time.Millisecond)
		}
		return nil
	})
	if errors.Is(err, lease.ErrLost) {
		fmt.Println("lost")
	}
}

// process starts a replica in a process of its own. led is the last time at which it was the
// leader, in nanoseconds.
func (s *server) process(t *testing.T, name string) (cmd *exec.Cmd, led *atomic.Int64, lost chan bool) {
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
	led, lost = new(atomic.Int64), make(chan bool, 1)
	read := make(chan struct{})
	go func() {
		defer close(read)
		printed := false
		for lines := bufio.NewScanner(stdout); lines.Scan(); {
			if at, ok := strings.CutPrefix(lines.Text(), "leads "); ok {
				ns, _ := strconv.ParseInt(at, 10, 64)
				led.Store(ns)
			}
			printed = printed || lines.Text() == "lost"
		}
		lost <- printed
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-read
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("stderr of the process: %s", &stderr)
		}
	})
	wait.Until(t, "the process leads", func() bool { return led.Load() > 0 })
	s.waitForVersion(t, name, 100)
	return cmd, led, lost
}

func (s *server) killed(t *testing.T) {
	const name = "killed"
	process, _, _ := s.process(t, name)
	second := s.start(t, name, "second", nil)
	if err := process.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	want(t, receive(t, "the second leads", second.leading), at(100))
}

func (s *server) suspended(t *testing.T) {
	const name = "suspended"
	process, led, lost := s.process(t, name)
	second := s.start(t, name, "second", nil)
	if err := process.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	want(t, receive(t, "the second leads", second.leading), at(100))
	acquired := time.Now()
	if err := process.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	if !receive(t, "the process ends", lost) {
		t.Error("the process did not notice that it had lost the lease")
	}
	if at := time.Unix(0, led.Load()); at.After(acquired) {
		t.Errorf("the process was still the leader %v after another replica acquired the lease", at.Sub(acquired))
	}
	if !second.Leading() {
		t.Error("the second is not the leader any more")
	}
}
