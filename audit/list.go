package audit

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/rest"

	"github.com/hindsight-events/hindsight/internal/kube"
)

const (
	pageSize       = 1000
	requestTimeout = 75 * time.Second // the API server's is 60 s
)

// NewClient returns a client that lists Events, in protobuf if the server supports it, otherwise in
// JSON.
func NewClient(cfg *rest.Config) (*rest.RESTClient, error) {
	return kube.NewClient(cfg, corev1.SchemeGroupVersion, runtime.ContentTypeProtobuf, &corev1.Event{}, &corev1.EventList{})
}

// list reads all Events of one resourceVersion, page by page. If the API server expires that
// version before the last page, the list continues with a later one.
func list(ctx context.Context, client rest.Interface, namespace string, rules Rules) ([]state, error) {
	interned := map[string]string{}
	intern := func(s string) string {
		if have, ok := interned[s]; ok {
			return have
		}
		interned[s] = s
		return s
	}
	var states []state
	next := "" // continue token
	for {
		var page corev1.EventList
		req := client.Get().NamespaceIfScoped(namespace, namespace != "").Resource("events").Param("limit", strconv.Itoa(pageSize))
		if next != "" {
			req.Param("continue", next)
		}
		err := get(ctx, req, &page)
		var status apierrors.APIStatus
		if apierrors.IsResourceExpired(err) && errors.As(err, &status) && status.Status().Continue != "" && status.Status().Continue != next {
			next = status.Status().Continue
			continue
		}
		if err != nil {
			return nil, listError(err, namespace)
		}
		listed := time.Now()
		for i := range page.Items {
			e := &page.Items[i]
			s := newState(e, listed, intern)
			rules.apply(e, &s)
			states = append(states, s)
		}
		if next = page.Continue; next == "" {
			return states, nil
		}
	}
}

func get(ctx context.Context, req *rest.Request, into runtime.Object) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	return req.Do(ctx).Into(into)
}

func listError(err error, namespace string) error {
	where := "of all namespaces"
	if namespace != "" {
		where = "of namespace " + namespace
	}
	if apierrors.IsForbidden(err) {
		return fmt.Errorf("list Events %s: %w; an audit needs the verb list on events there", where, err)
	}
	return fmt.Errorf("list Events %s: %w", where, err)
}
