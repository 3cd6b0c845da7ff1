//go:build e2e

package deploy

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/hindsight-events/hindsight/internal/config"
	"github.com/hindsight-events/hindsight/test/wait"
)

// rights compares the rights of the ServiceAccount, except the ones of any other, with the rights
// that the configuration needs.
func (i *installed) rights(t *testing.T) {
	c := i.configuration(t)
	const other = "other"
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: other}}
	if _, err := i.client.CoreV1().ServiceAccounts(i.namespace).Create(t.Context(), account, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	everywhere := map[string]bool{}
	if len(c.Source.Namespaces) == 0 {
		everywhere = set("get events", "list events", "watch events", "get namespaces/kube-system")
	}
	maps.Copy(everywhere, enrichRights(c))
	for _, namespace := range []string{i.namespace, "team-a", "team-b", "team-c", metav1.NamespaceDefault, metav1.NamespaceSystem} {
		want := maps.Clone(everywhere)
		if slices.Contains(c.Source.Namespaces, namespace) {
			maps.Copy(want, set("get events", "list events", "watch events"))
		}
		if namespace == i.namespace && c.LeaderElection.Enabled {
			maps.Copy(want, set("create leases.coordination.k8s.io",
				"get leases.coordination.k8s.io/hindsight", "update leases.coordination.k8s.io/hindsight",
				"patch leases.coordination.k8s.io/hindsight"))
		}
		if namespace == i.namespace && c.Canary.Enabled {
			maps.Copy(want, set("create events", "get events", "patch events"))
		}
		// The API server learns of new rights within moments.
		wait.Success(t, "the API server applies the rules", func() error {
			got, common := i.mayDo(t, serviceAccount, namespace), i.mayDo(t, other, namespace)
			maps.DeleteFunc(got, func(right string, _ bool) bool { return common[right] })
			if !maps.Equal(got, want) {
				return fmt.Errorf("in %s it may do %q, want %q", namespace, sorted(got), sorted(want))
			}
			return nil
		})
	}
}

// enrichRights are the rights that the key enrich needs in all namespaces.
func enrichRights(c *config.Config) map[string]bool {
	rights := map[string]bool{}
	if c.Enrich.Workload {
		maps.Copy(rights, set("list pods", "watch pods", "list replicasets.apps", "watch replicasets.apps", "list jobs.batch", "watch jobs.batch"))
	}
	if len(c.Enrich.Labels) > 0 {
		maps.Copy(rights, set("list nodes", "watch nodes", "get persistentvolumeclaims", "get services", "get daemonsets.apps", "get deployments.apps",
			"get statefulsets.apps", "get horizontalpodautoscalers.autoscaling", "get cronjobs.batch", "get ingresses.networking.k8s.io", "get poddisruptionbudgets.policy"))
	}
	if len(c.Enrich.NamespaceLabels) > 0 {
		maps.Copy(rights, set("list namespaces", "watch namespaces"))
	}
	return rights
}

// mayDo returns the rights of a ServiceAccount in a namespace, as kubectl auth
// can-i --list shows them.
func (i *installed) mayDo(t *testing.T, account, namespace string) map[string]bool {
	t.Helper()
	client, err := kubernetes.NewForConfig(i.cluster.ConfigFor(i.token(t, account)))
	if err != nil {
		t.Fatal(err)
	}
	review, err := client.AuthorizationV1().SelfSubjectRulesReviews().Create(t.Context(), &authorizationv1.SelfSubjectRulesReview{
		Spec: authorizationv1.SelfSubjectRulesReviewSpec{Namespace: namespace},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if review.Status.Incomplete {
		t.Errorf("the API server does not know all rights: %s", review.Status.EvaluationError)
	}
	rights := map[string]bool{}
	for _, rule := range review.Status.ResourceRules {
		for _, verb := range rule.Verbs {
			for _, group := range rule.APIGroups {
				for _, resource := range rule.Resources {
					right := strings.TrimSuffix(verb+" "+resource+"."+group, ".")
					for _, name := range rule.ResourceNames {
						rights[right+"/"+name] = true
					}
					if len(rule.ResourceNames) == 0 {
						rights[right] = true
					}
				}
			}
		}
	}
	for _, rule := range review.Status.NonResourceRules {
		for _, verb := range rule.Verbs {
			for _, url := range rule.NonResourceURLs {
				rights[verb+" "+url] = true
			}
		}
	}
	return rights
}

func set(elements ...string) map[string]bool {
	all := map[string]bool{}
	for _, e := range elements {
		all[e] = true
	}
	return all
}

func sorted(set map[string]bool) []string { return slices.Sorted(maps.Keys(set)) }
