package timeline

import (
	"cmp"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	corev1 "k8s.io/api/core/v1"

	"github.com/hindsight-events/hindsight/event"
	"github.com/hindsight-events/hindsight/event/format"
	"github.com/hindsight-events/hindsight/query/objects"
)

// Routines: what happens to a workload or a node when all is well. Their Events are the steps of one
// row.
const (
	// RoutinePods is the coming and going of a workload's pods: created, scheduled, started, stopped.
	RoutinePods = "pods"
	// RoutineNode is the start of a node.
	RoutineNode = "node"
	// routineGap keeps gap records apart.
	routineGap = "gap"
)

const (
	reasonPreempted    = "Preempted"
	reasonNodeReady    = "NodeReady"
	reasonNodeNotReady = "NodeNotReady"

	// otherReasons is the reason of the row for what fits in no other.
	otherReasons = "(other reasons)"
)

// routineReasons are the steps of routines, if the Event is Normal.
var routineReasons = map[string]string{
	"ScalingReplicaSet": RoutinePods, "SuccessfulCreate": RoutinePods, "SuccessfulDelete": RoutinePods,
	"Scheduled": RoutinePods, "Pulling": RoutinePods, "Pulled": RoutinePods, "Created": RoutinePods, "Started": RoutinePods,
	"Killing": RoutinePods, "SuccessfulAttachVolume": RoutinePods, "AddedInterface": RoutinePods,
	"Completed": RoutinePods, "SawCompletedJob": RoutinePods,
	"Starting": RoutineNode, reasonNodeReady: RoutineNode, "RegisteredNode": RoutineNode, "NodeAllocatableEnforced": RoutineNode,
	"NodeHasSufficientMemory": RoutineNode, "NodeHasNoDiskPressure": RoutineNode, "NodeHasSufficientPID": RoutineNode,
}

// stepOrder is the order of the steps; others follow. Events have times of whole seconds, so that
// their own order says little.
var stepOrder = []string{
	"ScalingReplicaSet", "SuccessfulCreate", "Scheduled", "SuccessfulAttachVolume", "AddedInterface", "Pulling", "Pulled", "Created",
	"Started", "Completed", "SawCompletedJob", "Killing", "SuccessfulDelete", "Starting", "NodeAllocatableEnforced", "RegisteredNode", reasonNodeReady,
}

func sortSteps(steps []Step) {
	place := func(s Step) int {
		if i := slices.Index(stepOrder, s.Reason); i >= 0 {
			return i
		}
		return len(stepOrder)
	}
	slices.SortStableFunc(steps, func(a, b Step) int { return cmp.Compare(place(a), place(b)) })
}

// routineOf returns the routine that an Event is a step of, empty if it is none.
func routineOf(e *corev1.Event) string {
	routine := routineReasons[e.Reason]
	isNode := e.InvolvedObject.Kind == "Node"
	if e.Type != corev1.EventTypeNormal || routine == "" || isNode != (routine == RoutineNode) {
		return ""
	}
	// The kubelet restarts or evicts it: no routine.
	if e.Reason == "Killing" && (strings.Contains(e.Message, "failed") || strings.Contains(e.Message, "exceeded")) {
		return ""
	}
	return routine
}

// alarming are reasons of Normal Events that report trouble.
var alarming = map[string]bool{
	reasonPreempted: true, reasonNodeNotReady: true, "NodeNotSchedulable": true, "Evicted": true, "TaintManagerEviction": true,
	"NodeControllerEviction": true, "DeletingNode": true, "RemovingNode": true, "Rebooted": true, "Killing": true,
	"NodeHasInsufficientMemory": true, "NodeHasDiskPressure": true, "NodeHasInsufficientPID": true,
}

// evictions are reasons of Events about pods that had to leave their node, and how long before that
// something happened to the node that explains it: the taint manager waits 5 minutes by default.
var evictions = map[string]time.Duration{
	"Evicted": 2 * time.Minute, "TaintManagerEviction": 10 * time.Minute, "NodeControllerEviction": 10 * time.Minute,
}

// nodeTroubles are reasons of Events about nodes that explain an eviction.
var nodeTroubles = map[string]bool{
	"EvictionThresholdMet": true, "SystemOOM": true, reasonNodeNotReady: true, "NodeHasInsufficientMemory": true,
	"NodeHasDiskPressure": true, "NodeHasInsufficientPID": true, "FreeDiskSpaceFailed": true, "NodeNotSchedulable": true,
}

// evicts reports whether the pod of an Event has to leave its node.
func evicts(e *Event) bool {
	return evictions[e.Reason] > 0 && !strings.HasPrefix(e.Message, "Cancelling")
}

// recoveries are reasons of Normal Events about a node that end one of another reason. Without that,
// they are a part of its start.
var recoveries = map[string]string{
	reasonNodeReady: reasonNodeNotReady, "NodeHasSufficientMemory": "NodeHasInsufficientMemory",
	"NodeHasNoDiskPressure": "NodeHasDiskPressure", "NodeHasSufficientPID": "NodeHasInsufficientPID",
}

// ailing are further such reasons, of what may go on for long.
var ailing = map[string]bool{"BackOff": true, "FailedBinding": true, "DeadlineExceeded": true, "DeletingAllPods": true}

// levels are what detected_level may be, the worst last.
var levels = []string{"debug", "info", "warn", "error", "critical"}

// worse reports whether a level is worse than another; an unknown one is better than all.
func worse(level, than string) bool {
	return slices.Index(levels, level) > slices.Index(levels, than)
}

// trouble reports whether a row is about trouble: it has Warnings, a reason that is as bad, or a level
// above info.
func (r *Row) trouble() bool {
	return r.Routine == "" && (r.Type == corev1.EventTypeWarning || alarming[r.Reason] || ailing[r.Reason] || worse(r.Level, "info"))
}

// controllers are kinds whose objects are rows of their own, also without a known pod.
var controllers = map[string]bool{
	"Deployment": true, "StatefulSet": true, "DaemonSet": true, "ReplicaSet": true, "ReplicationController": true,
	"Job": true, "CronJob": true, "Rollout": true, objects.Unknown: true,
}

// groupOf returns the workload of an object; for an object that has none and owns nothing, the set of
// such objects of its kind and namespace, which has no Name.
func (f *Folder) groupOf(o objects.Object) objects.Object {
	if g, ok := f.groups[o]; ok {
		return g
	}
	w, _ := f.graph.Workload(o)
	if w == o && !controllers[o.Kind] && !f.graph.Owns(o) || w.Kind == "Node" {
		w = objects.Object{Kind: w.Kind, Namespace: w.Namespace}
	}
	if len(f.groups) >= MaxEvents {
		clear(f.groups) // it only saves time
	}
	f.groups[o] = w
	return w
}

// keyOf returns the key of the row that a record belongs to.
func (f *Folder) keyOf(r *format.Record, e *kept) rowKey {
	if r.Gap {
		return rowKey{routine: routineGap, reason: e.Reason, kind: e.Type, group: objects.Object{Kind: "Namespace", Name: e.UID}}
	}
	key := rowKey{routine: routineOf(r.Event), group: f.groupOf(e.object)}
	if trouble := recoveries[e.Reason]; trouble != "" && key.routine != "" {
		if s := f.nodes[e.node]; e.Reason == reasonNodeReady && e.Count > 1 || s != nil && s.open[trouble] {
			key.routine = ""
		}
	}
	if key.routine != "" {
		return key
	}
	key.reason, key.kind, key.component = e.Reason, e.Type, e.Component
	if e.by.Name != "" {
		key.by = f.groupOf(e.by)
		if key.by.Name == "" { // a pod without an owner
			key.by = f.internObject(e.by)
		}
	}
	return key
}

// preemptorOf returns who preempted the pod of a record.
func preemptorOf(r *format.Record) (objects.Preemption, bool) {
	if r.Event.Reason != reasonPreempted {
		return objects.Preemption{}, false
	}
	return objects.ParsePreempted(r.Event.Message)
}

// unplaced are reasons of Events about pods that are on no node yet.
var unplaced = map[string]bool{
	"FailedScheduling": true, "TriggeredScaleUp": true, "NotTriggerScaleUp": true, "WaitForPodScheduled": true,
	"WaitForFirstConsumer": true, "SchedulingGated": true,
}

// nodeOf returns the node where an Event happened, empty if it is unknown.
func (f *Folder) nodeOf(r *format.Record, o objects.Object) string {
	if o.Kind == "Node" {
		return o.Name
	}
	if node := r.Value(event.FieldNode); node != "" || o.Kind != "Pod" || unplaced[r.Event.Reason] {
		return node
	}
	// Where the pod was at the time; a StatefulSet's pods are on several nodes, one after the other.
	stays := f.graph.Stays(o)
	for _, s := range stays {
		if !r.Time.Before(s.First) && !r.Time.After(s.Last) {
			return s.Node
		}
	}
	if len(stays) == 1 {
		return stays[0].Node
	}
	return ""
}

// gapSpan returns the time in which Events may be missing.
func gapSpan(r *format.Record, at time.Time) (first, last time.Time) {
	first, last = at, at
	for _, p := range r.GapFields() {
		t, err := time.Parse(time.RFC3339, p.Value)
		if err != nil {
			continue
		}
		switch p.Name {
		case "from_time":
			first = t
		case "to_time":
			last = t
		}
	}
	if last.Before(first) {
		return at, at
	}
	return first, last
}

// cutText truncates a text to at most n bytes, and marks it.
func cutText(s string, n int) string {
	const mark = "…"
	n -= len(mark)
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n] + mark
}
