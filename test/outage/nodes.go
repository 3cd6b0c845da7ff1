package outage

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/scheme"
)

// addNodes creates nodes first to last, ready and with 16 CPU each, and records the Events of their
// kubelets, kube-proxies and the node controller.
func (s *stage) addNodes(ctx context.Context, first, last int) error {
	for i := first; i <= last; i++ {
		name := fmt.Sprintf("pool-1-node-%d", i)
		node, err := s.client.CoreV1().Nodes().Create(ctx, &corev1.Node{
			ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{corev1.LabelHostname: name}},
		}, metav1.CreateOptions{})
		if err != nil {
			return fmt.Errorf("create node %s: %w", name, err)
		}
		node.Status.Capacity = corev1.ResourceList{
			corev1.ResourceCPU:    resource.MustParse("16"),
			corev1.ResourceMemory: resource.MustParse("60Gi"),
			corev1.ResourcePods:   resource.MustParse("110"),
		}
		node.Status.Allocatable = node.Status.Capacity
		node.Status.Conditions = []corev1.NodeCondition{{
			Type: corev1.NodeReady, Status: corev1.ConditionTrue, Reason: "KubeletReady", LastHeartbeatTime: metav1.Now(), LastTransitionTime: metav1.Now(),
		}}
		if _, err := s.client.CoreV1().Nodes().UpdateStatus(ctx, node, metav1.UpdateOptions{}); err != nil {
			return fmt.Errorf("make node %s ready: %w", name, err)
		}
		s.kubeletEvent(name, corev1.EventTypeNormal, "Starting", "Starting kubelet.")
		s.kubeletEvent(name, corev1.EventTypeNormal, "NodeReady", "Node "+name+" status is now: NodeReady")
		s.nodeControllerEvent(node, "RegisteredNode", "Node %s event: Registered Node %s in Controller", name, name)
		// The real one leaves the message empty, too.
		s.proxy.Eventf(nodeReference(name), nil, corev1.EventTypeNormal, "Starting", "StartKubeProxy", "")
	}
	return nil
}

// restartProxy records a kube-proxy that tries every five seconds to listen on a
// port that is taken. The second time makes the Event a series; later ones are
// counted in memory and written half an hour later.
func (s *stage) restartProxy(ctx context.Context, node string) error {
	for range 3 {
		s.proxy.Eventf(nodeReference(node), nil, corev1.EventTypeWarning, "FailedToStartProxierHealthcheck", "StartKubeProxy",
			"failed to start proxy healthz on 0.0.0.0:10256: listen tcp 0.0.0.0:10256: bind: address already in use")
		if err := sleep(ctx, 5*time.Second); err != nil {
			return err
		}
	}
	return nil
}

// nodeReference returns a reference as in Events of kubelets and kube-proxies, with the name of the
// node as its uid.
func nodeReference(name string) *corev1.ObjectReference {
	return &corev1.ObjectReference{Kind: "Node", Name: name, UID: types.UID(name)}
}

func (s *stage) kubeletEvent(node, eventtype, reason, message string) {
	source := corev1.EventSource{Component: "kubelet", Host: node}
	s.broadcaster.NewRecorder(scheme.Scheme, source).Event(nodeReference(node), eventtype, reason, message)
}

func (s *stage) nodeControllerEvent(node *corev1.Node, reason, format string, args ...any) {
	ref := &corev1.ObjectReference{APIVersion: "v1", Kind: "Node", Name: node.Name, UID: node.UID}
	source := corev1.EventSource{Component: "node-controller"}
	s.broadcaster.NewRecorder(scheme.Scheme, source).Eventf(ref, corev1.EventTypeNormal, reason, format, args...)
}

// loseNode records that a node is lost, and its return. The status of the node does not change: no
// controller that would act on it is running.
func (s *stage) loseNode(ctx context.Context, name string) error {
	node, err := s.client.CoreV1().Nodes().Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return fmt.Errorf("get node %s: %w", name, err)
	}
	pods, err := s.client.CoreV1().Pods("").List(ctx, metav1.ListOptions{FieldSelector: "spec.nodeName=" + name})
	if err != nil {
		return fmt.Errorf("list the pods of node %s: %w", name, err)
	}
	s.nodeControllerEvent(node, "NodeNotReady", "Node %s status is now: NodeNotReady", name)
	recorder := s.broadcaster.NewRecorder(scheme.Scheme, corev1.EventSource{Component: "node-controller"})
	for _, pod := range pods.Items {
		recorder.Event(&pod, corev1.EventTypeWarning, "NodeNotReady", "Node is not ready")
	}
	if err := sleep(ctx, nodeLost); err != nil {
		return err
	}
	s.kubeletEvent(name, corev1.EventTypeNormal, "NodeReady", "Node "+name+" status is now: NodeReady")
	return nil
}

// scaleUp records that the autoscaler saw the pods that wait for room.
func (s *stage) scaleUp(ctx context.Context) error {
	pods, err := s.client.CoreV1().Pods("").List(ctx, metav1.ListOptions{FieldSelector: "spec.nodeName="})
	if err != nil {
		return fmt.Errorf("list the pods that wait: %w", err)
	}
	recorder := s.broadcaster.NewRecorder(scheme.Scheme, corev1.EventSource{Component: "cluster-autoscaler"})
	for _, pod := range pods.Items {
		if len(container(&pod).Resources.Requests) > 0 {
			recorder.Event(&pod, corev1.EventTypeNormal, "TriggeredScaleUp", "pod triggered scale-up: [{pool-1 8->10 (max: 12)}]")
		}
	}
	return nil
}
