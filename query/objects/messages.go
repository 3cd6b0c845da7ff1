package objects

import (
	"strings"
)

// facts are the facts in one Event about objects other than its own.
type facts struct {
	owned []link
	named []name
	pod   Object // that was on node; the Event's own object if empty
	node  string
}

type link struct{ owned, owner Object }

type name struct {
	uid    string
	object Object
}

// parse returns the facts in a message. o is the object of the Event. The messages are those of
// Kubernetes 1.20 to 1.36, and a few of earlier versions and of other controllers that follow them.
func parse(o Object, reason, message string) (f facts) {
	owns := func(kind, name string) {
		if validName(name) {
			f.owned = append(f.owned, link{owned: New(kind, o.Namespace, name), owner: o})
		}
	}
	switch reason {
	case "SuccessfulCreate", "SuccessfulDelete", "FailedCreate", "FailedDelete", "SuccessfulUpdate", "FailedUpdate":
		parseCreated(&f, o, message, owns)
	case "SawCompletedJob": // Saw completed job: x, status: Complete
		owns("Job", word(after(message, "Saw completed job: ")))
	case "MissingJob": // Active job went missing: x
		owns("Job", word(after(message, "Active job went missing: ")))
	case "ScalingReplicaSet", "NewReplicaSetCreated":
		owns("ReplicaSet", scaledReplicaSet(message))
	case "WorkloadCreated": // Created Workload x for Job y
		owns("Workload", word(after(message, "Created Workload ")))
	case "Scheduled": // Successfully assigned namespace/pod to node; without namespace before 1.12
		pod, node, _ := strings.Cut(after(message, "Successfully assigned "), " to ")
		if pod == o.Namespace+"/"+o.Name || pod == o.Name {
			f.node = validNode(node)
		}
	case "Preempted":
		if p, ok := ParsePreempted(message); ok {
			f.node = p.Node
		}
	case "NodeControllerEviction": // Marking for deletion Pod x from Node n
		_, node, _ := strings.Cut(message, " from Node ")
		f.node = validNode(node)
	case "FailedDaemonPod", "SucceededDaemonPod": // Found failed daemon pod namespace/x on node n, will try to kill it
		_, rest, _ := strings.Cut(message, " daemon pod ")
		path, rest, _ := strings.Cut(rest, " on node ")
		if namespace, pod, ok := strings.Cut(path, "/"); ok && namespace == o.Namespace {
			owns("Pod", pod)
			f.pod, f.node = New("Pod", o.Namespace, pod), validNode(word(rest))
		}
	}
	if o.Kind != "Pod" {
		return f
	}
	if n, ok := podInParentheses(o, message); ok {
		f.named = append(f.named, n)
	}
	return f
}

// parseCreated parses the messages of controllers that create pods, jobs and claims.
func parseCreated(f *facts, o Object, message string, owns func(kind, name string)) {
	for _, form := range [...]struct{ prefix, kind string }{
		{"Created pod: ", "Pod"}, {"Deleted pod: ", "Pod"}, {"Created job ", "Job"}, {"Deleted job ", "Job"},
	} {
		if rest := after(message, form.prefix); rest != "" {
			owns(form.kind, word(rest))
			return
		}
	}
	// create Pod web-0 in StatefulSet web successful
	// Create Claim data-web-0 Pod web-0 in StatefulSet web success
	// Create Claim data-web-0 for Pod web-0 in StatefulSet web failed error: …
	words := strings.SplitN(message, " ", 10)
	if i := indexOf(words, "in"); i < 0 || i+2 >= len(words) || words[i+1] != o.Kind || words[i+2] != o.Name {
		return
	}
	for i := 1; i+1 < len(words) && words[i] != "in"; i++ {
		switch words[i] {
		case "Pod":
			owns("Pod", words[i+1])
			i++
		case "Claim":
			owns("PersistentVolumeClaim", words[i+1])
			i++
		}
	}
}

func indexOf(words []string, word string) int {
	for i, w := range words {
		if w == word {
			return i
		}
	}
	return -1
}

// scaledReplicaSet returns the name in one of
//
//	Scaled up replica set web-79b5894fc8 to 4               (before 1.25)
//	Scaled up replica set web-79b5894fc8 to 4 from 3        (1.25)
//	Scaled up replica set web-79b5894fc8 from 3 to 4        (since 1.30)
//	Scaled up ReplicaSet web-79b5894fc8 (revision 2) from 3 to 4, Created ReplicaSet web-79b5894fc8 (Argo Rollouts)
func scaledReplicaSet(message string) string {
	for _, prefix := range [...]string{
		"Scaled up replica set ", "Scaled down replica set ", "Scaled up ReplicaSet ", "Scaled down ReplicaSet ",
		"Created ReplicaSet ", "Created new replica set ",
	} {
		if rest := after(message, prefix); rest != "" {
			return strings.Trim(word(rest), `"`)
		}
	}
	return ""
}

// Preemption is the parsed message of an Event with the reason Preempted.
type Preemption struct {
	UID       string // of the preemptor, unless Preemptor is set
	Preemptor Object // its Kind is set in any case
	Node      string
}

// ParsePreempted parses the message of an Event with the reason Preempted, one of
//
//	Preempted by pod f8e9598f-f9fc-45e8-aaad-c2eea84b20ed on node n (since 1.29)
//	Preempted by podgroup f8e9598f-f9fc-45e8-aaad-c2eea84b20ed on node n (since 1.35)
//	Preempted by namespace/name on node n
//	by namespace/name on node n (before 1.17)
func ParsePreempted(message string) (Preemption, bool) {
	rest := after(message, "Preempted by ")
	if rest == "" {
		rest = after(message, "by ")
	}
	who, rest, ok := strings.Cut(rest, " on node ")
	if !ok || len(who) > 2*maxName {
		return Preemption{}, false
	}
	p := Preemption{Node: validNode(strings.TrimSuffix(word(rest), "."))}
	if kind, id, ok := strings.Cut(who, " "); ok {
		switch kind {
		case "pod":
			p.Preemptor.Kind = "Pod"
		case "podgroup":
			p.Preemptor.Kind = "PodGroup"
		default:
			return Preemption{}, false
		}
		if _, ok := parseUID(id); !ok {
			return Preemption{}, false
		}
		p.UID = id
		return p, true
	}
	namespace, name, ok := strings.Cut(who, "/")
	if !ok || !validName(namespace) || !validName(name) {
		return Preemption{}, false
	}
	p.Preemptor = New("Pod", namespace, name)
	return p, true
}

// after returns the rest of a text behind a prefix, empty if it does not begin with it.
func after(text, prefix string) string {
	rest, ok := strings.CutPrefix(text, prefix)
	if !ok {
		return ""
	}
	return rest
}

// word returns the text up to a space or a comma.
func word(text string) string {
	if i := strings.IndexAny(text, " ,"); i >= 0 {
		return text[:i]
	}
	return text
}

// validNode returns the name of a node, empty if it is none.
func validNode(name string) string {
	if !validName(name) {
		return ""
	}
	return name
}

// validName reports whether a text can be the name of an object: a DNS subdomain.
func validName(s string) bool {
	if s == "" || len(s) > maxName {
		return false
	}
	for i := range len(s) {
		c := s[i]
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' && c != '.' {
			return false
		}
	}
	return s[0] != '-' && s[0] != '.' && s[len(s)-1] != '-' && s[len(s)-1] != '.'
}
