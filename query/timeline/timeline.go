// Package timeline tells what happened to a workload, a namespace, a node or a cluster in a range of
// time: the stored Events that belong together, folded into rows that fit on a page.
//
//	Request ── Gather ──> records, oldest first ── Fold ──> Timeline ──> text, markdown, json, page
//	                      and the graph of objects          (rows, lanes, preemptions, omissions)
package timeline

import (
	"encoding/json"
	"fmt"
	"io"
	"time"
)

// Version is the version of the JSON form of a Timeline. It changes when a field changes its meaning;
// fields may be added within a version.
const Version = 1

// None is the index of no object.
const None = -1

// Timeline is the story of a range. Its JSON form is the output json, and what the HTML page embeds.
//
// Objects, events and rows refer to each other by their index in Objects, Events and Rows. Strings are
// as stored: they may hold any characters, and whoever prints them escapes them.
type Timeline struct {
	Version   int       `json:"version"`
	Title     string    `json:"title"` // as in "deployment/ingester in prod-metrics"
	Query     Query     `json:"query"`
	Generated time.Time `json:"generated,omitzero"`

	// First is the first occurrence of any Event in Rows, also if it was before Query.From; Last is the
	// time of the last. Both are zero without Events.
	First time.Time `json:"first,omitzero"`
	Last  time.Time `json:"last,omitzero"`

	Totals      Totals       `json:"totals"`
	Marks       []Mark       `json:"marks,omitempty"`
	Objects     []Object     `json:"objects,omitempty"`
	Events      []Event      `json:"events,omitempty"` // oldest first, by Time
	Rows        []Row        `json:"rows,omitempty"`   // by First
	Story       []Line       `json:"story,omitempty"`
	Lanes       []Lane       `json:"lanes,omitempty"`
	Preemptions []Preemption `json:"preemptions,omitempty"` // by First
	Omissions   []Omission   `json:"omissions,omitempty"`
}

// Query is what was asked for.
type Query struct {
	Namespace string    `json:"namespace,omitempty"` // empty: all
	For       string    `json:"for,omitempty"`
	Node      string    `json:"node,omitempty"`
	Cluster   string    `json:"cluster,omitempty"`
	Around    string    `json:"around,omitempty"`  // the time or the Event that the range surrounds
	Filters   []string  `json:"filters,omitempty"` // further flags, as in "--types Warning"
	From      time.Time `json:"from,omitzero"`
	To        time.Time `json:"to,omitzero"` // exclusive
	Source    string    `json:"source,omitempty"`
	Zone      string    `json:"zone,omitempty"` // in which times are shown: an IANA name, "Local" or "UTC"
}

// Totals counts what the Timeline is about, including Events that are not in Events.
type Totals struct {
	Events      int   `json:"events"`
	Occurrences int   `json:"occurrences"`         // repeats included
	Warnings    int   `json:"warnings"`            // Events of the type Warning
	Preempted   int   `json:"preempted,omitempty"` // pods
	Evicted     int   `json:"evicted,omitempty"`   // pods
	Objects     int   `json:"objects"`
	Workloads   int   `json:"workloads"`
	Nodes       int   `json:"nodes"`
	Bytes       int64 `json:"bytes,omitempty"`    // fetched
	Requests    int   `json:"requests,omitempty"` // to fetch them
}

// Mark names an Event that a reader looks for first, as in "first Warning".
type Mark struct {
	Text  string `json:"text"`
	Event int    `json:"event"`
	Row   int    `json:"row"`
}

// Object is what an Event is about, or an owner of that.
type Object struct {
	Kind      string `json:"kind"`
	Namespace string `json:"namespace,omitempty"`
	Name      string `json:"name"`
	UID       string `json:"uid,omitempty"`
	Owner     int    `json:"owner"`              // None: unknown or none
	Evidence  string `json:"evidence,omitempty"` // of Owner: "recorded", "stated" or "inferred"
	Workload  int    `json:"workload"`           // the controller at the top, the object itself if it has none
	Relation  string `json:"relation,omitempty"` // why it is here, as in "selected", "owned", "node", "preemptor"
	Nodes     []int  `json:"nodes,omitempty"`    // where the pod ran
}

// Event is an Event in its latest state.
type Event struct {
	Time      time.Time `json:"time,omitzero"`
	First     time.Time `json:"first,omitzero"` // of its occurrences, if that is not Time
	Object    int       `json:"object"`
	Node      int       `json:"node"` // None: it names none
	Type      string    `json:"type,omitempty"`
	Level     string    `json:"level,omitempty"` // "info" or "warn", if its stored line has it
	Reason    string    `json:"reason,omitempty"`
	Message   string    `json:"message,omitempty"`
	Resolved  string    `json:"resolved,omitempty"` // the message with names instead of uids, if it has any
	Component string    `json:"component,omitempty"`
	Count     int       `json:"count,omitempty"` // occurrences; absent: 1
	UID       string    `json:"uid,omitempty"`
	Row       int       `json:"row"`
	Gap       bool      `json:"gap,omitempty"`
}

// Row is a line of the page: equal Events of one workload, without a long pause, or the steps of a
// routine such as a rollout.
type Row struct {
	First   time.Time `json:"first,omitzero"`
	Last    time.Time `json:"last,omitzero"`
	Type    string    `json:"type,omitempty"`   // Warning if an Event is
	Level   string    `json:"level,omitempty"`  // the worst of the Events, if their stored lines have it
	Reason  string    `json:"reason,omitempty"` // of a routine, that of its last step
	Routine string    `json:"routine,omitempty"`

	// Summary names the objects and the cause, as in
	// "28 pods of Deployment/querier, by Deployment/ingester of dedicated-metrics".
	Summary string `json:"summary"`

	// After is the reason of what happened to the nodes just before, if the row is about evictions.
	After string `json:"after,omitempty"`

	// Message is the Events' message, "…" where they differ.
	Message string `json:"message,omitempty"`

	Component string `json:"component,omitempty"`
	Workload  int    `json:"workload"`
	By        int    `json:"by"` // the workload that caused it, None if no Event names it, or several did

	Objects     []int  `json:"objects,omitempty"` // in the order of their Events
	ObjectCount int    `json:"objectCount"`       // Objects may be fewer
	Nodes       []int  `json:"nodes,omitempty"`
	Events      []int  `json:"events,omitempty"` // oldest first
	EventCount  int    `json:"eventCount"`       // Events may be fewer
	Occurrences int    `json:"occurrences"`      // repeats included
	Steps       []Step `json:"steps,omitempty"`  // of a routine
	Gap         bool   `json:"gap,omitempty"`
}

// Step counts the Events of a reason in a routine.
type Step struct {
	Reason      string `json:"reason"`
	Events      int    `json:"events"`
	Occurrences int    `json:"occurrences"`
}

// Line is a line of the page that text and Markdown are: a row, or several that were folded further.
// First come those of what happened, by First, then those of what recurs throughout the range.
type Line struct {
	First   time.Time `json:"first,omitzero"`
	Last    time.Time `json:"last,omitzero"`
	Reason  string    `json:"reason,omitempty"`
	Routine string    `json:"routine,omitempty"`
	Trouble bool      `json:"trouble,omitempty"` // it is about something bad
	Gap     bool      `json:"gap,omitempty"`
	What    string    `json:"what"`              // to whom, because of whom, how often and where
	Message string    `json:"message,omitempty"` // as of a Row; of a routine, its steps
	Every   string    `json:"every,omitempty"`   // of what recurs throughout: how often, as in "every 50m"
	Usual   bool      `json:"usual,omitempty"`   // it recurs throughout
	Rows    []int     `json:"rows"`
}

// Lane is the part of the Timeline that concerns one workload, node or namespace, or the gaps. Lanes
// are in reading order: the selected, then whoever did something to them, then nodes, then others by
// their first Warning.
type Lane struct {
	Kind   string `json:"kind"`   // "workload", "node", "namespace" or "gap"
	Object int    `json:"object"` // None: of a gap
	Rows   []int  `json:"rows"`

	Events       int       `json:"events"`
	Occurrences  int       `json:"occurrences"`
	Warnings     int       `json:"warnings,omitempty"`  // Events
	Preempted    int       `json:"preempted,omitempty"` // pods of the workload, or on the node
	Evicted      int       `json:"evicted,omitempty"`   // pods of the workload, or on the node
	Started      int       `json:"started,omitempty"`   // pods of the workload
	Waiting      int       `json:"waiting,omitempty"`   // pods that failed to be scheduled, and were not until the end
	LastStarted  time.Time `json:"lastStarted,omitzero"`
	FirstWarning time.Time `json:"firstWarning,omitzero"`
	LastWarning  time.Time `json:"lastWarning,omitzero"`
}

// Kinds of lanes.
const (
	LaneWorkload  = "workload"
	LaneNode      = "node"
	LaneNamespace = "namespace"
	LaneGap       = "gap"
)

// Preemption counts the pods of one workload that those of another preempted.
type Preemption struct {
	Victim       int       `json:"victim"`                 // workload
	Preemptor    int       `json:"preemptor"`              // workload; None: unknown
	PreemptorUID string    `json:"preemptorUID,omitempty"` // as in the message, if Preemptor is None
	Pods         int       `json:"pods"`
	First        time.Time `json:"first,omitzero"`
	Last         time.Time `json:"last,omitzero"`
	Nodes        []int     `json:"nodes,omitempty"`
	Victims      []int     `json:"victims,omitempty"`    // pods; may be fewer than Pods
	Preemptors   []int     `json:"preemptors,omitempty"` // pods
	Events       []int     `json:"events,omitempty"`
}

// Omission is something that is not in the Timeline, and why.
type Omission struct {
	Text  string `json:"text"`
	Count int    `json:"count,omitempty"` // 0: unknown, or not countable
}

// WriteJSON writes t as one line of JSON.
func WriteJSON(w io.Writer, t *Timeline) error {
	enc := json.NewEncoder(w)
	if err := enc.Encode(t); err != nil {
		return fmt.Errorf("encode the timeline: %w", err)
	}
	return nil
}
