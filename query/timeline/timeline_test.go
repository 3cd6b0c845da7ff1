package timeline

import (
	"bytes"
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"
)

// A Timeline survives its JSON form, which has only the fields that have a value, in camelCase.
func TestJSONRoundTrip(t *testing.T) {
	at := func(s string) time.Time {
		v, err := time.Parse(time.RFC3339Nano, s)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	first, last := at("2026-03-06T11:19:58.000000731Z"), at("2026-03-06T11:20:01Z")
	tl := &Timeline{
		Version: Version, Title: "deployment/querier in prod", First: first, Last: last,
		Query:  Query{Namespace: "prod", For: "deployment/querier", From: first, To: last, Filters: []string{"--types Warning"}},
		Totals: Totals{Events: 2, Occurrences: 9, Objects: 2, Workloads: 2},
		Marks:  []Mark{{Text: "first Event", Event: 0, Row: 0}},
		Objects: []Object{
			{Kind: "Deployment", Namespace: "prod", Name: "querier", Owner: None, Workload: 0, Relation: "selected"},
			{Kind: "Pod", Namespace: "prod", Name: "querier-a", UID: "u", Owner: 0, Evidence: "inferred", Workload: 0, Nodes: []int{2}},
			{Kind: "Node", Name: "node-1", Owner: None, Workload: 2},
		},
		Events: []Event{
			{Time: first, Object: 1, Node: 2, Type: "Normal", Reason: "Preempted", Message: "<b>\u202e\x00", UID: "e"},
			{Time: last, First: first, Object: 1, Node: None, Count: 8, Row: 1},
		},
		Rows:        []Row{{First: first, Last: last, Workload: 0, By: None, Objects: []int{1}, ObjectCount: 1, Events: []int{0}, EventCount: 1, Occurrences: 1, Steps: []Step{{"Pulled", 1, 1}}}},
		Lanes:       []Lane{{Kind: LaneWorkload, Object: 0, Rows: []int{0}, FirstWarning: first}},
		Preemptions: []Preemption{{Victim: 0, Preemptor: None, PreemptorUID: "x", Pods: 1, First: first, Last: first}},
		Omissions:   []Omission{{Text: "Events without a time", Count: 3}},
	}
	var out bytes.Buffer
	if err := WriteJSON(&out, tl); err != nil {
		t.Fatal(err)
	}
	var got Timeline
	if err := json.Unmarshal(out.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(&got, tl) {
		t.Errorf("got  %+v\nwant %+v", &got, tl)
	}
	for _, absent := range []string{"null", "0001-01-01", `"level"`, `"generated"`, "<b>"} {
		if strings.Contains(out.String(), absent) {
			t.Errorf("%s is in %s", absent, out.String())
		}
	}
	for _, present := range []string{`11:19:58.000000731Z`, `"preemptorUID":"x"`, `"firstWarning"`, `"preemptor":-1`} {
		if !strings.Contains(out.String(), present) {
			t.Errorf("no %s in %s", present, out.String())
		}
	}
}
