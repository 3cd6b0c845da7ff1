package audit

import (
	"context"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/client-go/rest"
)

const (
	pageSize     = 1000
	answerWithin = 75 * time.Second // the API server gives up after 60
)

// scheme knows Events and nothing else of the API.
func scheme() *runtime.Scheme {
	s := runtime.NewScheme()
	s.AddKnownTypes(corev1.SchemeGroupVersion, &corev1.Event{}, &corev1.EventList{})
	metav1.AddToGroupVersion(s, corev1.SchemeGroupVersion)
	return s
}

// NewClient returns a client that lists Events, in protobuf where the server
// has it, else in JSON.
func NewClient(cfg *rest.Config) (*rest.RESTClient, error) {
	cfg = rest.CopyConfig(cfg)
	cfg.APIPath = "/api"
	cfg.GroupVersion = &corev1.SchemeGroupVersion
	cfg.NegotiatedSerializer = serializer.NewCodecFactory(scheme()).WithoutConversion()
	cfg.ContentType = runtime.ContentTypeProtobuf
	cfg.AcceptContentTypes = runtime.ContentTypeProtobuf + "," + runtime.ContentTypeJSON
	cfg.QPS = -1 // one request after the other; the server says if that is too fast
	if cfg.UserAgent == "" {
		cfg.UserAgent = rest.DefaultKubernetesUserAgent()
	}
	client, err := rest.RESTClientFor(cfg)
	if err != nil {
		return nil, fmt.Errorf("create client for %s: %w", cfg.Host, err)
	}
	return client, nil
}

// list reads all Events, as they are at one moment, page by page. A list that
// takes longer than the API server remembers that moment goes on with later ones.
func list(ctx context.Context, client rest.Interface, namespace string, rules Rules) ([]state, error) {
	parameters := runtime.NewParameterCodec(scheme())
	known := map[string]string{}
	intern := func(s string) string {
		if have, ok := known[s]; ok {
			return have
		}
		known[s] = s
		return s
	}
	var states []state
	options := metav1.ListOptions{Limit: pageSize}
	for {
		var page corev1.EventList
		err := get(ctx, client.Get().NamespaceIfScoped(namespace, namespace != "").Resource("events").
			VersionedParams(&options, parameters), &page)
		var answer apierrors.APIStatus
		if apierrors.IsResourceExpired(err) && errors.As(err, &answer) && answer.Status().Continue != "" && answer.Status().Continue != options.Continue {
			options.Continue = answer.Status().Continue
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
		if options.Continue = page.Continue; options.Continue == "" {
			return states, nil
		}
	}
}

func get(ctx context.Context, req *rest.Request, into runtime.Object) error {
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	return req.Do(ctx).Into(into)
}

func listError(err error, namespace string) error {
	where := "of all namespaces"
	if namespace != "" {
		where = "of namespace " + namespace
	}
	if apierrors.IsForbidden(err) {
		return fmt.Errorf("list the Events %s: %w; an audit needs the verb list on events there", where, err)
	}
	return fmt.Errorf("list the Events %s: %w", where, err)
}
