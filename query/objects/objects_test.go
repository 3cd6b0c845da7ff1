package objects

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/hindsight-events/hindsight/event"
	"github.com/hindsight-events/hindsight/event/format"
)

var start = time.Date(2026, 3, 6, 12, 0, 0, 0, time.UTC)

// happened returns the record of an Event about an object of the namespace prod.
func happened(object, reason, message string) *format.Record {
	kind, name, _ := strings.Cut(object, "/")
	e := &corev1.Event{
		InvolvedObject: corev1.ObjectReference{Kind: kind, Namespace: "prod", Name: name},
		Reason:         reason, Message: message,
	}
	e.Namespace = "prod"
	return &format.Record{Record: event.Record{Event: e, Time: start}, WholeEvent: true}
}

func prod(kind, name string) Object { return New(kind, "prod", name) }

// TestStatedOwners checks the messages of controllers. Their forms are those of the sources of
// Kubernetes 1.20 to 1.36.
func TestStatedOwners(t *testing.T) {
	for _, c := range []struct {
		about, reason, message string
		owned                  []Object
	}{
		{"ReplicaSet/web-79b5894fc8", "SuccessfulCreate", "Created pod: web-79b5894fc8-f4jw8", []Object{prod("Pod", "web-79b5894fc8-f4jw8")}},
		{"ReplicaSet/web-79b5894fc8", "SuccessfulDelete", "Deleted pod: web-79b5894fc8-f4jw8", []Object{prod("Pod", "web-79b5894fc8-f4jw8")}},
		{"ReplicaSet/web-79b5894fc8", "FailedCreate", `Error creating: pods "web-79b5894fc8-" is forbidden: exceeded quota: compute`, nil},
		{"DaemonSet/agent", "SuccessfulCreate", "Created pod: agent-x2k9d", []Object{prod("Pod", "agent-x2k9d")}},
		{"Job/report", "SuccessfulCreate", "Created pod: report-0-x2k9d", []Object{prod("Pod", "report-0-x2k9d")}},
		{"CronJob/report", "SuccessfulCreate", "Created job report-29920920", []Object{prod("Job", "report-29920920")}},
		{"CronJob/report", "SuccessfulDelete", "Deleted job report-29920920", []Object{prod("Job", "report-29920920")}},
		{"CronJob/report", "SawCompletedJob", "Saw completed job: report-29920920", []Object{prod("Job", "report-29920920")}},
		{"CronJob/report", "SawCompletedJob", "Saw completed job: report-29920920, status: Complete", []Object{prod("Job", "report-29920920")}},
		{"CronJob/report", "SawCompletedJob", "Saw completed job: report-29920920, condition: Failed", []Object{prod("Job", "report-29920920")}},
		{"CronJob/report", "MissingJob", "Active job went missing: report-29920920", []Object{prod("Job", "report-29920920")}},
		{"CronJob/report", "UnexpectedJob", "Saw a job that the controller did not create or forgot: other", nil},
		{"StatefulSet/db", "SuccessfulCreate", "create Pod db-0 in StatefulSet db successful", []Object{prod("Pod", "db-0")}},
		{"StatefulSet/db", "SuccessfulCreate", "Create Pod db-0 in StatefulSet db successful", []Object{prod("Pod", "db-0")}},
		{"StatefulSet/db", "SuccessfulDelete", "delete Pod db-0 in StatefulSet db successful", []Object{prod("Pod", "db-0")}},
		{"StatefulSet/db", "FailedCreate", "create Pod db-0 in StatefulSet db failed error: quota", []Object{prod("Pod", "db-0")}},
		{
			"StatefulSet/db", "SuccessfulCreate", "Create Claim data-db-0 Pod db-0 in StatefulSet db success",
			[]Object{prod("PersistentVolumeClaim", "data-db-0"), prod("Pod", "db-0")},
		},
		{
			"StatefulSet/db", "FailedCreate", "create Claim data-db-0 for Pod db-0 in StatefulSet db failed error: quota",
			[]Object{prod("PersistentVolumeClaim", "data-db-0"), prod("Pod", "db-0")},
		},
		{"StatefulSet/other", "SuccessfulCreate", "create Pod db-0 in StatefulSet db successful", nil},
		{"Deployment/web", "ScalingReplicaSet", "Scaled up replica set web-79b5894fc8 to 4", []Object{prod("ReplicaSet", "web-79b5894fc8")}},
		{"Deployment/web", "ScalingReplicaSet", "Scaled down replica set web-79b5894fc8 to 2 from 3", []Object{prod("ReplicaSet", "web-79b5894fc8")}},
		{"Deployment/web", "ScalingReplicaSet", "Scaled up replica set web-79b5894fc8 from 0 to 6", []Object{prod("ReplicaSet", "web-79b5894fc8")}},
		{"Rollout/web", "ScalingReplicaSet", "Scaled up ReplicaSet web-79b5894fc8 (revision 2) from 0 to 6", []Object{prod("ReplicaSet", "web-79b5894fc8")}},
		{"DaemonSet/agent", "FailedDaemonPod", "Found failed daemon pod prod/agent-x2k9d on node n-1, will try to kill it", []Object{prod("Pod", "agent-x2k9d")}},
		{"DaemonSet/agent", "FailedDaemonPod", "Found failed daemon pod other/agent-x2k9d on node n-1, will try to kill it", nil},
		{"ReplicaSet/web-79b5894fc8", "SuccessfulCreate", "Created pod: not a name", []Object{prod("Pod", "not")}},
		{"ReplicaSet/web-79b5894fc8", "SuccessfulCreate", "Created pod: \x1b[31mred", nil},
		{"HorizontalPodAutoscaler/web", "SuccessfulRescale", "New size: 4; reason: cpu resource utilization (percentage of request) above target", nil},
	} {
		t.Run(c.reason+"/"+c.message, func(t *testing.T) {
			g := NewGraph()
			g.Observe(happened(c.about, c.reason, c.message))
			kind, name, _ := strings.Cut(c.about, "/")
			for _, o := range c.owned {
				if owner, evidence, ok := g.Owner(o); !ok || owner != prod(kind, name) || evidence != Stated {
					t.Errorf("the owner of %s is %s, %v", o, owner, evidence)
				}
			}
			if got := g.Owned(prod(kind, name)); !slices.Equal(got, c.owned) {
				t.Errorf("%s owns %v, want %v", c.about, got, c.owned)
			}
		})
	}
}

func TestInferredOwners(t *testing.T) {
	long := strings.Repeat("a", 50)
	for _, c := range []struct {
		name  string
		known []Object
		of    Object
		want  Object // zero: none
	}{
		{"a pod of a ReplicaSet", nil, prod("Pod", "web-79b5894fc8-f4jw8"), prod("ReplicaSet", "web-79b5894fc8")},
		{"a ReplicaSet", nil, prod("ReplicaSet", "web-79b5894fc8"), prod("Deployment", "web")},
		{"a ReplicaSet of a Rollout", []Object{prod("Rollout", "web")}, prod("ReplicaSet", "web-79b5894fc8"), prod("Rollout", "web")},
		{"a ReplicaSet with another hash", nil, prod("ReplicaSet", "web-dqfppzl8c"), prod("Deployment", "web")},
		{"a ReplicaSet by hand", nil, prod("ReplicaSet", "web-blue"), Object{}},
		{"a pod of a known ReplicaSet by hand", []Object{prod("ReplicaSet", "web-blue")}, prod("Pod", "web-blue-f4jw8"), prod("ReplicaSet", "web-blue")},
		{"a pod of a known DaemonSet", []Object{prod("DaemonSet", "agent")}, prod("Pod", "agent-x2k9d"), prod("DaemonSet", "agent")},
		{"a pod of a known Job", []Object{prod("Job", "migrate")}, prod("Pod", "migrate-x2k9d"), prod("Job", "migrate")},
		{"a pod of an indexed Job", []Object{prod("Job", "migrate")}, prod("Pod", "migrate-12-x2k9d"), prod("Job", "migrate")},
		{"a pod of a Job of a CronJob", nil, prod("Pod", "report-29920920-x2k9d"), prod("Job", "report-29920920")},
		{"a Job of a CronJob", nil, prod("Job", "report-29920920"), prod("CronJob", "report")},
		{"a Job of a CronJob before 1.21", nil, prod("Job", "report-1583496000"), prod("CronJob", "report")},
		{"a Job with a date", nil, prod("Job", "report-20260306"), Object{}},
		{"a pod of something", nil, prod("Pod", "agent-x2k9d"), Object{Unknown, "prod", "agent"}},
		{"a pod of a namesake elsewhere", []Object{New("DaemonSet", "other", "agent")}, prod("Pod", "agent-x2k9d"), Object{Unknown, "prod", "agent"}},
		{"a pod with an ordinal", nil, prod("Pod", "db-0"), Object{Unknown, "prod", "db"}},
		{"a pod of a known StatefulSet", []Object{prod("StatefulSet", "db")}, prod("Pod", "db-12"), prod("StatefulSet", "db")},
		{"a bare pod", nil, prod("Pod", "debug-tools"), Object{}},
		{"a bare pod of one word", nil, prod("Pod", "debug"), Object{}},
		{"an odd name", nil, prod("Pod", "-x2k9d"), Object{}},
		{"a name with an ordinal that has leading zeros", nil, prod("Pod", "db-007"), Object{}},
		{"a claim", []Object{prod("StatefulSet", "my-db")}, prod("PersistentVolumeClaim", "data-my-db-0"), prod("StatefulSet", "my-db")},
		{"a claim of nothing known", nil, prod("PersistentVolumeClaim", "data-my-db-0"), Object{}},
		{"an autoscaler", []Object{prod("Deployment", "web")}, prod("HorizontalPodAutoscaler", "web"), prod("Deployment", "web")},
		{"an autoscaler of KEDA", []Object{prod("StatefulSet", "db")}, prod("HorizontalPodAutoscaler", "keda-hpa-db"), prod("StatefulSet", "db")},
		{"an autoscaler of nothing known", nil, prod("HorizontalPodAutoscaler", "web"), Object{}},
		{"a name cut at 63 characters", []Object{prod("ReplicaSet", long+"-79b5894fc8")}, prod("Pod", (long + "-79b5894fc8-")[:58]+"f4jw8"), prod("ReplicaSet", long+"-79b5894fc8")},
		{"a name cut at 63 characters, of nothing known", nil, prod("Pod", (long + "-79b5894fc8-")[:58]+"f4jw8"), Object{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := NewGraph()
			for _, o := range c.known {
				g.Know(o)
			}
			owner, evidence, ok := g.Owner(c.of)
			if ok != (c.want != Object{}) || ok && (owner != c.want || evidence != Inferred) {
				t.Errorf("%s, %s, %v; want %s", owner, evidence, ok, c.want)
			}
		})
	}
}

func TestStaticPod(t *testing.T) {
	g := NewGraph()
	r := happened("Pod/etcd-control-plane-1", "Started", "Container started")
	r.Event.Source = corev1.EventSource{Component: "kubelet", Host: "control-plane-1"}
	g.Observe(r)
	if owner, evidence, _ := g.Owner(prod("Pod", "etcd-control-plane-1")); owner != (Object{Kind: "Node", Name: "control-plane-1"}) || evidence != Inferred {
		t.Errorf("the owner is %s, %s", owner, evidence)
	}
}

func TestWorkload(t *testing.T) {
	g := NewGraph()
	g.Observe(happened("ReplicaSet/web-79b5894fc8", "SuccessfulCreate", "Created pod: web-79b5894fc8-f4jw8"))
	pod := prod("Pod", "web-79b5894fc8-f4jw8")
	if w, evidence := g.Workload(pod); w != prod("Deployment", "web") || evidence != Inferred {
		t.Errorf("%s, %s before the Deployment is known", w, evidence)
	}
	g.Observe(happened("Deployment/web", "ScalingReplicaSet", "Scaled up replica set web-79b5894fc8 from 0 to 6"))
	if w, evidence := g.Workload(pod); w != prod("Deployment", "web") || evidence != Stated {
		t.Errorf("%s, %s after it is", w, evidence)
	}
	if w, evidence := g.Workload(prod("Deployment", "web")); w != prod("Deployment", "web") || evidence != 0 {
		t.Errorf("the workload of a Deployment is %s, %s", w, evidence)
	}
	g.recordWorkload(g.id(pod), prod("Deployment", "recorded"))
	if w, evidence := g.Workload(pod); w != prod("Deployment", "recorded") || evidence != Recorded {
		t.Errorf("%s, %s after a record names it", w, evidence)
	}
}

// TestCycle checks that Events which claim that objects own each other do no harm.
func TestCycle(t *testing.T) {
	g := NewGraph()
	g.Observe(happened("Pod/a", "SuccessfulCreate", "Created pod: a"))
	g.Observe(happened("Pod/a", "SuccessfulCreate", "Created pod: b"))
	g.Observe(happened("Pod/b", "SuccessfulCreate", "Created pod: a"))
	if _, _, ok := g.Owner(prod("Pod", "a")); !ok {
		t.Error("want the claim of b recorded")
	}
	g.Workload(prod("Pod", "a")) // ends
}

func TestStays(t *testing.T) {
	g := NewGraph()
	for i, c := range []struct{ reason, message, host string }{
		{"Preempted", "Preempted by pod f8e9598f-f9fc-45e8-aaad-c2eea84b20ed on node n-3", ""},
		{"Scheduled", "Successfully assigned prod/web-1 to n-1", ""},
		{"Scheduled", "Successfully assigned prod/other to n-9", ""},
		{"Started", "Container started", "n-1"},
		{"NodeControllerEviction", "Marking for deletion Pod web-1 from Node n-2", ""},
		{"FailedScheduling", "0/8 nodes are available: 8 Insufficient cpu.", ""},
	} {
		r := happened("Pod/web-1", c.reason, c.message)
		r.Time = start.Add(time.Duration(-i) * time.Minute)
		r.Event.Source.Host = c.host
		g.Observe(r)
	}
	want := []Stay{
		{"n-2", start.Add(-4 * time.Minute), start.Add(-4 * time.Minute), false},
		{"n-1", start.Add(-3 * time.Minute), start.Add(-1 * time.Minute), true},
		{"n-3", start, start, false},
	}
	if got := g.Stays(prod("Pod", "web-1")); !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	if got := g.Nodes(prod("Pod", "web-1")); !slices.Equal(got, []string{"n-2", "n-1", "n-3"}) {
		t.Errorf("%v", got)
	}
}

func TestParsePreempted(t *testing.T) {
	const id = "f8e9598f-f9fc-45e8-aaad-c2eea84b20ed"
	for message, want := range map[string]Preemption{
		"Preempted by pod " + id + " on node n-1":                             {UID: id, Preemptor: Object{Kind: "Pod"}, Node: "n-1"},
		"Preempted by podgroup " + id + " on node n-1":                        {UID: id, Preemptor: Object{Kind: "PodGroup"}, Node: "n-1"},
		"Preempted by pod " + id + " on node n-1 (in kube-scheduler memory).": {UID: id, Preemptor: Object{Kind: "Pod"}, Node: "n-1"},
		"Preempted by prod/web-0 on node n-1":                                 {Preemptor: prod("Pod", "web-0"), Node: "n-1"},
		"by prod/web-0 on node n-1":                                           {Preemptor: prod("Pod", "web-0"), Node: "n-1"},
		"Preempted by pod web on node n-1":                                    {},
		"Preempted by somebody":                                               {},
		"by <b>/x on node n-1":                                                {},
		"":                                                                    {},
	} {
		if got, ok := ParsePreempted(message); got != want || ok != (want != Preemption{}) {
			t.Errorf("%q: %+v, %v", message, got, ok)
		}
	}
}

func TestResolve(t *testing.T) {
	const id, node, unknown = "f8e9598f-f9fc-45e8-aaad-c2eea84b20ed", "00000000-0000-4000-8000-000000000001", "11111111-1111-4111-8111-111111111111"
	g := NewGraph()
	r := happened("Pod/web-0", "Scheduled", "")
	r.Event.InvolvedObject.UID = id
	g.Observe(r)
	r = happened("Node/n-1", "Starting", "")
	r.Event.InvolvedObject.UID = node
	g.Observe(r)
	for message, want := range map[string]string{
		"Preempted by pod " + id + " on node n-1":      "Preempted by pod prod/web-0 on node n-1",
		"Preempted by pod " + unknown + " on node n-1": "Preempted by pod " + unknown + " on node n-1",
		id + " " + unknown + " " + id:                  "prod/web-0 " + unknown + " prod/web-0",
		"node " + node + ".":                           "node n-1.",
		"x" + id:                                       "x" + id,
		"pvc-" + id:                                    "pvc-" + id,
		"Back-off restarting container api in pod web-0_prod(" + id + ")": "Back-off restarting container api in pod web-0_prod(" + id + ")",
		"": "",
	} {
		if got, _ := g.Resolve(message); got != want {
			t.Errorf("%q resolves to %q, want %q", message, got, want)
		}
	}
	if _, named := g.Resolve(id + ", " + id); !slices.Equal(named, []Object{prod("Pod", "web-0"), prod("Pod", "web-0")}) {
		t.Errorf("%v are named", named)
	}
	if text, _ := g.Annotate("by pod " + id + "."); text != "by pod "+id+" (prod/web-0)." {
		t.Errorf("annotated: %q", text)
	}
	if got := UIDs("by pod " + id + ", not web-0_prod(" + unknown + ")"); !slices.Equal(got, []string{id}) {
		t.Errorf("%v are to be named", got)
	}
}

// TestRelated checks that the related object of an Event has a name, unless an Event is about it.
func TestRelated(t *testing.T) {
	const id = "f8e9598f-f9fc-45e8-aaad-c2eea84b20ed"
	g := NewGraph()
	r := happened("Pod/web-0", "Preempted", "Preempted by pod "+id+" on node n-1")
	r.Event.Related = &corev1.ObjectReference{Kind: "Pod", Namespace: "batch", Name: "claimed", UID: id}
	g.Observe(r)
	if o, ok := g.Named(id); !ok || o != New("Pod", "batch", "claimed") {
		t.Errorf("%s, %v by the related object", o, ok)
	}
	about := happened("Pod/crunch", "Scheduled", "")
	about.Event.InvolvedObject.UID = id
	g.Observe(about)
	g.Observe(r)
	if o, ok := g.Named(id); !ok || o != prod("Pod", "crunch") {
		t.Errorf("%s, %v by an Event about it", o, ok)
	}
}

// TestNamedByKubelet checks that a kubelet's message names its own pod, and no other.
func TestNamedByKubelet(t *testing.T) {
	g := NewGraph()
	g.Observe(happened("Pod/web-0", "BackOff", "Back-off restarting failed container api in pod web-0_prod(e28fc031-2b00-4faf-a711-d6b2edb2f2f5)"))
	g.Observe(happened("Pod/web-0", "BackOff", "Back-off restarting failed container api in pod web-9_prod(00000000-2b00-4faf-a711-d6b2edb2f2f5)"))
	if o, ok := g.Named("e28fc031-2b00-4faf-a711-d6b2edb2f2f5"); !ok || o != prod("Pod", "web-0") {
		t.Errorf("%s, %v", o, ok)
	}
	if o, ok := g.Named("00000000-2b00-4faf-a711-d6b2edb2f2f5"); ok {
		t.Errorf("a foreign uid names %s", o)
	}
}

func TestBounds(t *testing.T) {
	g := NewGraph()
	g.limit = 10
	for i := range 100 {
		r := happened(fmt.Sprintf("Pod/web-%d", i), "Started", "")
		r.Event.InvolvedObject.UID = types.UID(fmt.Sprintf("f8e9598f-f9fc-45e8-aaad-%012d", i))
		g.Observe(r)
	}
	if len(g.objects) != 10 || len(g.uids) != 10 || !g.Full() {
		t.Errorf("%d objects, %d uids, full %v", len(g.objects), len(g.uids), g.Full())
	}
	g.Observe(happened("Pod/"+strings.Repeat("x", 1000), "Started", ""))
	if len(g.objects) != 10 {
		t.Errorf("%d objects", len(g.objects))
	}
}

// TestOutage checks what is learned from the recorded outage: every preemptor has a name, and every
// pod a workload that exists.
func TestOutage(t *testing.T) {
	b, err := os.ReadFile("../../examples/outage/events.json")
	if err != nil {
		t.Fatal(err)
	}
	var list corev1.EventList
	if err := json.Unmarshal(b, &list); err != nil {
		t.Fatal(err)
	}
	g := NewGraph()
	for i := range list.Items {
		r := event.NewReplayed(list.Items[i].DeepCopy())
		r.Event.Related = nil // which lines of most formats do not have
		g.Observe(&format.Record{Record: r, WholeEvent: true})
	}
	preemptors := map[string]int{}
	for i := range list.Items {
		e := &list.Items[i]
		if e.Reason != "Preempted" {
			continue
		}
		p, ok := ParsePreempted(e.Message)
		o, named := g.Named(p.UID)
		if !ok || !named {
			t.Fatalf("%q: %v, %v", e.Message, p, named)
		}
		w, _ := g.Workload(o)
		preemptors[w.String()+" in "+w.Namespace]++
	}
	if preemptors["deployment/ingester in dedicated-metrics"] != 6 {
		t.Errorf("preempted by %v", preemptors)
	}
	workloads := map[string]int{}
	for o := range g.All() {
		if o.Kind == "Pod" {
			w, evidence := g.Workload(o)
			workloads[w.String()+" in "+w.Namespace+" "+evidence.String()]++
			if w.Kind == Unknown || w.Kind == "Pod" {
				t.Errorf("%s is of %s", o, w)
			}
		}
	}
	t.Log(preemptors, workloads)
}

func FuzzObserve(f *testing.F) {
	for _, s := range [][3]string{
		{"Pod/web-79b5894fc8-f4jw8", "Preempted", "Preempted by pod f8e9598f-f9fc-45e8-aaad-c2eea84b20ed on node n-1"},
		{"StatefulSet/db", "SuccessfulCreate", "Create Claim data-db-0 Pod db-0 in StatefulSet db success"},
		{"DaemonSet/agent", "FailedDaemonPod", "Found failed daemon pod prod/agent-x2k9d on node n-1, will try to kill it"},
		{"Pod/web-0", "BackOff", "in pod web-0_prod(e28fc031-2b00-4faf-a711-d6b2edb2f2f5)"},
	} {
		f.Add(s[0], s[1], s[2])
	}
	f.Fuzz(func(t *testing.T, object, reason, message string) {
		g := NewGraph()
		g.Observe(happened(object, reason, message))
		for o := range g.All() {
			if owner, _, ok := g.Owner(o); ok && owner.Namespace != o.Namespace && owner.Kind != "Node" && o.Namespace != "" {
				t.Errorf("%s is owned by %v of another namespace", o, owner)
			}
			g.Workload(o)
			for _, n := range g.Nodes(o) {
				if n == "" {
					t.Error("a node without a name")
				}
			}
		}
		if text, named := g.Resolve(message); len(named) == 0 && text != message {
			t.Errorf("%q changes to %q", message, text)
		}
		for _, id := range UIDs(message) {
			if _, ok := parseUID(id); !ok {
				t.Errorf("%q is no uid", id)
			}
		}
	})
}
