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
)

// kind is one of Kubernetes' own kinds.
type kind struct {
	name    string
	group   string
	cluster bool // its objects have no namespace
}

// builtin are Kubernetes' own kinds by group, with their short names, as kubectl
// api-resources lists them. Those behind "cluster" have no namespace.
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

// kinds are the builtin ones by all their names in lower case: singular, plural
// and short.
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

// Kinds returns the names of Kubernetes' own kinds in the singular, in lower case.
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
	known bool // a kind of Kubernetes
	// groups are those that its kind has in the API; empty: any.
	groups []string
	// cluster is set if the object certainly has no namespace.
	cluster bool
}

// formerGroup is where several kinds were before they had the group of today.
const formerGroup = "extensions"

var version = regexp.MustCompile(`^v\d+((alpha|beta)\d+)?$`)

// parseObject reads KIND/NAME. KIND is the kind, plural or short name of one of
// Kubernetes' own kinds, or the kind or plural of any other, in any case and with or
// without .GROUP or .VERSION.GROUP.
func parseObject(s string) (o object, err error) {
	of, name, ok := strings.Cut(s, "/")
	if !ok || of == "" || name == "" || strings.Contains(name, "/") {
		return o, fmt.Errorf("%q is not an object; write it as in pod/web-0", s)
	}
	resource, group, _ := strings.Cut(strings.ToLower(of), ".")
	if v, rest, _ := strings.Cut(group, "."); version.MatchString(v) {
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
		return o, fmt.Errorf("%q cannot be the name of a kind", of)
	}
	return o, nil
}

// singulars returns the word itself and its possible singulars.
func singulars(word string) []string {
	all := []string{word}
	for _, suffix := range [][2]string{{"s", ""}, {"es", ""}, {"ies", "y"}} {
		if stem, ok := strings.CutSuffix(word, suffix[0]); ok && stem != "" {
			all = append(all, stem+suffix[1])
		}
	}
	return all
}

// ClusterScoped reports whether an object, as in node/a, is of one of Kubernetes' own
// kinds without namespaces. Events about such objects can be in any namespace.
func ClusterScoped(of string) bool {
	o, err := parseObject(of)
	return err == nil && o.cluster
}
