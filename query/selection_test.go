package query

import (
	"strings"
	"testing"

	"github.com/hindsight-events/hindsight/event/format"
)

func TestLogQL(t *testing.T) {
	other := DefaultLayout()
	other.Job = "events"
	other.Labels = map[string]string{"ns": "namespace", "kind": "kind"}
	other.Fixed = map[string]string{"team": "a"}
	for name, c := range map[string]struct {
		filter Filter
		layout Layout
		want   string
	}{
		"all":             {Filter{}, DefaultLayout(), `{job="hindsight"}`},
		"namespace, type": {Filter{Namespace: "prod", Types: []string{"warning"}}, DefaultLayout(), `{job="hindsight", namespace="prod"} | type="Warning"`},
		"object": {
			Filter{Namespace: "prod", For: "deploy/web"},
			DefaultLayout(),
			`{job="hindsight", namespace="prod"} | kind="Deployment" | name="web"`,
		},
		"object of an unknown kind": {
			Filter{For: "certificates.cert-manager.io/a"},
			DefaultLayout(),
			`{job="hindsight"} | kind=~"(?i:certificates|certificate|certificat)" | name="a"`,
		},
		"object of an unknown kind, with a namespace": {
			Filter{For: "clusterissuer/a", Namespace: "prod"},
			DefaultLayout(),
			`{job="hindsight", namespace=~"prod|default"} | kind=~"(?i:clusterissuer)" | name="a"`,
		},
		"cluster-scoped object": {
			Filter{For: "node/a", Namespace: "prod"},
			DefaultLayout(),
			`{job="hindsight"} | kind="Node" | name="a"`,
		},
		"types": {Filter{Types: []string{"warnings", "Error"}}, DefaultLayout(), `{job="hindsight"} | type=~"(?i:Warning|Error)"`},
		// The label is "other" for a reason that exceeds the limits of labels.
		"reason": {
			Filter{Reasons: []string{"BackOff"}},
			DefaultLayout(),
			`{job="hindsight", reason=~"BackOff|other"} | reason="BackOff" or full_reason="BackOff"`,
		},
		"several reasons": {
			Filter{Reasons: []string{"A", "B.c"}},
			DefaultLayout(),
			"{job=\"hindsight\", reason=~`A|B\\.c|other`} | reason=~`A|B\\.c` or full_reason=~`A|B\\.c`",
		},
		"all but a reason": {
			Filter{Selector: `{reason!="Pulled"}`},
			DefaultLayout(),
			`{job="hindsight", reason!="Pulled"} | full_reason!="Pulled"`,
		},
		// Loki loses an empty alternative of a filter.
		"type or none":          {Filter{Selector: `{type=~"Warning|"}`}, DefaultLayout(), `{job="hindsight"} | type=~"(?:Warning|)?"`},
		"neither type nor none": {Filter{Selector: `{type!~"Warning|", node=~""}`}, DefaultLayout(), `{job="hindsight"} | type!~"(?:Warning|)?" | node=""`},
		"any type":              {Filter{Selector: `{type=~".*"}`}, DefaultLayout(), `{job="hindsight"} | type=~".*"`},
		"cluster and node":      {Filter{Cluster: "eu", Node: "n-1"}, DefaultLayout(), `{job="hindsight", cluster="eu"} | node="n-1"`},
		"other job":             {Filter{Selector: `{job=~".+", team="b"}`}, DefaultLayout(), `{job=~".+"} | team="b"`},
		"attribute": {
			Filter{Selector: `{team="b", workload_name!="a"}`},
			attributes(format.Logfmt),
			`{job="hindsight", squad=~"b|other"} | squad="b" or full_team="b" | workload_name!="a"`,
		},
		"not an attribute that is a label": {Filter{Selector: `{team!="b"}`}, attributes(format.Logfmt), `{job="hindsight", squad!="b"} | full_team!="b"`},
		"attribute, no metadata": {
			Filter{Selector: `{app="b"}`},
			bare(format.JSON),
			`{job="hindsight"} | json attribute_app="app" | attribute_app="b"`,
		},
		"attribute, no metadata, eventrouter": {
			Filter{Selector: `{app="b"}`},
			bare(format.EventRouter),
			`{job="hindsight"} | json attribute_app="attributes.app" | attribute_app="b"`,
		},

		"text": {Filter{Grep: "exceeded quota"}, DefaultLayout(), `{job="hindsight"} |= "exceeded quota"`},
		"text that a line escapes": {
			Filter{Grep: `say "hi"`},
			DefaultLayout(),
			"{job=\"hindsight\"} | logfmt event_message=\"msg\" | event_message=~`(?s:.*)(?:say \"hi\")(?s:.*)`",
		},
		"pattern, last": {
			Filter{Grep: "a|b", Types: []string{"Normal"}},
			DefaultLayout(),
			`{job="hindsight"} | type="Normal" | logfmt event_message="msg" | event_message=~"(?s:.*)(?:a|b)(?s:.*)"`,
		},
		"other labels":                  {Filter{Namespace: "prod", For: "po/x"}, other, `{job="events", team="a", ns="prod", kind=~"Pod|other"} | kind="Pod" or full_kind="Pod" | name="x"`},
		"namespace that is not a label": {Filter{Namespace: "a"}, Layout{Format: format.Logfmt, Metadata: true, Job: "events"}, `{job="events"} | namespace="a"`},
		"reason that is not a label":    {Filter{Reasons: []string{"A"}}, other, `{job="events", team="a"} | logfmt event_reason="reason" | event_reason="A"`},
		"no metadata, json":             {Filter{For: "pod/x"}, bare(format.JSON), `{job="hindsight"} | json event_kind="kind", event_name="name" | event_kind="Pod" | event_name="x"`},
		"no metadata, eventrouter":      {Filter{For: "pod/x"}, bare(format.EventRouter), `{job="hindsight"} | json event_kind="event.involvedObject.kind", event_name="event.involvedObject.name" | event_kind="Pod" | event_name="x"`},
		"no metadata, text":             {Filter{For: "pod/x", Namespace: "a"}, bare(format.Text), `{job="hindsight", namespace="a"}`},
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

// bare is the layout of a sink without structured metadata.
func bare(f format.Format) Layout {
	l := DefaultLayout()
	l.Format, l.Metadata = f, false
	return l
}

// attributes is the layout of a sink with an attribute as a label.
func attributes(f format.Format) Layout {
	return Layout{Format: f, Metadata: true, Job: "hindsight", Labels: map[string]string{"namespace": "namespace", "squad": "team"}}
}

// The name of an object or of its workload is one condition, wherever the workload is stored.
func TestNamesOfWorkloads(t *testing.T) {
	base, err := NewSelection(Filter{Namespace: "prod"})
	if err != nil {
		t.Fatal(err)
	}
	s, err := base.WithNames("web|web-.*", "web")
	if err != nil {
		t.Fatal(err)
	}
	label := DefaultLayout()
	label.Labels = map[string]string{"namespace": "namespace", "by": "workload_name"}
	for want, layout := range map[string]Layout{
		`{job="hindsight", namespace="prod"} | name=~"web|web-.*" or workload_name="web"`:                  DefaultLayout(),
		`{job="hindsight", namespace="prod"} | name=~"web|web-.*" or by="web" or full_workload_name="web"`: label,
		`{job="hindsight", namespace="prod"} | json event_name="name" | event_name=~"web|web-.*"`:          bare(format.JSON),
	} {
		if got := s.LogQL(layout); got != want {
			t.Errorf("\n%s\nwant\n%s", got, want)
		}
	}
}

func TestMatch(t *testing.T) {
	r := record(t, backOff)
	r.Labels = map[string]string{"cluster": "eu"}
	for name, c := range map[string]struct {
		filter Filter
		want   bool
	}{
		"all":                 {Filter{}, true},
		"namespace":           {Filter{Namespace: "prod"}, true},
		"another namespace":   {Filter{Namespace: "dev"}, false},
		"short kind":          {Filter{For: "po/web-0"}, true},
		"plural":              {Filter{For: "pods/web-0"}, true},
		"unknown kind":        {Filter{For: "podlings/web-0"}, false},
		"type":                {Filter{Types: []string{"WARNING"}}, true},
		"types in the plural": {Filter{Types: []string{"warnings"}}, true},
		"custom type":         {Filter{Types: []string{"Error"}}, false},
		"another type":        {Filter{Types: []string{"Normal"}}, false},
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

// TestForKinds checks that --for accepts all names of built-in kinds that kubectl accepts, and the
// kind or plural of custom ones, in any case.
func TestForKinds(t *testing.T) {
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
		// custom
		"certificate": "Certificate", "certificates.cert-manager.io": "Certificate", "certificates.v1.cert-manager.io": "Certificate",
		"kafkatopics": "KafkaTopic", "gateways": "Gateway", "gatewayclasses": "GatewayClass", "clusterpolicies": "ClusterPolicy", "proxies": "Proxy",
		"redis": "Redis", "prometheuses": "Prometheus", "meshes": "Mesh", "services.serving.knative.dev": "Service",
	} {
		s, err := NewSelection(Filter{For: name + "/x"})
		if err != nil {
			t.Fatal(err)
		}
		if r := record(t, "name=x reason=A type=Normal kind="+kind); !s.Match(r) {
			t.Errorf("%s does not match %s", name, kind)
		}
		if r := record(t, "name=x reason=A type=Normal kind="+kind+"X"); s.Match(r) {
			t.Errorf("%s matches %sX", name, kind)
		}
	}
}

// TestForGroupAndNamespace checks that the API group and the namespace of an object are compared as
// far as a record has them.
func TestForGroupAndNamespace(t *testing.T) {
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
		"same group":                   {"services.serving.knative.dev/x", whole("prod", "prod", "serving.knative.dev/v1"), true},
		"another group":                {"services.serving.knative.dev/x", whole("prod", "prod", "v1"), false},
		"unknown group":                {"services.serving.knative.dev/x", whole("prod", "prod", ""), true},
		"another group with this kind": {"networkpolicies.networking.k8s.io/x", policy("crd.projectcalico.org/v1"), false},
		"the built-in group":           {"networkpolicies.networking.k8s.io/x", policy("networking.k8s.io/v1"), true},
		"the former group":             {"networkpolicies.networking.k8s.io/x", policy("extensions/v1beta1"), true},
		"selected by its former group": {"networkpolicies.v1beta1.extensions/x", policy("networking.k8s.io/v1"), true},
		"selected without a group":     {"netpol/x", policy("crd.projectcalico.org/v1"), true},
		"object without a namespace":   {"services.serving.knative.dev/x", whole("default", "", ""), true},
		"object in default":            {"services.serving.knative.dev/x", whole("default", "default", ""), false},
		"logfmt, default":              {"clusterissuer/x", record(t, "namespace=default name=x kind=ClusterIssuer reason=A"), true},
		"logfmt, another namespace":    {"clusterissuer/x", record(t, "namespace=dev name=x kind=ClusterIssuer reason=A"), false},
		"node, any namespace":          {"node/x", record(t, "namespace=kube-system name=x kind=Node reason=A"), true},
		"built-in kind, default":       {"pod/x", record(t, "namespace=default name=x kind=Pod reason=A"), false},
		"persistent volume":            {"persistentvolumes/x", record(t, "namespace=default name=x kind=PersistentVolume reason=A"), true},
		"cluster role":                 {"clusterroles.rbac.authorization.k8s.io/x", record(t, "namespace=default name=x kind=ClusterRole reason=A"), true},
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

func TestInvalidFilters(t *testing.T) {
	for want, f := range map[string]Filter{
		`--for: "web-0" is not an object; an example is pod/web-0`:                          {For: "web-0"},
		`--types: a type is empty; an example is Warning`:                                   {Types: []string{"Warning", ""}},
		"--grep: error parsing regexp: missing closing ): `(`":                              {Grep: "("},
		"-l `Preempted`: braces are missing; an example is {reason=~\"Preempted|Evicted\"}": {Selector: "Preempted"},
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
		t.Errorf("labels are accepted for files: %v", err)
	}
}

// TestStatesQueryKeepsFullValues checks that the short query keeps the value of a field whose label
// may be "other".
func TestStatesQueryKeepsFullValues(t *testing.T) {
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
