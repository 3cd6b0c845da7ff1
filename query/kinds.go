package query

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/prometheus/prometheus/model/labels"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/hindsight-events/hindsight/event"
	"github.com/hindsight-events/hindsight/internal/lazyregexp"
)

// kind is a built-in kind of Kubernetes.
type kind struct {
	name    string
	group   string
	cluster bool // cluster-scoped
}

// builtin are the built-in kinds by API group, with their short names, as kubectl api-resources
// lists them. Those after "cluster" are cluster-scoped.
var builtin = map[string]string{
	"": `Pod,po ConfigMap,cm Endpoints,ep Event,ev LimitRange,limits PersistentVolumeClaim,pvc PodTemplate
		ReplicationController,rc ResourceQuota,quota Secret Service,svc ServiceAccount,sa
		cluster ComponentStatus,cs Namespace,ns Node,no PersistentVolume,pv`,
	"apps":        "ControllerRevision DaemonSet,ds Deployment,deploy ReplicaSet,rs StatefulSet,sts",
	"autoscaling": "HorizontalPodAutoscaler,hpa",
	"batch":       "CronJob,cj Job",
	"policy":      "PodDisruptionBudget,pdb cluster PodSecurityPolicy,psp",
	"networking.k8s.io": `Ingress,ing NetworkPolicy,netpol
		cluster IngressClass IPAddress,ip ServiceCIDR`,
	"rbac.authorization.k8s.io":    "Role RoleBinding cluster ClusterRole ClusterRoleBinding",
	"storage.k8s.io":               "CSIStorageCapacity cluster CSIDriver CSINode StorageClass,sc VolumeAttachment VolumeAttributesClass,vac",
	"coordination.k8s.io":          "Lease LeaseCandidate",
	"discovery.k8s.io":             "EndpointSlice",
	"resource.k8s.io":              "ResourceClaim ResourceClaimTemplate cluster DeviceClass DeviceTaintRule ResourceSlice",
	"scheduling.k8s.io":            "Workload cluster PriorityClass,pc",
	"node.k8s.io":                  "cluster RuntimeClass",
	"certificates.k8s.io":          "PodCertificateRequest cluster CertificateSigningRequest,csr ClusterTrustBundle",
	"admissionregistration.k8s.io": "cluster MutatingAdmissionPolicy MutatingAdmissionPolicyBinding MutatingWebhookConfiguration ValidatingAdmissionPolicy ValidatingAdmissionPolicyBinding ValidatingWebhookConfiguration",
	"apiextensions.k8s.io":         "cluster CustomResourceDefinition,crd,crds",
	"apiregistration.k8s.io":       "cluster APIService",
	"flowcontrol.apiserver.k8s.io": "cluster FlowSchema PriorityLevelConfiguration",
	"storagemigration.k8s.io":      "cluster StorageVersionMigration",
	"internal.apiserver.k8s.io":    "cluster StorageVersion",
}

// kinds are the built-in kinds by each of their names in lower case: singular, plural and short.
var kinds = func() map[string]kind {
	all := map[string]kind{}
	for group, list := range builtin {
		cluster := false
		for _, word := range strings.Fields(list) {
			if word == "cluster" {
				cluster = true
				continue
			}
			names := strings.Split(word, ",")
			k := kind{name: names[0], group: group, cluster: cluster}
			plural, singular := meta.UnsafeGuessKindToResource(schema.GroupVersionKind{Kind: k.name})
			for _, name := range append(names[1:], plural.Resource, singular.Resource) {
				all[name] = k
			}
		}
	}
	return all
}()

// Kinds returns the names of the built-in kinds, singular and in lower case.
func Kinds() []string {
	names := map[string]bool{}
	for _, k := range kinds {
		names[strings.ToLower(k.name)] = true
	}
	return slices.Sorted(maps.Keys(names))
}

// object is the value of --for.
type object struct {
	kind  *labels.Matcher
	name  string
	known bool // a built-in kind
	// groups of its kind in the API; empty: any.
	groups []string
	// cluster is set for a built-in kind that is cluster-scoped.
	cluster bool
}

// formerGroup is the earlier API group of several kinds.
const formerGroup = "extensions"

var version = lazyregexp.New(`^v\d+((alpha|beta)\d+)?$`)

// parseObject parses KIND/NAME. KIND is the kind, plural or short name of a built-in kind, or the
// kind or plural of any other, in any case, optionally followed by .GROUP or .VERSION.GROUP.
func parseObject(s string) (o object, err error) {
	kindName, name, ok := strings.Cut(s, "/")
	if !ok || kindName == "" || name == "" || strings.Contains(name, "/") {
		return o, fmt.Errorf("%q is not an object; an example is pod/web-0", s)
	}
	resource, group, _ := strings.Cut(strings.ToLower(kindName), ".")
	if v, rest, _ := strings.Cut(group, "."); version().MatchString(v) {
		group = rest
	}
	o = object{name: name}
	if group != "" {
		o.groups = []string{group}
	}
	field := event.FieldKind.String()
	if k, ok := kinds[resource]; ok && (group == "" || group == k.group || group == formerGroup || k.name == "Event") {
		o.kind, o.known, o.cluster = labels.MustNewMatcher(labels.MatchEqual, field, k.name), true, k.cluster
		if group != "" {
			o.groups = append(o.groups, k.group, formerGroup)
		}
		return o, nil
	}
	candidates := singulars(resource)
	for i := range candidates {
		candidates[i] = regexp.QuoteMeta(candidates[i])
	}
	if o.kind, err = labels.NewMatcher(labels.MatchRegexp, field, "(?i:"+strings.Join(candidates, "|")+")"); err != nil {
		return o, fmt.Errorf("%q is not a valid kind", kindName)
	}
	return o, nil
}

// singulars returns the word and its possible singulars.
func singulars(word string) []string {
	all := []string{word}
	for _, suffix := range [][2]string{{"s", ""}, {"es", ""}, {"ies", "y"}} {
		if stem, ok := strings.CutSuffix(word, suffix[0]); ok && stem != "" {
			all = append(all, stem+suffix[1])
		}
	}
	return all
}

// BuiltIn returns the kind and the name of an object, as in deploy/web, of a built-in kind.
func BuiltIn(object string) (kind, name string, ok bool) {
	o, err := parseObject(object)
	if err != nil || !o.known {
		return "", "", false
	}
	return o.kind.Value, o.name, true
}

// ClusterScoped reports whether an object, as in node/a, is of a built-in kind that is
// cluster-scoped. Events about such objects can be in any namespace.
func ClusterScoped(name string) bool {
	o, err := parseObject(name)
	return err == nil && o.cluster
}
