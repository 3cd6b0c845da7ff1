package outage

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/record"
	"k8s.io/client-go/tools/reference"
)

// kubelets simulates the kubelets of all nodes: it runs no containers, but reports the status of
// pods and records Events with the messages of the real kubelet (pkg/kubelet of Kubernetes 1.36).
// The annotation "behaviour" of a pod is crash, fail, missing-image, slow or succeed; a pod without
// it runs.
type kubelets struct {
	client      kubernetes.Interface
	broadcaster record.EventBroadcaster
	speak       atomic.Bool // whether Events are recorded

	pods map[types.UID]context.CancelFunc // those that run; of run's goroutine
	wg   sync.WaitGroup                   // one for each
}

// run returns after ctx has ended and all pods have.
func (k *kubelets) run(ctx context.Context) error {
	k.pods = make(map[types.UID]context.CancelFunc)
	defer k.wg.Wait()
	for {
		// Without a version a watch begins with all pods there are.
		w, err := k.client.CoreV1().Pods("").Watch(ctx, metav1.ListOptions{})
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("watch pods: %w", err)
		}
		for e := range w.ResultChan() {
			switch pod, _ := e.Object.(*corev1.Pod); e.Type {
			case watch.Added, watch.Modified:
				k.observe(ctx, pod)
			case watch.Deleted:
				k.remove(pod)
			}
		}
	}
}

func (k *kubelets) observe(ctx context.Context, pod *corev1.Pod) {
	if _, known := k.pods[pod.UID]; known || pod.Spec.NodeName == "" {
		return
	}
	ctx, k.pods[pod.UID] = context.WithCancel(ctx)
	k.wg.Go(func() {
		err := k.runPod(ctx, pod)
		if err != nil && !errors.Is(err, context.Canceled) && !apierrors.IsNotFound(err) {
			slog.Warn("a pod did not run as planned", "pod", pod.Name, "error", err)
		}
	})
}

// remove is the end of a pod: with a grace period of zero it is gone from the
// API server before its kubelet stops the container.
func (k *kubelets) remove(pod *corev1.Pod) {
	if cancel, known := k.pods[pod.UID]; known {
		cancel()
		delete(k.pods, pod.UID)
		k.event(pod, corev1.EventTypeNormal, "Killing", "Stopping container %s", container(pod).Name)
	}
}

func (k *kubelets) runPod(ctx context.Context, pod *corev1.Pod) error {
	if !k.speak.Load() {
		return k.setStatus(ctx, pod, corev1.PodRunning, true)
	}
	if err := sleep(ctx, 300*time.Millisecond); err != nil {
		return err
	}
	behaviour := pod.Annotations["behaviour"]
	if behaviour == "missing-image" {
		return k.pullInVain(ctx, pod)
	}
	k.startContainer(pod)
	switch behaviour {
	case "crash":
		return k.crash(ctx, pod)
	case "slow":
		if err := k.becomeReadySlowly(ctx, pod); err != nil {
			return err
		}
	case "succeed", "fail":
		return k.complete(ctx, pod, behaviour == "succeed")
	}
	return k.setStatus(ctx, pod, corev1.PodRunning, true)
}

func (k *kubelets) startContainer(pod *corev1.Pod) {
	k.event(pod, corev1.EventTypeNormal, "Pulled", "Container image %q already present on machine and can be accessed by the pod", container(pod).Image)
	k.event(pod, corev1.EventTypeNormal, "Created", "Container created")
	k.event(pod, corev1.EventTypeNormal, "Started", "Container started")
}

func (k *kubelets) becomeReadySlowly(ctx context.Context, pod *corev1.Pod) error {
	if err := k.setStatus(ctx, pod, corev1.PodRunning, false); err != nil {
		return err
	}
	for range 3 {
		if err := sleep(ctx, 2*time.Second); err != nil {
			return err
		}
		k.event(pod, corev1.EventTypeWarning, "Unhealthy", "Readiness probe failed: HTTP probe failed with statuscode: 503")
	}
	return sleep(ctx, 2*time.Second)
}

// crash never returns while ctx lasts. The real back-off is longer, a real
// restart comes after minutes.
func (k *kubelets) crash(ctx context.Context, pod *corev1.Pod) error {
	for {
		for range 3 {
			if err := sleep(ctx, 4*time.Second); err != nil {
				return err
			}
			k.event(pod, corev1.EventTypeWarning, "BackOff", "Back-off restarting failed container %s in pod %s_%s(%s)",
				container(pod).Name, pod.Name, pod.Namespace, pod.UID)
		}
		k.startContainer(pod)
	}
}

func (k *kubelets) pullInVain(ctx context.Context, pod *corev1.Pod) error {
	image := container(pod).Image
	for {
		k.event(pod, corev1.EventTypeNormal, "Pulling", "Pulling image %q", image)
		if err := sleep(ctx, 500*time.Millisecond); err != nil {
			return err
		}
		k.event(pod, corev1.EventTypeWarning, "Failed", "Failed to pull image %q: rpc error: code = NotFound desc = "+
			"failed to pull and unpack image %q: failed to resolve reference %q: %s: not found", image, image, image, image)
		k.event(pod, corev1.EventTypeWarning, "Failed", "Error: ErrImagePull")
		for range 2 {
			if err := sleep(ctx, 6*time.Second); err != nil {
				return err
			}
			k.event(pod, corev1.EventTypeNormal, "BackOff", "Back-off pulling image %q", image)
			k.event(pod, corev1.EventTypeWarning, "Failed", "Error: ImagePullBackOff")
		}
	}
}

func (k *kubelets) complete(ctx context.Context, pod *corev1.Pod, succeeded bool) error {
	if err := sleep(ctx, 2*time.Second); err != nil {
		return err
	}
	if succeeded {
		return k.setStatus(ctx, pod, corev1.PodSucceeded, false)
	}
	return k.setStatus(ctx, pod, corev1.PodFailed, false)
}

func (k *kubelets) setStatus(ctx context.Context, pod *corev1.Pod, phase corev1.PodPhase, ready bool) error {
	status := corev1.ConditionFalse
	if ready {
		status = corev1.ConditionTrue
	}
	patch := fmt.Appendf(nil, `{"status":{"phase":%q,"startTime":%q,"conditions":[{"type":"Ready","status":%q}]}}`,
		phase, pod.CreationTimestamp.UTC().Format(time.RFC3339), status)
	_, err := k.client.CoreV1().Pods(pod.Namespace).
		Patch(ctx, pod.Name, types.StrategicMergePatchType, patch, metav1.PatchOptions{}, "status")
	return err
}

// event is about the pod's only container.
func (k *kubelets) event(pod *corev1.Pod, eventtype, reason, format string, args ...any) {
	if !k.speak.Load() {
		return
	}
	ref, err := reference.GetPartialReference(scheme.Scheme, pod, "spec.containers{"+container(pod).Name+"}")
	if err != nil {
		slog.Warn("an Event is not recorded", "pod", pod.Name, "reason", reason, "error", err)
		return
	}
	source := corev1.EventSource{Component: "kubelet", Host: pod.Spec.NodeName}
	k.broadcaster.NewRecorder(scheme.Scheme, source).Eventf(ref, eventtype, reason, format, args...)
}

func container(pod *corev1.Pod) corev1.Container { return pod.Spec.Containers[0] }

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}
