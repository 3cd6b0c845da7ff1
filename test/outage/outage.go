// Package outage re-enacts a published production outage of July 2019: a
// PriorityClass with globalDefault made every new pod worth more than every
// running one, and a deployment of six pods set off a cascade in which a
// production service was preempted by its own replacements.
//
// The scheduler, the controllers and their Events are real. The Events of kubelets, kube-proxies,
// the node controller and an autoscaler are simulated, through client-go's recorders.
package outage

import (
	"context"
	"embed"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/tools/events"
	"k8s.io/client-go/tools/record"

	"github.com/hindsight-events/hindsight/test/cluster"
)

const (
	phaseTimeout = 2 * time.Minute // timeout of each phase
	quiet        = 5 * time.Second // without a preemption: the cascade is over
	nodeLost     = 4 * time.Second
	settle       = 3 * time.Second // for recorders to flush
)

//go:embed manifests/*.yaml
var manifests embed.FS

// stage is the state of the re-enactment.
type stage struct {
	cluster     *cluster.Cluster
	client      kubernetes.Interface
	broadcaster record.EventBroadcaster // of core/v1 Events
	proxy       events.EventRecorder    // of events.k8s.io/v1 Events
}

// Reenact plays the outage in an empty cluster, in about two minutes, and returns
// when its Events have been written. It starts the scheduler and the controller
// manager and leaves them running; the simulated components end with it.
func Reenact(ctx context.Context, c *cluster.Cluster) error {
	client, err := kubernetes.NewForConfig(c.Config())
	if err != nil {
		return fmt.Errorf("re-enact the outage: %w", err)
	}
	s := &stage{cluster: c, client: client, broadcaster: record.NewBroadcaster()}
	defer s.broadcaster.Shutdown()
	s.broadcaster.StartRecordingToSink(&typedcorev1.EventSinkImpl{Interface: client.CoreV1().Events("")})
	proxies := events.NewBroadcaster(&events.EventSinkImpl{Interface: client.EventsV1()})
	defer proxies.Shutdown()
	if err := proxies.StartRecordingToSinkWithContext(ctx); err != nil {
		return fmt.Errorf("re-enact the outage: %w", err)
	}
	s.proxy = proxies.NewRecorder(scheme.Scheme, "kube-proxy")
	if err := s.play(ctx); err != nil {
		return fmt.Errorf("re-enact the outage: %w", err)
	}
	return nil
}

func (s *stage) play(ctx context.Context) error {
	if err := s.startControllers(ctx); err != nil {
		return err
	}
	k := &kubelets{client: s.client, broadcaster: s.broadcaster}
	kctx, stop := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := k.run(kctx); err != nil {
			slog.ErrorContext(ctx, "the kubelets ended", "error", err)
		}
	})
	defer wg.Wait()
	defer stop()

	for _, scene := range []struct {
		title string
		play  func(context.Context) error
	}{
		{"eight nodes, filled by production", s.fill},
		{"the neighbours' everyday troubles", func(ctx context.Context) error {
			// Production has run for long: its kubelets' Events have expired.
			k.speak.Store(true)
			return s.apply(ctx, "2-neighbours.yaml")
		}},
		{"a kube-proxy that does not start", func(ctx context.Context) error { return s.restartProxy(ctx, "pool-1-node-5") }},
		{"a default priority, and six pods that have it", s.setOff},
		{"the cascade", s.awaitEndOfCascade},
		{"a node is lost and found", func(ctx context.Context) error { return s.loseNode(ctx, "pool-1-node-3") }},
		{"two more nodes", s.addRoom},
		{"the last Events", func(ctx context.Context) error {
			stop()
			return sleep(ctx, settle)
		}},
	} {
		slog.InfoContext(ctx, "outage: "+scene.title)
		if err := scene.play(ctx); err != nil {
			return fmt.Errorf("%s: %w", scene.title, err)
		}
	}
	return nil
}

func (s *stage) startControllers(ctx context.Context) error {
	if err := s.cluster.StartScheduler(ctx); err != nil {
		return err
	}
	return s.cluster.StartControllerManager(ctx,
		"deployment-controller", "replicaset-controller", "garbage-collector-controller",
		"statefulset-controller", "job-controller", "cronjob-controller",
		"horizontal-pod-autoscaler-controller", "persistentvolume-binder-controller")
}

func (s *stage) fill(ctx context.Context) error {
	if err := s.addNodes(ctx, 1, 8); err != nil {
		return err
	}
	if err := s.apply(ctx, "1-production.yaml"); err != nil {
		return err
	}
	return s.awaitDeployments(ctx, "prod-metrics")
}

func (s *stage) setOff(ctx context.Context) error {
	if err := s.apply(ctx, "3-priority-class.yaml"); err != nil {
		return err
	}
	return s.apply(ctx, "4-dedicated.yaml")
}

func (s *stage) awaitEndOfCascade(ctx context.Context) error {
	last, since := 0, time.Now()
	return await(ctx, func() (string, error) {
		list, err := s.client.CoreV1().Events("").List(ctx, metav1.ListOptions{FieldSelector: "reason=Preempted"})
		if err != nil {
			return "", err
		}
		if n := len(list.Items); n != last {
			last, since = n, time.Now()
		}
		if last == 0 || time.Since(since) < quiet {
			return fmt.Sprintf("%d pods were preempted, and more are preempted", last), nil
		}
		return "", nil
	})
}

// addRoom ends the outage. It also waits for the next full minute's CronJob.
func (s *stage) addRoom(ctx context.Context) error {
	if err := s.scaleUp(ctx); err != nil {
		return err
	}
	if err := sleep(ctx, quiet); err != nil {
		return err
	}
	if err := s.addNodes(ctx, 9, 10); err != nil {
		return err
	}
	for _, namespace := range []string{"prod-metrics", "dedicated-metrics"} {
		if err := s.awaitDeployments(ctx, namespace); err != nil {
			return err
		}
	}
	return await(ctx, func() (string, error) {
		list, err := s.client.CoreV1().Events("team-data").List(ctx, metav1.ListOptions{FieldSelector: "reason=SawCompletedJob"})
		if err == nil && len(list.Items) == 0 {
			return "the CronJob has not completed a Job", nil
		}
		return "", err
	})
}

func (s *stage) apply(ctx context.Context, manifest string) error {
	data, err := manifests.ReadFile("manifests/" + manifest)
	if err != nil {
		return err
	}
	cmd := s.cluster.KubectlCommand(ctx, "apply", "-f", "-")
	cmd.Stdin = strings.NewReader(string(data))
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("apply %s: %w: %s", manifest, err, out)
	}
	return nil
}

// awaitDeployments waits until all pods of a namespace's Deployments are there
// and ready.
func (s *stage) awaitDeployments(ctx context.Context, namespace string) error {
	return await(ctx, func() (string, error) {
		list, err := s.client.AppsV1().Deployments(namespace).List(ctx, metav1.ListOptions{})
		if err != nil {
			return "", err
		}
		for _, d := range list.Items {
			if d.Status.ReadyReplicas < *d.Spec.Replicas || d.Status.ObservedGeneration < d.Generation {
				return fmt.Sprintf("%d of %d pods of Deployment %s/%s are ready",
					d.Status.ReadyReplicas, *d.Spec.Replicas, namespace, d.Name), nil
			}
		}
		return "", nil
	})
}

// await calls f every half second until it has nothing to wait for.
func await(ctx context.Context, f func() (waitingFor string, err error)) error {
	deadline := time.Now().Add(phaseTimeout)
	for {
		waitingFor, err := f()
		if err != nil || waitingFor == "" {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("after %v %s", phaseTimeout, waitingFor)
		}
		if err := sleep(ctx, 500*time.Millisecond); err != nil {
			return err
		}
	}
}
