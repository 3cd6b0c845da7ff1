package main

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// objects is the number of objects that Events refer to.
const objects = 1 << 13

// Namespaces and reasons are drawn independently of each other, unlike in a cluster: this
// makes the most streams of Loki, with the fewest entries in each.
const namespaces = 100

// reason is a kind of Event, as the components of Kubernetes write it.
type reason struct {
	name, kind, component, message string
}

var reasons = [...]reason{
	{"Scheduled", "Pod", "default-scheduler", "Successfully assigned {namespace}/{object} to {node}"},
	{"FailedScheduling", "Pod", "default-scheduler", "0/212 nodes are available: 14 node(s) had untolerated taint {dedicated: batch}, 57 Insufficient memory, 141 Insufficient cpu. preemption: 0/212 nodes are available: 14 Preemption is not helpful for scheduling, 198 No preemption victims found for incoming pod."},
	{"Preempted", "Pod", "default-scheduler", "Preempted by pod 5f1d2c77-9b0e-4a53-8a0d-0f5ed2a0c1b9 on node {node}"},
	{"Pulling", "Pod", "kubelet", "Pulling image \"registry.example.com/{namespace}/app:v1.42.7\""},
	{"Pulled", "Pod", "kubelet", "Successfully pulled image \"registry.example.com/{namespace}/app:v1.42.7\" in 1.734s (1.734s including waiting). Image size: 84213904 bytes."},
	{"Created", "Pod", "kubelet", "Container created"},
	{"Started", "Pod", "kubelet", "Container started"},
	{"Killing", "Pod", "kubelet", "Stopping container app"},
	{"BackOff", "Pod", "kubelet", "Back-off restarting failed container app in pod {object}_{namespace}(0b7f7a8e-51ac-4d0c-9d0a-3d3e6b6f4c11)"},
	{"Failed", "Pod", "kubelet", "Failed to pull image \"registry.example.com/{namespace}/app:v1.42.8\": rpc error: code = NotFound desc = failed to pull and unpack image: not found"},
	{"Unhealthy", "Pod", "kubelet", "Readiness probe failed: Get \"http://10.42.17.93:8080/ready\": context deadline exceeded (Client.Timeout exceeded while awaiting headers)"},
	{"FailedMount", "Pod", "kubelet", "MountVolume.SetUp failed for volume \"tls\" : secret \"{object}-tls\" not found"},
	{"Evicted", "Pod", "kubelet", "The node was low on resource: memory. Threshold quantity: 100Mi, available: 61372Ki. Container app was using 3914Mi, request is 1Gi."},
	{"NodeNotReady", "Pod", "node-controller", "Node is not ready"},
	{"TaintManagerEviction", "Pod", "taint-eviction-controller", "Marking for deletion Pod {namespace}/{object}"},
	{"SuccessfulCreate", "ReplicaSet", "replicaset-controller", "Created pod: {object}"},
	{"SuccessfulDelete", "ReplicaSet", "replicaset-controller", "Deleted pod: {object}"},
	{"FailedCreate", "ReplicaSet", "replicaset-controller", "Error creating: pods \"{object}\" is forbidden: exceeded quota: compute, requested: limits.memory=4Gi, used: limits.memory=61Gi, limited: limits.memory=64Gi"},
	{"ScalingReplicaSet", "Deployment", "deployment-controller", "Scaled up replica set {object} from 3 to 4"},
	{"SuccessfulRescale", "HorizontalPodAutoscaler", "horizontal-pod-autoscaler", "New size: 4; reason: cpu resource utilization (percentage of request) above target"},
	{"FailedGetResourceMetric", "HorizontalPodAutoscaler", "horizontal-pod-autoscaler", "failed to get cpu utilization: unable to get metrics for resource cpu: no metrics returned from resource metrics API"},
	{"Completed", "Job", "job-controller", "Job completed"},
	{"SawCompletedJob", "CronJob", "cronjob-controller", "Saw completed job: {object}, condition: Complete"},
	{"ProvisioningSucceeded", "PersistentVolumeClaim", "ebs.csi.aws.com_ebs-csi-controller-6c8f", "Successfully provisioned volume pvc-3b52d0c4-6f1f-4f0e-9d8c-7a7c1f0b9e12"},
}

func warning(reason string) bool {
	for _, part := range []string{"Fail", "BackOff", "Unhealthy", "Evicted", "NotReady", "Preempted"} {
		if strings.Contains(reason, part) {
			return true
		}
	}
	return false
}

// Fields of managedFields as a recorder leaves them behind.
const (
	coreFields   = `{"f:count":{},"f:firstTimestamp":{},"f:involvedObject":{},"f:lastTimestamp":{},"f:message":{},"f:reason":{},"f:reportingComponent":{},"f:reportingInstance":{},"f:source":{"f:component":{},"f:host":{}},"f:type":{}}`
	eventsFields = `{"f:action":{},"f:eventTime":{},"f:note":{},"f:reason":{},"f:regarding":{},"f:reportingController":{},"f:reportingInstance":{},"f:type":{}}`
)

// population returns an Event for each object, in the order of keys in etcd. Values that differ
// in each state are placeholders, see template.
func population() []corev1.Event {
	r := rand.New(rand.NewPCG(1, 2))
	all := make([]corev1.Event, objects)
	for i := range all {
		all[i] = newEvent(r)
	}
	slices.SortFunc(all, func(a, b corev1.Event) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
	return all
}

func newEvent(r *rand.Rand) corev1.Event {
	var (
		kind      = reasons[r.IntN(len(reasons))]
		namespace = fmt.Sprintf("team-%02d-production", r.IntN(namespaces))
		node      = fmt.Sprintf("ip-10-42-%d-%d.eu-central-1.compute.internal", r.IntN(4), r.IntN(256))
		name      = fmt.Sprintf("%s-%s-%08x-%05x",
			[]string{"checkout", "search", "ingester", "payments", "frontend", "sessions"}[r.IntN(6)],
			[]string{"api", "worker", "cache", "gateway"}[r.IntN(4)], r.Uint32(), r.IntN(1<<20))
		created, written = metav1.Unix(openCreated, 0), metav1.Unix(openWritten, 0)
	)
	e := corev1.Event{
		ObjectMeta: metav1.ObjectMeta{
			Namespace:         namespace,
			Name:              name + "." + openName,
			UID:               openUID,
			ResourceVersion:   openVersion,
			CreationTimestamp: created,
			ManagedFields: []metav1.ManagedFieldsEntry{{
				Manager: kind.component, Operation: metav1.ManagedFieldsOperationUpdate,
				APIVersion: "v1", Time: &written, FieldsType: "FieldsV1",
				FieldsV1: metav1.NewFieldsV1(coreFields),
			}},
		},
		InvolvedObject: corev1.ObjectReference{
			Kind: kind.kind, Namespace: namespace, Name: name, APIVersion: "v1", ResourceVersion: "884213377",
			UID: types.UID(fmt.Sprintf("%08x-1c2d-4e3f-8a4b-%012x", r.Uint32(), r.Uint64N(1<<48))),
		},
		Reason:  kind.name,
		Message: strings.NewReplacer("{namespace}", namespace, "{object}", name, "{node}", node).Replace(kind.message),
		Type:    corev1.EventTypeNormal,
	}
	if warning(kind.name) {
		e.Type = corev1.EventTypeWarning
	}
	if kind.component == "default-scheduler" { // it writes events.k8s.io/v1
		m := &e.ManagedFields[0]
		m.APIVersion, m.FieldsV1 = "events.k8s.io/v1", metav1.NewFieldsV1(eventsFields)
		e.EventTime = metav1.NewMicroTime(time.Unix(openCreated, 0))
		e.Action, e.ReportingController, e.ReportingInstance = "Binding", kind.component, kind.component+"-control-plane-1"
		return e
	}
	e.Source.Component, e.ReportingController = kind.component, kind.component
	if kind.component == "kubelet" {
		e.Source.Host, e.ReportingInstance = node, node
		e.InvolvedObject.FieldPath = "spec.containers{app}"
	}
	e.Count, e.FirstTimestamp, e.LastTimestamp = 1, created, written
	return e
}

// bumped returns the Event as it is when it has happened again.
func bumped(e corev1.Event) corev1.Event {
	if e.Count == 0 {
		e.Series = &corev1.EventSeries{Count: 2, LastObservedTime: metav1.NewMicroTime(time.Unix(openWritten, 0))}
		return e
	}
	e.Count = 7
	return e
}
