//go:build e2e

package outage

import (
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/hindsight-events/hindsight/test/cluster"
)

func TestReenact(t *testing.T) {
	c := cluster.ForTest(t, cluster.Options{})
	if err := Reenact(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	client, err := kubernetes.NewForConfig(c.Config())
	if err != nil {
		t.Fatal(err)
	}
	list, err := client.CoreV1().Events("").List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	s, err := tell(list.Items)
	if err != nil {
		t.Fatal(err)
	}
	s.check(t)
	t.Logf("%+v", s)

	var series, counted bool
	for _, e := range list.Items {
		series = series || e.Series != nil
		counted = counted || e.Count > 1
	}
	if !series || !counted {
		t.Errorf("some Event is a series: %t, some has a count above one: %t; want both", series, counted)
	}
}
