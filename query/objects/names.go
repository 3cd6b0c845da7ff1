package objects

import (
	"strconv"
	"strings"
)

// Alphabets of generated parts of names:
// https://github.com/kubernetes/apimachinery/blob/v0.36.3/pkg/util/rand/rand.go
const (
	randomAlphabet = "bcdfghjklmnpqrstvwxz2456789"

	// hashAlphabet is the image of the ten digits: a pod-template-hash is a decimal number of 32 bits
	// with each digit replaced (SafeEncodeString).
	hashAlphabet = "456789bcdf"

	randomLength = 5
	maxHash      = 10 // digits of 4294967295
	minHash      = 6  // shorter ones have a probability of 1 in 40,000
	minOtherHash = 8  // in randomAlphabet

	// longName is the length at which names are cut:
	// https://github.com/kubernetes/apiserver/blob/v0.36.3/pkg/storage/names/generate.go
	longName = 63
	maxLong  = 1 << 10 // owners of pods whose names are cut
)

// inferOwner returns the owner of an object by the naming rules of Kubernetes' own controllers.
func (g *Graph) inferOwner(o Object) (Object, bool) {
	switch o.Kind {
	case "Pod":
		return g.inferPodOwner(o)
	case "ReplicaSet":
		if name, ok := cutHash(o.Name); ok {
			return g.likeliest(o.Namespace, name, "Deployment", "Rollout", "Deployment"), true
		}
	case "Job":
		if name, ok := cutMinutes(o.Name); ok {
			return Object{Kind: "CronJob", Namespace: o.Namespace, Name: name}, true
		}
	case "PersistentVolumeClaim":
		return g.inferClaimOwner(o)
	case "HorizontalPodAutoscaler", "VerticalPodAutoscaler", "PodDisruptionBudget", "ScaledObject", "Service", "Endpoints":
		// They have the name of what they belong to by convention, so it must be known.
		name := o.Name
		if o.Kind == "HorizontalPodAutoscaler" {
			name = strings.TrimPrefix(name, "keda-hpa-")
		}
		owner := g.likeliest(o.Namespace, name, "Deployment", "StatefulSet", "DaemonSet", "Rollout", "")
		return owner, owner.Kind != ""
	}
	return Object{}, false
}

// inferPodOwner returns the owner of a pod, of kind Unknown if only its name follows.
func (g *Graph) inferPodOwner(o Object) (Object, bool) {
	for _, s := range g.staysOf(o) {
		if strings.HasSuffix(o.Name, "-"+s.Node) { // a static pod
			return Object{Kind: "Node", Name: s.Node}, true
		}
	}
	if len(o.Name) == longName {
		if owner, ok := g.longOwner(o); ok {
			return owner, true
		}
	}
	prefix, suffix, ok := cutLast(o.Name)
	if !ok {
		return Object{}, false
	}
	if ordinal(suffix) {
		return g.likeliest(o.Namespace, prefix, "StatefulSet", Unknown), true
	}
	if len(suffix) != randomLength || !consistsOf(suffix, randomAlphabet) {
		return o, false
	}
	owner := g.likeliest(o.Namespace, prefix, "ReplicaSet", "Job", "DaemonSet", "ReplicationController", "")
	if owner.Kind != "" {
		return owner, true
	}
	if job, index, ok := cutLast(prefix); ok && ordinal(index) { // of an indexed Job
		if owner := g.likeliest(o.Namespace, job, "Job", ""); owner.Kind != "" {
			return owner, true
		}
	}
	owner.Kind = Unknown
	if _, ok := cutHash(prefix); ok {
		owner.Kind = "ReplicaSet"
	} else if _, ok := cutMinutes(prefix); ok {
		owner.Kind = "Job"
	}
	return owner, true
}

// longOwner returns the known owner of a pod whose name is as long as a name may be: its owner's was cut
// before the random letters.
func (g *Graph) longOwner(o Object) (Object, bool) {
	begin, random := o.Name[:longName-randomLength], o.Name[longName-randomLength:]
	if !consistsOf(random, randomAlphabet) {
		return Object{}, false
	}
	for _, id := range g.long {
		owner := g.object(id)
		if owner.Namespace == o.Namespace && strings.HasPrefix(owner.Name+"-", begin) {
			return owner, true
		}
	}
	return Object{}, false
}

func (g *Graph) staysOf(o Object) []Stay {
	if n := g.find(o); n != nil && n.stays != nil {
		return *n.stays
	}
	return nil
}

// inferClaimOwner returns the StatefulSet of a claim <template>-<set>-<ordinal>, if it is known.
func (g *Graph) inferClaimOwner(o Object) (Object, bool) {
	name, suffix, ok := cutLast(o.Name)
	if !ok || !ordinal(suffix) {
		return Object{}, false
	}
	for i := range len(name) {
		if name[i] != '-' {
			continue
		}
		if owner := g.likeliest(o.Namespace, name[i+1:], "StatefulSet", ""); owner.Kind != "" {
			return owner, true
		}
	}
	return Object{}, false
}

// likeliest returns the object of that name of the first kind of which it is known, and of the last
// kind if it is known of none.
func (g *Graph) likeliest(namespace, name string, kinds ...string) Object {
	o := Object{Namespace: namespace, Name: name}
	for _, o.Kind = range kinds {
		if g.Known(o) {
			break
		}
	}
	return o
}

// cutLast cuts a name at its last hyphen.
func cutLast(name string) (prefix, suffix string, ok bool) {
	i := strings.LastIndexByte(name, '-')
	if i <= 0 || i == len(name)-1 {
		return "", "", false
	}
	return name[:i], name[i+1:], true
}

// cutHash returns the name of the Deployment of a ReplicaSet <deployment>-<pod-template-hash>. Other
// controllers may hash in the whole alphabet: no word has eight such letters and digits.
func cutHash(name string) (string, bool) {
	prefix, hash, ok := cutLast(name)
	if !ok || len(hash) < minHash || len(hash) > maxHash {
		return "", false
	}
	return prefix, consistsOf(hash, hashAlphabet) ||
		len(hash) >= minOtherHash && consistsOf(hash, randomAlphabet) && strings.ContainsAny(hash, "2456789")
}

// cutMinutes returns the name of the CronJob of a Job <cronjob>-<time>: in minutes since 1970, in
// seconds before 1.21.
func cutMinutes(name string) (string, bool) {
	prefix, text, ok := cutLast(name)
	if !ok || len(text) != 8 && len(text) != 10 || !ordinal(text) {
		return "", false
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if len(text) == 8 {
		n *= 60
	}
	const from, to = 1_400_000_000, 2_400_000_000 // 2014 to 2046
	return prefix, err == nil && n >= from && n < to
}

// ordinal reports whether a text is a decimal number without leading zeros.
func ordinal(s string) bool {
	return s != "" && len(s) <= 10 && consistsOf(s, "0123456789") && (s == "0" || s[0] != '0')
}

func consistsOf(s, alphabet string) bool { return strings.Trim(s, alphabet) == "" }
