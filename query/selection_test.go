package query

import (
	"strings"
	"testing"

	"github.com/hindsight-events/hindsight/event/format"
)

func TestLogQL(t *testing.T) {
	bare := func(f format.Format) Layout {
		l := DefaultLayout()
		l.Format, l.Metadata = f, false
		return l
	}
	other := DefaultLayout()
	other.Job = "events"
	other.Labels = map[string]string{"ns": "namespace", "kind": "kind"}
	other.Fixed = map[string]string{"team": "a"}
	for name, c := range map[string]struct {
		filter Filter
		layout Layout
		want   string
	}{
		"everything":     {Filter{}, DefaultLayout(), `{job="hindsight"}`},
		"of a namespace": {Filter{Namespace: "prod", Types: []string{"warning"}}, DefaultLayout(), `{job="hindsight", namespace="prod"} | type="Warning"`},
		"about an object": {
			Filter{Namespace: "prod", For: "deploy/web"},
			DefaultLayout(),
			`{job="hindsight", namespace="prod"} | kind="Deployment" | name="web"`,
		},
		"about an object of a kind that is not known": {
			Filter{For: "certificates.cert-manager.io/a"},
			DefaultLayout(),
			`{job="hindsight"} | kind=~"(?i:certificates|certificate|certificat)" | name="a"`,
		},
		"which may have a namespace": {
			Filter{For: "clusterissuer/a", Namespace: "prod"},
			DefaultLayout(),
			`{job="hindsight", namespace=~"prod|default"} | kind=~"(?i:clusterissuer)" | name="a"`,
		},
		"about an object without a namespace": {
			Filter{For: "node/a", Namespace: "prod"},
			DefaultLayout(),
			`{job="hindsight"} | kind="Node" | name="a"`,
		},
		"of types": {Filter{Types: []string{"warnings", "Error"}}, DefaultLayout(), `{job="hindsight"} | type=~"(?i:Warning|Error)"`},
		// The label is "other" where a reason is not fit to be one.
		"of a reason": {
			Filter{Reasons: []string{"BackOff"}},
			DefaultLayout(),
			`{job="hindsight", reason=~"BackOff|other"} | reason="BackOff" or full_reason="BackOff"`,
		},
		"of several": {
			Filter{Reasons: []string{"A", "B.c"}},
			DefaultLayout(),
			"{job=\"hindsight\", reason=~`A|B\\.c|other`} | reason=~`A|B\\.c` or full_reason=~`A|B\\.c`",
		},
		"of all but a reason": {
			Filter{Selector: `{reason!="Pulled"}`},
			DefaultLayout(),
			`{job="hindsight", reason!="Pulled"} | full_reason!="Pulled"`,
		},
		// Loki forgets an empty alternative of a filter.
		"of a type or none":       {Filter{Selector: `{type=~"Warning|"}`}, DefaultLayout(), `{job="hindsight"} | type=~"(?:Warning|)?"`},
		"of a type that is none":  {Filter{Selector: `{type!~"Warning|", node=~""}`}, DefaultLayout(), `{job="hindsight"} | type!~"(?:Warning|)?" | node=""`},
		"of any type":             {Filter{Selector: `{type=~".*"}`}, DefaultLayout(), `{job="hindsight"} | type=~".*"`},
		"of a cluster and a node": {Filter{Cluster: "eu", Node: "n-1"}, DefaultLayout(), `{job="hindsight", cluster="eu"} | node="n-1"`},
		"a job of one's own":      {Filter{Selector: `{job=~".+", team="b"}`}, DefaultLayout(), `{job=~".+", team="b"}`},
		"a text":                  {Filter{Grep: "exceeded quota"}, DefaultLayout(), `{job="hindsight"} |= "exceeded quota"`},
		"a text that a line escapes": {
			Filter{Grep: `say "hi"`},
			DefaultLayout(),
			"{job=\"hindsight\"} | logfmt event_message=\"msg\" | event_message=~`(?s:.*)(?:say \"hi\")(?s:.*)`",
		},
		"a pattern, last": {
			Filter{Grep: "a|b", Types: []string{"Normal"}},
			DefaultLayout(),
			`{job="hindsight"} | type="Normal" | logfmt event_message="msg" | event_message=~"(?s:.*)(?:a|b)(?s:.*)"`,
		},
		"other labels":                 {Filter{Namespace: "prod", For: "po/x"}, other, `{job="events", team="a", ns="prod", kind=~"Pod|other"} | kind="Pod" or full_kind="Pod" | name="x"`},
		"a reason that is no label":    {Filter{Reasons: []string{"A"}}, other, `{job="events", team="a"} | logfmt event_reason="reason" | event_reason="A"`},
		"without metadata":             {Filter{For: "pod/x"}, bare(format.JSON), `{job="hindsight"} | json event_kind="kind", event_name="name" | event_kind="Pod" | event_name="x"`},
		"without metadata, whole":      {Filter{For: "pod/x"}, bare(format.EventRouter), `{job="hindsight"} | json event_kind="event.involvedObject.kind", event_name="event.involvedObject.name" | event_kind="Pod" | event_name="x"`},
		"without metadata, a sentence": {Filter{For: "pod/x", Namespace: "a"}, bare(format.Text), `{job="hindsight", namespace="a"}`},
	} {
		t.Run(name, func(t *testing.T) {
			s, err := NewSelection(c.filter)
			if err != nil {
				t.Fatal(err)
			}
			if got := s.LogQL(c.layout); got != c.want {
				t.Errorf("\n%s\nwant\n%s", got, c.want)
			}
		})
	}
}

func TestMatch(t *testing.T) {
	r := record(t, backOff)
	r.Labels = map[string]string{"cluster": "eu"}
	for name, c := range map[string]struct {
		filter Filter
		want   bool
	}{
		"nothing asked":       {Filter{}, true},
		"namespace":           {Filter{Namespace: "prod"}, true},
		"another namespace":   {Filter{Namespace: "dev"}, false},
		"short kind":          {Filter{For: "po/web-0"}, true},
		"plural":              {Filter{For: "pods/web-0"}, true},
		"unknown kind":        {Filter{For: "podlings/web-0"}, false},
		"type":                {Filter{Types: []string{"WARNING"}}, true},
		"types in the plural": {Filter{Types: []string{"warnings"}}, true},
		"a type of one's own": {Filter{Types: []string{"Error"}}, false},
		"other type":          {Filter{Types: []string{"Normal"}}, false},
		"one of the reasons":  {Filter{Reasons: []string{"Pulled", "BackOff"}}, true},
		"node":                {Filter{Node: "n-1"}, true},
		"message":             {Filter{Grep: "^Back-off"}, true},
		"not in the message":  {Filter{Grep: "web-0"}, false},
		"selector":            {Filter{Selector: `{kind="Pod", reason=~"Back.*", component="kubelet"}`}, true},
		"label":               {Filter{Selector: `{cluster=~"e."}`}, true},
		"other cluster":       {Filter{Cluster: "us"}, false},
		"anchored expression": {Filter{Selector: `{reason=~"Back"}`}, false},
	} {
		s, err := NewSelection(c.filter)
		if err != nil {
			t.Fatal(err)
		}
		if got := s.Match(r); got != c.want {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}

// Kinds are found by all names that kubectl knows them by, and kinds that are not
// Kubernetes' own by theirs, in any case.
func TestForNamesTheKind(t *testing.T) {
	for name, kind := range map[string]string{
		"po": "Pod", "pods": "Pod", "Pod": "Pod", "no": "Node", "deploy": "Deployment", "deployments.apps": "Deployment",
		"deployment.v1.apps": "Deployment", "deployments.extensions": "Deployment", "sts": "StatefulSet", "rs": "ReplicaSet",
		"ds": "DaemonSet", "cj": "CronJob", "hpa": "HorizontalPodAutoscaler", "pvc": "PersistentVolumeClaim", "pv": "PersistentVolume",
		"ing": "Ingress", "ingresses": "Ingress", "ingress": "Ingress", "ingresses.networking.k8s.io": "Ingress",
		"netpol": "NetworkPolicy", "networkpolicies": "NetworkPolicy", "networkpolicies.networking.k8s.io": "NetworkPolicy",
		"ns": "Namespace", "svc": "Service", "cm": "ConfigMap", "sa": "ServiceAccount", "crd": "CustomResourceDefinition", "crds": "CustomResourceDefinition",
		"ep": "Endpoints", "endpoints": "Endpoints", "endpointslices": "EndpointSlice", "sc": "StorageClass", "storageclasses": "StorageClass",
		"priorityclasses": "PriorityClass", "ipaddresses": "IPAddress", "leases": "Lease", "quota": "ResourceQuota", "pdb": "PodDisruptionBudget",
		"csr": "CertificateSigningRequest", "clusterroles": "ClusterRole", "events.events.k8s.io": "Event", "csistoragecapacities": "CSIStorageCapacity",
		// not Kubernetes' own
		"certificate": "Certificate", "certificates.cert-manager.io": "Certificate", "certificates.v1.cert-manager.io": "Certificate",
		"kafkatopics": "KafkaTopic", "gateways": "Gateway", "gatewayclasses": "GatewayClass", "clusterpolicies": "ClusterPolicy", "proxies": "Proxy",
		"redis": "Redis", "prometheuses": "Prometheus", "meshes": "Mesh", "services.serving.knative.dev": "Service",
	} {
		s, err := NewSelection(Filter{For: name + "/x"})
		if err != nil {
			t.Fatal(err)
		}
		if r := record(t, "name=x reason=A type=Normal kind="+kind); !s.Match(r) {
			t.Errorf("%s is not found as %s", kind, name)
		}
		if r := record(t, "name=x reason=A type=Normal kind="+kind+"X"); s.Match(r) {
			t.Errorf("%sX is found as %s", kind, name)
		}
	}
}

// What an object is of is told apart as far as a record has it.
func TestForTellsObjectsApart(t *testing.T) {
	whole := func(namespace, about, version string) *format.Record {
		return record(t, `{"verb":"ADDED","event":{"metadata":{"namespace":"`+namespace+`","uid":"1"},"involvedObject":{"kind":"Service","name":"x","namespace":"`+about+`","apiVersion":"`+version+`"},"reason":"A"}}`)
	}
	policy := func(version string) *format.Record {
		return record(t, "namespace=prod name=x kind=NetworkPolicy objectAPIversion="+version+" reason=A")
	}
	for name, c := range map[string]struct {
		object string
		r      *format.Record
		want   bool
	}{
		"the group":                      {"services.serving.knative.dev/x", whole("prod", "prod", "serving.knative.dev/v1"), true},
		"another group":                  {"services.serving.knative.dev/x", whole("prod", "prod", "v1"), false},
		"a group that is not known":      {"services.serving.knative.dev/x", whole("prod", "prod", ""), true},
		"a group that has the kind too":  {"networkpolicies.networking.k8s.io/x", policy("crd.projectcalico.org/v1"), false},
		"the group of the kind":          {"networkpolicies.networking.k8s.io/x", policy("networking.k8s.io/v1"), true},
		"the group that it had before":   {"networkpolicies.networking.k8s.io/x", policy("extensions/v1beta1"), true},
		"asked by its former group":      {"networkpolicies.v1beta1.extensions/x", policy("networking.k8s.io/v1"), true},
		"a group that was not asked for": {"netpol/x", policy("crd.projectcalico.org/v1"), true},
		"no namespace":                   {"services.serving.knative.dev/x", whole("default", "", ""), true},
		"the namespace default":          {"services.serving.knative.dev/x", whole("default", "default", ""), false},
		"that of a line of logfmt":       {"clusterissuer/x", record(t, "namespace=default name=x kind=ClusterIssuer reason=A"), true},
		"another namespace":              {"clusterissuer/x", record(t, "namespace=dev name=x kind=ClusterIssuer reason=A"), false},
		"a node's, from anywhere":        {"node/x", record(t, "namespace=kube-system name=x kind=Node reason=A"), true},
		"default, of a kind of its own":  {"pod/x", record(t, "namespace=default name=x kind=Pod reason=A"), false},
		"a volume's":                     {"persistentvolumes/x", record(t, "namespace=default name=x kind=PersistentVolume reason=A"), true},
		"a role that is not a namespace": {"clusterroles.rbac.authorization.k8s.io/x", record(t, "namespace=default name=x kind=ClusterRole reason=A"), true},
	} {
		s, err := NewSelection(Filter{For: c.object, Namespace: "prod"})
		if err != nil {
			t.Fatal(err)
		}
		if got := s.Match(c.r); got != c.want {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}

func TestWhatCannotBeAsked(t *testing.T) {
	for want, f := range map[string]Filter{
		`--for: "web-0" is not an object; write it as in pod/web-0`:                 {For: "web-0"},
		`--types: a type is empty; write it as in Warning`:                          {Types: []string{"Warning", ""}},
		"--grep: error parsing regexp: missing closing ): `(`":                      {Grep: "("},
		"-l `Preempted`: write it in braces, as in {reason=~\"Preempted|Evicted\"}": {Selector: "Preempted"},
	} {
		if _, err := NewSelection(f); err == nil || err.Error() != want {
			t.Errorf("%v, want %s", err, want)
		}
	}
	s, err := NewSelection(Filter{Cluster: "eu"})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.CheckFiles(); err == nil || !strings.Contains(err.Error(), "cluster") {
		t.Errorf("files are asked for labels: %v", err)
	}
}

func TestFold(t *testing.T) {
	state := func(uid, version, count string) *format.Record {
		return record(t, "time=2026-03-06T11:59:30Z name=x kind=Pod reason=A event_uid="+uid+" eventRV="+version+" count="+count)
	}
	f := newLatestOnly()
	f.limit = 2
	for _, r := range []*format.Record{state("a", "10", "7"), state("a", "30", "1"), state("a", "20", "9"), state("b", "12", "0")} {
		f.observe(r)
	}
	for _, c := range []struct {
		r    *format.Record
		want bool
	}{
		{state("a", "10", "7"), true},
		{state("a", "20", "9"), true},
		{state("a", "30", "1"), false},
		{state("a", "40", "1"), false},
		{state("b", "12", "0"), false},
		{state("c", "1", "1"), false},
	} {
		if got := f.hides(c.r); got != c.want {
			t.Errorf("%s of %s is hidden: %v, want %v", c.r.Event.ResourceVersion, c.r.Event.UID, got, c.want)
		}
	}
	if f.markShown(state("a", "30", "1")); !f.hides(state("a", "30", "1")) || f.hides(state("a", "31", "1")) {
		t.Error("a state that was shown is not hidden, or a later one is")
	}
	if f.full {
		t.Error("it is full with as many as may be held")
	}
	if f.observe(state("c", "50", "2")); !f.full || f.hides(state("c", "40", "1")) {
		t.Error("more is held than may be")
	}
}

func TestRecent(t *testing.T) {
	s := newRecent(100)
	for i := range 1000 {
		k := key{byte(i), byte(i >> 8)}
		if s.add(k) {
			t.Fatalf("%d is known before it was added", i)
		}
		if !s.add(k) {
			t.Fatalf("%d is forgotten at once", i)
		}
		if n := len(s.newer) + len(s.before); n > 200 {
			t.Fatalf("%d are held", n)
		}
		for back := range min(i, 99) {
			k := key{byte(i - back), byte((i - back) >> 8)}
			_, newer := s.newer[k]
			if _, before := s.before[k]; !newer && !before {
				t.Fatalf("%d is forgotten at %d", i-back, i)
			}
		}
	}
}

// The short pass keeps the Event's own value of a field whose label may be Other.
func TestStatesKeepValuesBesideTheLabels(t *testing.T) {
	layout := DefaultLayout()
	layout.Labels = map[string]string{"namespace": "namespace", "controller": "component"}
	s, err := NewSelection(Filter{Selector: `{component="scheduler"}`})
	if err != nil {
		t.Fatal(err)
	}
	if got := s.statesLogQL(layout, nil); !strings.HasSuffix(got, "| keep controller, full_component, job") {
		t.Errorf("the query is %s", got)
	}
}
