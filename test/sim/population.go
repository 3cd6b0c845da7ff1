package main

import (
	"cmp"
	"fmt"
	"math"
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

// shape is how Events are spread over the streams of Loki: pairs of a namespace and a reason. Each
// namespace has all reasons, unlike in a cluster: this makes the most streams, with the fewest
// entries in each.
type shape struct {
	streams  int     // len(reasons) in each namespace
	exponent float64 // a stream's rate is its rank to the power of -exponent; 0: all are equal
}

func (s shape) validate() error {
	if s.streams < len(reasons) || s.streams > objects || s.streams%len(reasons) != 0 {
		return fmt.Errorf("-streams %d: must be a multiple of %d, and at most %d", s.streams, len(reasons), objects)
	}
	if s.exponent < 0 {
		return fmt.Errorf("-zipf %v: must not be negative", s.exponent)
	}
	return nil
}

// slots is how many shares of all Events are spread over the objects.
const slots = 1 << 17

// spread returns the object of each slot. Of streams with equal rates, slots that are far apart are
// of different streams, so that Events which come one after the other are, too; otherwise they come
// as if drawn at random.
func (s shape) spread(all []corev1.Event) []uint16 {
	r := rand.New(rand.NewPCG(3, 4))
	of := make(map[[2]string][]uint16)
	var streams [][2]string // by rank
	for i, e := range all {
		key := [2]string{e.Namespace, e.Reason}
		if of[key] == nil {
			streams = append(streams, key)
		}
		of[key] = append(of[key], uint16(i))
	}
	r.Shuffle(len(streams), func(i, j int) { streams[i], streams[j] = streams[j], streams[i] })
	total := 0.0
	weight := func(rank int) float64 { return math.Pow(float64(rank+1), -s.exponent) }
	for rank := range streams {
		total += weight(rank)
	}
	spread := make([]uint16, 0, slots)
	sum := 0.0
	for rank, key := range streams {
		sum += weight(rank)
		for len(spread) < int(math.Round(slots*sum/total)) {
			spread = append(spread, of[key][len(spread)%len(of[key])])
		}
	}
	if s.exponent > 0 {
		r.Shuffle(slots, func(i, j int) { spread[i], spread[j] = spread[j], spread[i] })
	}
	return spread
}

// reason is a kind of Event, as the components of Kubernetes write it.
type reason struct {
	name, kind, component, message string
}

// Three of them are of Warnings.
var reasons = [...]reason{
	{"Scheduled", "Pod", "default-scheduler", "Successfully assigned {namespace}/{object} to {node}"},
	{"FailedScheduling", "Pod", "default-scheduler", "0/212 nodes are available: 14 node(s) had untolerated taint {dedicated: batch}, 57 Insufficient memory, 141 Insufficient cpu. preemption: 0/212 nodes are available: 14 Preemption is not helpful for scheduling, 198 No preemption victims found for incoming pod."},
	{"Pulling", "Pod", "kubelet", "Pulling image \"registry.example.com/{namespace}/app:v1.42.7\""},
	{"Pulled", "Pod", "kubelet", "Successfully pulled image \"registry.example.com/{namespace}/app:v1.42.7\" in 1.734s (1.734s including waiting). Image size: 84213904 bytes."},
	{"Created", "Pod", "kubelet", "Container created"},
	{"Started", "Pod", "kubelet", "Container started"},
	{"Killing", "Pod", "kubelet", "Stopping container app"},
	{"SandboxChanged", "Pod", "kubelet", "Pod sandbox changed, it will be killed and re-created."},
	{"BackOff", "Pod", "kubelet", "Back-off restarting failed container app in pod {object}_{namespace}(0b7f7a8e-51ac-4d0c-9d0a-3d3e6b6f4c11)"},
	{"Unhealthy", "Pod", "kubelet", "Readiness probe failed: Get \"http://10.42.17.93:8080/ready\": context deadline exceeded (Client.Timeout exceeded while awaiting headers)"},
	{"TaintManagerEviction", "Pod", "taint-eviction-controller", "Marking for deletion Pod {namespace}/{object}"},
	{"SuccessfulCreate", "ReplicaSet", "replicaset-controller", "Created pod: {object}"},
	{"SuccessfulDelete", "ReplicaSet", "replicaset-controller", "Deleted pod: {object}"},
	{"ScalingReplicaSet", "Deployment", "deployment-controller", "Scaled up replica set {object} from 3 to 4"},
	{"SuccessfulRescale", "HorizontalPodAutoscaler", "horizontal-pod-autoscaler", "New size: 4; reason: cpu resource utilization (percentage of request) above target"},
	{"Completed", "Job", "job-controller", "Job completed"},
	{"SawCompletedJob", "CronJob", "cronjob-controller", "Saw completed job: {object}, condition: Complete"},
	{"SuccessfulAttachVolume", "Pod", "attachdetach-controller", "AttachVolume.Attach succeeded for volume \"pvc-3b52d0c4-6f1f-4f0e-9d8c-7a7c1f0b9e12\""},
	{"WaitForFirstConsumer", "PersistentVolumeClaim", "persistentvolume-controller", "waiting for first consumer to be created before binding"},
	{"ProvisioningSucceeded", "PersistentVolumeClaim", "ebs.csi.aws.com_ebs-csi-controller-6c8f", "Successfully provisioned volume pvc-3b52d0c4-6f1f-4f0e-9d8c-7a7c1f0b9e12"},
}

// Fields of managedFields as a recorder leaves them behind.
const (
	coreFields   = `{"f:count":{},"f:firstTimestamp":{},"f:involvedObject":{},"f:lastTimestamp":{},"f:message":{},"f:reason":{},"f:reportingComponent":{},"f:reportingInstance":{},"f:source":{"f:component":{},"f:host":{}},"f:type":{}}`
	eventsFields = `{"f:action":{},"f:eventTime":{},"f:note":{},"f:reason":{},"f:regarding":{},"f:reportingController":{},"f:reportingInstance":{},"f:type":{}}`
)

// population returns an Event for each object, in the order of keys in etcd. Values that differ
// in each state are placeholders, see template.
func (s shape) population() []corev1.Event {
	r := rand.New(rand.NewPCG(1, 2))
	all := make([]corev1.Event, objects)
	for i := range all {
		stream := i % s.streams
		all[i] = newEvent(r, stream/len(reasons), reasons[stream%len(reasons)])
	}
	slices.SortFunc(all, func(a, b corev1.Event) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
	return all
}

func newEvent(r *rand.Rand, team int, kind reason) corev1.Event {
	var (
		namespace = fmt.Sprintf("team-%02d-production", team)
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
	switch kind.name {
	case "FailedScheduling", "BackOff", "Unhealthy":
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
