package timeline

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/hindsight-events/hindsight/event"
	"github.com/hindsight-events/hindsight/event/format"
	"github.com/hindsight-events/hindsight/query/objects"
)

// story is a list of Events for tests, in the order of time.
type story struct {
	records []format.Record
	at      time.Time
	version int
}

var storyBegin = time.Date(2026, 3, 6, 12, 0, 0, 0, time.UTC)

func newStory() *story { return &story{at: storyBegin} }

func (s *story) wait(d time.Duration) { s.at = s.at.Add(d) }

func (s *story) normal(kind, name, reason, message string) *corev1.Event {
	return s.event(kind, name, corev1.EventTypeNormal, reason, message)
}

func (s *story) warning(kind, name, reason, message string) *corev1.Event {
	return s.event(kind, name, corev1.EventTypeWarning, reason, message)
}

func (s *story) event(kind, name, typ, reason, message string) *corev1.Event {
	s.version++
	namespace, involved := "prod", "prod"
	if kind == "Node" {
		namespace, involved = "default", ""
	}
	e := &corev1.Event{
		ObjectMeta:     metav1.ObjectMeta{Name: fmt.Sprintf("%s.%x", name, s.version), Namespace: namespace, UID: types.UID(fmt.Sprintf("e-%d", s.version)), ResourceVersion: fmt.Sprint(s.version)},
		InvolvedObject: corev1.ObjectReference{Kind: kind, Namespace: involved, Name: name, UID: storyUID(name)},
		Reason:         reason, Message: message, Type: typ, Count: 1,
		FirstTimestamp: metav1.NewTime(s.at), LastTimestamp: metav1.NewTime(s.at),
		Source: corev1.EventSource{Component: "test"},
	}
	s.records = append(s.records, format.Record{Record: event.New(e), WholeEvent: true})
	return e
}

// repeated makes the last Event one that occurred n times since a time.
func (s *story) repeated(n int32, since time.Time) {
	e := s.records[len(s.records)-1].Event
	e.Count, e.FirstTimestamp = n, metav1.NewTime(since)
	s.records[len(s.records)-1].Record = event.New(e)
}

func storyUID(name string) types.UID {
	var n uint64
	for _, c := range []byte(name) {
		n = n*131 + uint64(c)
	}
	return types.UID(fmt.Sprintf("00000000-0000-4000-8000-%012x", n&0xffffffffffff))
}

func (s *story) timeline(q Query) *Timeline {
	g := objects.NewGraph()
	for i := range s.records {
		g.Observe(&s.records[i])
	}
	f := NewFolder(g, q, nil)
	for i := range s.records {
		f.Add(&s.records[i])
	}
	return f.Timeline()
}

// rollout adds the start of pods of a Deployment, some of them each few seconds.
func (s *story) rollout(deployment, hash string, pods int) (names []string) {
	set := deployment + "-" + hash
	s.normal("Deployment", deployment, "ScalingReplicaSet", fmt.Sprintf("Scaled up replica set %s from 0 to %d", set, pods))
	for i := range pods {
		pod := set + "-" + podSuffix(i)
		names = append(names, pod)
		s.normal("ReplicaSet", set, "SuccessfulCreate", "Created pod: "+pod)
		s.normal("Pod", pod, "Scheduled", fmt.Sprintf("Successfully assigned prod/%s to node-%d", pod, i%4))
		s.normal("Pod", pod, "Pulled", "Container image already present on machine")
		s.normal("Pod", pod, "Created", "Container created")
		s.normal("Pod", pod, "Started", "Container started")
		s.wait(3 * time.Second)
	}
	return names
}

func podSuffix(i int) string {
	const alphabet = "bcdfghjklmnpqrstvwxz2456789"
	b := []byte("zzzzz")
	for at := len(b) - 1; at >= 0; at-- {
		b[at], i = alphabet[i%len(alphabet)], i/len(alphabet)
	}
	return string(b)
}

// reasons lists the rows as "reason: summary".
func reasonsOf(t *Timeline) (list []string) {
	for _, r := range t.Rows {
		name := r.Reason
		if r.Routine != "" {
			name = "routine"
		}
		list = append(list, name+": "+r.Summary)
	}
	return list
}

func wantRows(t *testing.T, tl *Timeline, want ...string) {
	t.Helper()
	if got := reasonsOf(tl); strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("rows:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// A rollout of 20 pods is one row with its steps, not a hundred.
func TestRolloutIsOneRow(t *testing.T) {
	s := newStory()
	s.rollout("api", "5d4f8c7b9c", 20)
	tl := s.timeline(Query{Namespace: "prod"})
	wantRows(t, tl, "routine: 20 pods of Deployment api")
	r := tl.Rows[0]
	if got, want := steps(r.Steps), "ScalingReplicaSet, 20 Scheduled, 20 Started"; got != want {
		t.Errorf("steps %q, want %q", got, want)
	}
	if len(r.Events) != 101 || r.EventCount != 101 || len(r.Nodes) != 4 || r.Last.Sub(r.First) < 57*time.Second {
		t.Errorf("%d of %d Events, %d nodes, %s", len(r.Events), r.EventCount, len(r.Nodes), r.Last.Sub(r.First))
	}
	for _, i := range r.Events {
		if tl.Events[i].Row != 0 {
			t.Errorf("Event %d is in row %d", i, tl.Events[i].Row)
		}
	}
}

// A routine that something interrupts is two rows, so that the recovery is seen after the trouble.
func TestDisturbedRoutineIsTwoRows(t *testing.T) {
	for name, c := range map[string]struct {
		trouble bool
		want    []string
	}{
		"undisturbed": {false, []string{"routine: 4 pods of Deployment api"}},
		"disturbed":   {true, []string{"routine: 2 pods of Deployment api", "Unhealthy: 2 pods of Deployment api", "routine: 2 pods of Deployment api"}},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStory()
			pods := s.rollout("api", "5d4f8c7b9c", 2)
			s.wait(10 * time.Second)
			if c.trouble {
				for _, p := range pods {
					s.warning("Pod", p, "Unhealthy", "Readiness probe failed")
				}
			}
			s.wait(10 * time.Second)
			s.rollout("api", "6d4f8c7b9c", 2)
			wantRows(t, s.timeline(Query{Namespace: "prod"}), c.want...)
		})
	}
}

// Preemptions are rows by victim and preemptor, whose uid is resolved by its other Events; they are
// counted in a table.
func TestWhoPreemptedWhom(t *testing.T) {
	s := newStory()
	victims := s.rollout("querier", "5d4f8c7b9c", 30)
	s.wait(time.Minute)
	preemptors := s.rollout("ingester", "6d4f8c7b9c", 3)
	for i, v := range victims {
		by := preemptors[i%3]
		if i >= 28 {
			by = "absent"
		}
		s.normal("Pod", v, "Preempted", fmt.Sprintf("Preempted by pod %s on node node-%d", storyUID(by), i%4))
	}
	tl := s.timeline(Query{Namespace: "prod"})
	wantRows(t, tl, "routine: 30 pods of Deployment querier", "routine: 3 pods of Deployment ingester",
		"Preempted: 28 pods of Deployment querier, by Deployment ingester", "Preempted: 2 pods of Deployment querier, by a pod without other Events")
	if len(tl.Preemptions) != 2 {
		t.Fatalf("preemptions: %+v", tl.Preemptions)
	}
	p := tl.Preemptions[0]
	if tl.Name(p.Victim) != "Deployment querier" || tl.Name(p.Preemptor) != "Deployment ingester" || p.Pods != 28 || len(p.Victims) != 28 || len(p.Preemptors) != 3 || len(p.Nodes) != 4 {
		t.Errorf("%+v", p)
	}
	if p := tl.Preemptions[1]; p.Preemptor != None || p.PreemptorUID != string(storyUID("absent")) || p.Pods != 2 {
		t.Errorf("by an unknown pod: %+v", p)
	}
	e := tl.Events[tl.Rows[2].Events[0]]
	if want := "Preempted by pod prod/" + preemptors[0] + " on node node-0"; e.Resolved != want {
		t.Errorf("resolved message %q, want %q", e.Resolved, want)
	}
	if l := tl.Lanes[0]; tl.Name(l.Object) != "Deployment querier" || l.Preempted != 30 || l.Started != 30 {
		t.Errorf("first lane: %+v", l)
	}
}

// Lanes of a preemption come before those of workloads with earlier and more Warnings.
func TestLanesOfPreemptionsComeFirst(t *testing.T) {
	s := newStory()
	for _, pod := range s.rollout("noisy", "7d4f8c7b9c", 5) {
		s.warning("Pod", pod, "Unhealthy", "Readiness probe failed")
	}
	s.wait(time.Minute)
	victims := s.rollout("querier", "5d4f8c7b9c", 1)
	preemptors := s.rollout("ingester", "6d4f8c7b9c", 1)
	s.normal("Pod", victims[0], "Preempted", fmt.Sprintf("Preempted by pod %s on node node-0", storyUID(preemptors[0])))
	tl := s.timeline(Query{Namespace: "prod"})
	var names []string
	for _, l := range tl.Lanes {
		if l.Kind == LaneWorkload {
			names = append(names, tl.Name(l.Object))
		}
	}
	if want := []string{"Deployment querier", "Deployment ingester", "Deployment noisy"}; !slices.Equal(names, want) {
		t.Errorf("lanes of %q, want %q", names, want)
	}
}

// A repeated Event is one Event with its count and its span; equal Events that are apart are two rows.
func TestRepeatsAndPauses(t *testing.T) {
	s := newStory()
	s.wait(10 * time.Minute)
	s.warning("Pod", "web-0", "BackOff", "Back-off restarting failed container")
	s.repeated(41, storyBegin)
	s.wait(30 * time.Second)
	s.warning("Pod", "web-1", "BackOff", "Back-off restarting failed container")
	s.wait(61 * time.Second)
	s.warning("Pod", "web-1", "BackOff", "Back-off restarting failed container")
	tl := s.timeline(Query{Namespace: "prod", From: storyBegin.Add(5 * time.Minute)})
	wantRows(t, tl, "BackOff: 2 pods of workload web", "BackOff: pod web-1")
	if r := tl.Rows[0]; r.Occurrences != 42 || r.EventCount != 2 || !r.First.Equal(storyBegin) || r.Last.Sub(storyBegin) < 10*time.Minute+30*time.Second {
		t.Errorf("%+v", r)
	}
	if e := tl.Events[0]; e.Count != 41 || !e.First.Equal(storyBegin) {
		t.Errorf("%+v", e)
	}
	if m := tl.Marks; m[0].Text != "first Event" || m[len(m)-1].Text != "last Event" || m[len(m)-1].Event != 2 {
		t.Errorf("marks: %+v", m)
	}
}

// A node that is not ready and then is again shows both; the start of a node is a routine.
func TestNodeRecovers(t *testing.T) {
	s := newStory()
	for _, reason := range []string{"Starting", "NodeHasSufficientMemory", "RegisteredNode", "NodeReady"} {
		s.normal("Node", "node-1", reason, reason)
	}
	s.wait(time.Hour)
	s.normal("Node", "node-1", "NodeNotReady", "Node is not ready")
	s.wait(time.Minute)
	s.normal("Node", "node-1", "NodeReady", "Node is ready")
	tl := s.timeline(Query{})
	wantRows(t, tl, "routine: node node-1", "NodeNotReady: node node-1", "NodeReady: node node-1")
	if l := tl.Lanes[0]; l.Kind != LaneNode || len(l.Rows) != 3 {
		t.Errorf("lanes: %+v", tl.Lanes)
	}
}

// A gap is a row from its begin to its end, and the page says that Events may be missing.
func TestGapsAreRows(t *testing.T) {
	s := newStory()
	s.warning("Pod", "web-0", "Unhealthy", "Readiness probe failed")
	s.wait(20 * time.Minute)
	s.warning("Pod", "web-0", "Failed", "Error")
	gap := event.NewGap(event.Gap{
		From: event.Position{Version: 7, Time: storyBegin.Add(time.Minute)}, To: event.Position{Version: 9, Time: storyBegin.Add(19 * time.Minute)}, Cause: event.CauseTooOld,
	})
	s.records = append(s.records, format.Record{Record: gap, WholeEvent: true})
	tl := s.timeline(Query{})
	wantRows(t, tl, "Unhealthy: pod prod/web-0", "HindsightGap: Events may be missing", "Failed: pod prod/web-0")
	r := tl.Rows[1]
	if !r.Gap || !r.First.Equal(storyBegin.Add(time.Minute)) || !r.Last.Equal(storyBegin.Add(19*time.Minute)) || !strings.Contains(r.Message, "may have been missed") {
		t.Errorf("%+v", r)
	}
	if tl.Lanes[0].Kind != LaneGap || tl.Totals.Warnings != 2 {
		t.Errorf("lanes %+v, totals %+v", tl.Lanes, tl.Totals)
	}
	if p := strings.Join(tl.page(Style{}).about, "\n"); !strings.Contains(p, "1 gap: Events may be missing") {
		t.Error(p)
	}
}

// Of a flood, at most MaxEvents Events are kept, spread over all of it. The rows count all, and rare
// Events are complete.
func TestFloodIsBounded(t *testing.T) {
	s := newStory()
	g := objects.NewGraph()
	f := NewFolder(g, Query{}, nil)
	const flood = 45_000
	for i := range flood {
		s.records = s.records[:0]
		s.warning("Pod", fmt.Sprintf("web-%d", i%1000), "Unhealthy", "Readiness probe failed")
		if i%7_000 == 0 {
			s.warning("Pod", "db-0", "Failed", "Error")
		}
		if i%100 == 0 {
			s.wait(100 * time.Millisecond)
		}
		for j := range s.records {
			f.Add(&s.records[j])
		}
	}
	tl := f.Timeline()
	wantRows(t, tl, "Unhealthy: 1000 pods of workload prod/web", "Failed: pod prod/db-0")
	if n := len(tl.Events); n > MaxEvents+len(tl.Rows) || n < MaxEvents/4 {
		t.Errorf("%d Events are kept", n)
	}
	if r := tl.Rows[0]; r.EventCount != flood || r.ObjectCount != 1000 {
		t.Errorf("%d Events of %d objects", r.EventCount, r.ObjectCount)
	}
	if n := len(tl.Rows[1].Events); n != 7 {
		t.Errorf("%d of 7 rare Events are kept", n)
	}
	half := 0
	for _, e := range tl.Events {
		if e.Time.Before(storyBegin.Add(22500 * time.Millisecond)) {
			half++
		}
	}
	if share := float64(half) / float64(len(tl.Events)); share < 0.4 || share > 0.6 {
		t.Errorf("%.0f%% of the kept Events are of the first half", 100*share)
	}
	if n := len(tl.Omissions); n != 1 || tl.Omissions[0].Count != flood+7-len(tl.Events) {
		t.Errorf("omissions: %+v", tl.Omissions)
	}
}

// Hostile Events cannot make more rows than the bound, nor keep more than the bound of bytes.
func TestHostileFloodIsBounded(t *testing.T) {
	g := objects.NewGraph()
	f := NewFolder(g, Query{}, nil)
	s := newStory()
	long := strings.Repeat("x", 64<<10)
	for i := range 6_000 {
		s.records = s.records[:0]
		s.warning("Pod", fmt.Sprintf("web-%d", i), fmt.Sprintf("Reason%d", i), fmt.Sprint(i, long))
		f.Add(&s.records[0])
	}
	tl := f.Timeline()
	bytes, events := 0, 0
	for _, e := range tl.Events {
		bytes += len(e.Message)
	}
	for _, r := range tl.Rows {
		events += r.EventCount
	}
	if len(tl.Rows) > maxRows+maxCoarse+1 || events != 6_000 || bytes > maxKeptBytes+len(tl.Rows)*maxMessage {
		t.Errorf("%d rows, %d Events in them, %d bytes", len(tl.Rows), events, bytes)
	}
	var texts []string
	for _, o := range tl.Omissions {
		texts = append(texts, fmt.Sprint(o.Count, " ", o.Text))
	}
	all := strings.Join(texts, "\n")
	if !strings.Contains(all, "6000 messages are cut") || !strings.Contains(all, "in rows of several workloads") {
		t.Error(all)
	}
	if last := tl.Rows[len(tl.Rows)-1]; !strings.Contains(strings.Join(reasonsOf(tl), "\n"), otherReasons) {
		t.Errorf("last row: %+v", last)
	}
}

func TestMessageTemplate(t *testing.T) {
	for _, c := range []struct {
		messages []string
		want     string
	}{
		{[]string{"a b c"}, "a b c"},
		{[]string{"a  b", "a  b"}, "a  b"},
		{[]string{"Preempted by pod ns/web-1 on node n-3", "Preempted by pod ns/web-2 on node n-4"}, "Preempted by pod ns/web-… on node n-…"},
		{[]string{"0/8 nodes are available: 8 cpu.", "0/10 nodes are available: 2 cpu, 8 memory.", "0/8 nodes are available: 8 cpu."}, "0/… nodes are available: … 8 …."},
		{[]string{"Error: ErrImagePull", "Failed to pull image x: not found"}, "Failed to pull image x: not found; or other messages"},
		{[]string{"Héllo wörld one", "Hállo wörld one"}, "… wörld one"},
	} {
		var m, half template
		for i, s := range c.messages {
			if m.add(s); i > 0 {
				half.add(s)
			}
		}
		if got := m.String(); got != c.want {
			t.Errorf("%q: %q, want %q", c.messages, got, c.want)
		}
	}
}

// A taint manager that changes its mind evicts nobody. A stored level above info is trouble, whatever
// the type.
func TestEvictionsAndLevels(t *testing.T) {
	s := newStory()
	s.normal("Pod", "web-0", "TaintManagerEviction", "Marking for deletion Pod prod/web-0")
	s.normal("Pod", "web-1", "TaintManagerEviction", "Cancelling deletion of Pod prod/web-1")
	s.normal("Pod", "web-2", "Odd", "but the router says warn")
	s.records[2].SetLevel("warn")
	s.normal("Pod", "web-3", "Fine", "all is well")
	tl := s.timeline(Query{Namespace: "prod"})
	if tl.Totals.Evicted != 1 {
		t.Errorf("%d pods evicted", tl.Totals.Evicted)
	}
	happened := section(textOf(t, tl, Style{}), "WHAT HAPPENED")
	if !strings.Contains(happened, "! Odd ") || strings.Contains(happened, "! Fine ") {
		t.Error(happened)
	}
}
