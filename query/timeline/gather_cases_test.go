package timeline

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/hindsight-events/hindsight/event"
	"github.com/hindsight-events/hindsight/event/format"
	"github.com/hindsight-events/hindsight/query"
	"github.com/hindsight-events/hindsight/query/objects"
)

var noon = time.Date(2026, 3, 6, 12, 0, 0, 0, time.UTC)

// lines collects the lines of a file.
type lines struct {
	text    []string
	version int
}

// add adds an Event, some minutes after noon, about an object as in prod/Pod/web-0.
func (l *lines) add(minutes int, object, reason, message string) *corev1.Event {
	parts := strings.SplitN(object, "/", 3)
	l.version++
	at := metav1.NewTime(noon.Add(time.Duration(minutes) * time.Minute))
	e := &corev1.Event{
		TypeMeta:       metav1.TypeMeta{Kind: "Event", APIVersion: "v1"},
		ObjectMeta:     metav1.ObjectMeta{Namespace: parts[0], Name: fmt.Sprintf("%s.%x", parts[2], at.UnixNano()), UID: types.UID(fmt.Sprint("e-", l.version)), ResourceVersion: fmt.Sprint(l.version)},
		InvolvedObject: corev1.ObjectReference{Namespace: parts[0], Kind: parts[1], Name: parts[2], UID: types.UID(uidOf(object))},
		Reason:         reason, Message: message, Type: "Normal", Count: 1, FirstTimestamp: at, LastTimestamp: at,
	}
	if parts[1] == "Node" {
		e.InvolvedObject.Namespace, e.InvolvedObject.UID = "", types.UID(parts[2])
	}
	l.write(e)
	return e
}

func (l *lines) write(e *corev1.Event) {
	b, err := json.Marshal(e)
	if err != nil {
		panic(err)
	}
	l.text = append(l.text, string(b))
}

// uidOf returns the uid of an object, made of its name.
func uidOf(object string) string {
	sum := uint64(1469598103934665603)
	for _, c := range []byte(object) {
		sum = (sum ^ uint64(c)) * 1099511628211
	}
	return fmt.Sprintf("%08x-0000-4000-8000-%012x", uint32(sum), sum>>16)
}

func (l *lines) file(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "events.jsonl")
	if err := os.WriteFile(path, []byte(strings.Join(l.text, "\n")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// told returns "relation object reason" of the Events that are gathered.
func told(t *testing.T, r Request) (rows, omissions []string) {
	t.Helper()
	g, err := Gather(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	if err := g.Each(t.Context(), func(r *format.Record) error {
		o := objects.Of(r)
		rows = append(rows, strings.TrimSpace(fmt.Sprintf("%s %s/%s %s", g.Relation(o), o.Namespace, o, r.Event.Reason)))
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	for _, o := range g.Omissions {
		omissions = append(omissions, fmt.Sprintf("%d %s", o.Count, o.Text))
	}
	return rows, omissions
}

// rollout adds a Deployment with a pod on a node.
func rollout(l *lines, namespace, name, pod, node string, minute int) {
	set, _, _ := strings.Cut(pod, "-x")
	l.add(minute, namespace+"/Deployment/"+name, "ScalingReplicaSet", "Scaled up replica set "+set+" from 0 to 1")
	l.add(minute, namespace+"/ReplicaSet/"+set, "SuccessfulCreate", "Created pod: "+pod)
	l.add(minute, namespace+"/Pod/"+pod, "Scheduled", "Successfully assigned "+namespace+"/"+pod+" to "+node)
}

func TestGatherCases(t *testing.T) {
	for name, c := range map[string]struct {
		filter    query.Filter
		write     func(l *lines)
		rows      []string // in any order
		omissions []string
	}{
		"a namesake and a longer name are left out": {
			query.Filter{Namespace: "prod", For: "deploy/web"},
			func(l *lines) {
				rollout(l, "prod", "web", "web-79b5894fc8-x2k9d", "n-1", 0)
				rollout(l, "prod", "web-api", "web-api-79b5894fc8-x2k9d", "n-2", 0)
				rollout(l, "shop", "web", "web-79b5894fc8-x2k9e", "n-2", 0)
				l.add(1, "prod/StatefulSet/web", "SuccessfulCreate", "create Pod web-0 in StatefulSet web successful")
				l.add(1, "prod/Pod/web-0", "Scheduled", "Successfully assigned prod/web-0 to n-2")
				l.add(1, "prod/HorizontalPodAutoscaler/web", "SuccessfulRescale", "New size: 1; reason: x")
			},
			[]string{
				"selected prod/deployment/web ScalingReplicaSet", "owned prod/replicaset/web-79b5894fc8 SuccessfulCreate",
				"owned prod/pod/web-79b5894fc8-x2k9d Scheduled", "related prod/horizontalpodautoscaler/web SuccessfulRescale",
			},
			nil,
		},
		"a StatefulSet has its pods and claims": {
			query.Filter{Namespace: "prod", For: "sts/db"},
			func(l *lines) {
				l.add(1, "prod/StatefulSet/db", "SuccessfulCreate", "create Claim data-db-0 Pod db-0 in StatefulSet db success")
				l.add(1, "prod/PersistentVolumeClaim/data-db-0", "ProvisioningFailed", "no")
				l.add(1, "prod/PersistentVolumeClaim/data-db-1", "ProvisioningFailed", "no")
				l.add(1, "prod/PersistentVolumeClaim/data-other-1", "ProvisioningFailed", "no")
			},
			[]string{
				"selected prod/statefulset/db SuccessfulCreate", "owned prod/persistentvolumeclaim/data-db-0 ProvisioningFailed",
				"related prod/persistentvolumeclaim/data-db-1 ProvisioningFailed",
			},
			nil,
		},
		"a pod has its owners": {
			query.Filter{Namespace: "prod", For: "pod/web-79b5894fc8-x2k9d"},
			func(l *lines) {
				rollout(l, "prod", "web", "web-79b5894fc8-x2k9d", "n-1", 0)
				rollout(l, "prod", "web", "web-79b5894fc8-x2k9e", "n-2", 0)
			},
			[]string{
				"owner prod/deployment/web ScalingReplicaSet", "owner prod/deployment/web ScalingReplicaSet",
				"owner prod/replicaset/web-79b5894fc8 SuccessfulCreate", "owner prod/replicaset/web-79b5894fc8 SuccessfulCreate",
				"selected prod/pod/web-79b5894fc8-x2k9d Scheduled",
			},
			nil,
		},
		"a stated pod of another name": {
			query.Filter{Namespace: "prod", For: "rs/web"},
			func(l *lines) {
				l.add(1, "prod/ReplicaSet/web", "SuccessfulCreate", "Created pod: odd")
				l.add(1, "prod/Pod/odd", "Killing", "Stopping container a")
			},
			[]string{"selected prod/replicaset/web SuccessfulCreate", "owned prod/pod/odd Killing"},
			nil,
		},
		"a node while the pod is there": {
			query.Filter{Namespace: "prod", For: "deploy/web"},
			func(l *lines) {
				l.add(-60, "default/Node/n-1", "NodeNotReady", "long before")
				rollout(l, "prod", "web", "web-79b5894fc8-x2k9d", "n-1", 0)
				l.add(30, "default/Node/n-1", "NodeNotReady", "during")
				l.add(30, "default/Node/n-2", "NodeNotReady", "another node")
				l.add(60, "prod/Pod/web-79b5894fc8-x2k9d", "Killing", "Stopping container a")
				l.add(65, "default/Node/n-1", "NodeReady", "soon after")
				l.add(120, "default/Node/n-1", "NodeReady", "long after")
			},
			[]string{
				"selected prod/deployment/web ScalingReplicaSet", "owned prod/replicaset/web-79b5894fc8 SuccessfulCreate",
				"owned prod/pod/web-79b5894fc8-x2k9d Scheduled", "owned prod/pod/web-79b5894fc8-x2k9d Killing",
				"node /node/n-1 NodeNotReady", "node /node/n-1 NodeReady",
			},
			// Those before and after are in a file's pass, in Loki the range of the query excludes them.
			nil,
		},
		"who preempted it, and their owners": {
			query.Filter{Namespace: "prod", For: "deploy/web", Reasons: []string{"Preempted", "ScalingReplicaSet"}},
			func(l *lines) {
				rollout(l, "prod", "web", "web-79b5894fc8-x2k9d", "n-1", 0)
				rollout(l, "batch", "crunch", "crunch-64b5894fc8-x2k9d", "n-1", 5)
				rollout(l, "batch", "other", "other-64b5894fc8-x2k9d", "n-1", 5)
				l.add(6, "prod/Pod/web-79b5894fc8-x2k9d", "Preempted", "Preempted by pod "+uidOf("batch/Pod/crunch-64b5894fc8-x2k9d")+" on node n-1")
				l.add(7, "prod/Pod/web-79b5894fc8-x2k9d", "Preempted", "Preempted by pod "+uidOf("unknown")+" on node n-1")
				l.add(8, "shop/Pod/shop-64b5894fc8-x2k9d", "Preempted", "Preempted by pod "+uidOf("prod/Pod/web-79b5894fc8-x2k9d")+" on node n-1")
				l.add(9, "shop/Pod/shop-64b5894fc8-x2k9d", "Preempted", "Preempted by pod "+uidOf("batch/Pod/other-64b5894fc8-x2k9d")+" on node n-1")
			},
			[]string{
				"selected prod/deployment/web ScalingReplicaSet", "owned prod/pod/web-79b5894fc8-x2k9d Preempted", "owned prod/pod/web-79b5894fc8-x2k9d Preempted",
				"preemptor batch/deployment/crunch ScalingReplicaSet", "victim shop/pod/shop-64b5894fc8-x2k9d Preempted",
			},
			[]string{"1 preemptors of whom only the uid is known: no stored Event is about them"},
		},
		"a preemptor that the message names": {
			query.Filter{Namespace: "prod", For: "pod/web-0", Reasons: []string{"Preempted", "Scheduled"}},
			func(l *lines) {
				l.add(6, "prod/Pod/web-0", "Preempted", "Preempted by batch/crunch on node n-1")
				l.add(7, "batch/Pod/crunch", "Scheduled", "Successfully assigned batch/crunch to n-1")
			},
			[]string{"selected prod/pod/web-0 Preempted", "preemptor batch/pod/crunch Scheduled"},
			nil,
		},
		"gaps of all namespaces and of this one": {
			query.Filter{Namespace: "prod", Types: []string{"Normal"}},
			func(l *lines) {
				for _, source := range []string{"", "prod", "shop"} {
					r := event.NewGap(event.Gap{Source: source, Namespace: "monitoring", Cause: event.CauseTooOld, From: event.Position{Time: noon}, To: event.Position{Time: noon.Add(time.Minute)}})
					r.Event.Kind, r.Event.APIVersion = "Event", "v1"
					l.write(r.Event)
				}
			},
			[]string{"gap /namespace/* HindsightGap", "selected /namespace/prod HindsightGap"},
			nil,
		},
		"a namespace has its own, and its nodes": {
			query.Filter{Namespace: "prod"},
			func(l *lines) {
				l.add(0, "prod/Pod/web-0", "Scheduled", "Successfully assigned prod/web-0 to n-1")
				l.add(0, "shop/Pod/web-0", "Scheduled", "Successfully assigned shop/web-0 to n-2")
				l.add(1, "default/Node/n-1", "NodeNotReady", "")
				l.add(1, "default/Node/n-2", "NodeNotReady", "")
			},
			[]string{"selected prod/pod/web-0 Scheduled", "node /node/n-1 NodeNotReady"},
			nil,
		},
		"a node has its pods": {
			query.Filter{For: "node/n-1", Namespace: "ignored"},
			func(l *lines) {
				l.add(0, "prod/Pod/web-0", "FailedScheduling", "0/8")
				l.add(0, "prod/Pod/web-0", "Scheduled", "Successfully assigned prod/web-0 to n-1")
				l.add(0, "prod/Pod/web-1", "Scheduled", "Successfully assigned prod/web-1 to n-11")
				l.add(1, "default/Node/n-1", "NodeNotReady", "")
			},
			[]string{"selected prod/pod/web-0 FailedScheduling", "selected prod/pod/web-0 Scheduled", "selected /node/n-1 NodeNotReady"},
			nil,
		},
		"a custom resource and its pods": {
			query.Filter{Namespace: "prod", For: "cloneset/web"},
			func(l *lines) {
				l.add(0, "prod/CloneSet/web", "SuccessfulCreate", "succeed to create pod web-x2k9d")
				l.add(0, "prod/Pod/web-x2k9d", "Started", "Container started")
			},
			[]string{"selected prod/cloneset/web SuccessfulCreate", "owned prod/pod/web-x2k9d Started"},
			nil,
		},
		"each Event once, in its latest state": {
			query.Filter{Namespace: "prod", For: "pod/web-0"},
			func(l *lines) {
				e := l.add(0, "prod/Pod/web-0", "BackOff", "first")
				e.Count, e.ResourceVersion, e.Reason = 7, "1000", "Latest"
				l.write(e)
				l.write(e)
			},
			[]string{"selected prod/pod/web-0 Latest"},
			nil,
		},
		"lines that cannot be joined": {
			query.Filter{},
			func(l *lines) {
				// Of Grafana Alloy: without a time, a namespace and the uid of the Event.
				l.text = append(l.text,
					"name=web-0 kind=Pod objectAPIversion=v1 objectRV=1 eventRV=2 reportinginstance=n-1 reportingcontroller=kubelet sourcecomponent=kubelet sourcehost=n-1 reason=Killing type=Normal count=1 msg=\"Stopping container a\"",
					"this is no Event", "this neither")
				l.add(0, "prod/Pod/web-0", "Scheduled", "Successfully assigned prod/web-0 to n-1")
			},
			[]string{"selected prod/pod/web-0 Scheduled"},
			[]string{`0 events.jsonl: line 1: looks like text: "name=web-0 kind=Pod objectAPIversion=v1 objectRV=1 eventRV=2…" (and 2 more)`},
		},
	} {
		t.Run(name, func(t *testing.T) {
			var l lines
			c.write(&l)
			path := l.file(t)
			rows, omissions := told(t, fromFile(t, path, c.filter))
			for i := range omissions {
				omissions[i] = strings.ReplaceAll(omissions[i], path, filepath.Base(path))
			}
			slices.Sort(rows)
			slices.Sort(c.rows)
			if !slices.Equal(rows, c.rows) {
				t.Errorf("gathered\n%s\nwant\n%s", strings.Join(rows, "\n"), strings.Join(c.rows, "\n"))
			}
			if !slices.Equal(omissions, c.omissions) {
				t.Errorf("omitted: %q, want %q", omissions, c.omissions)
			}
		})
	}
}

func TestAround(t *testing.T) {
	var l lines
	l.add(0, "prod/Pod/web-0", "Started", "")
	e := l.add(7, "prod/Pod/web-0", "Killing", "")
	l.add(9, "shop/Pod/web-0", "Killing", "")
	r := fromFile(t, l.file(t), query.Filter{Namespace: "prod"})
	for _, name := range []string{string(e.UID), "event/" + e.Name, "prod/" + e.Name, e.Name, "event/" + string(e.UID)} {
		at, err := Around(t.Context(), r, name)
		if err != nil || !at.Truncate(time.Second).Equal(noon.Add(7*time.Minute)) {
			t.Errorf("%s: %s, %v", name, at, err)
		}
	}
	for _, name := range []string{"e-99", "shop/" + e.Name, "event/x.y"} {
		if at, err := Around(t.Context(), r, name); err == nil || !strings.Contains(err.Error(), "no Event "+name) {
			t.Errorf("%s: %s, %v", name, at, err)
		}
	}
}
