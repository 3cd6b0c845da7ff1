// Package kube makes REST clients for single Kubernetes resources. client-go's typed clients
// register every API group and cost several MB.
package kube

import (
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/client-go/rest"
)

// NewClient returns a client for one version of an API group. It encodes and decodes types, and
// the API's own kinds such as Status and ListOptions. contentType is the encoding of bodies in
// both directions (runtime.ContentTypeProtobuf or runtime.ContentTypeJSON).
//
// The client neither limits the rate of requests nor their duration: callers pace themselves and
// give each request a deadline. cfg has the server, the credentials and the transport; it is not
// changed.
func NewClient(cfg *rest.Config, version schema.GroupVersion, contentType string, types ...runtime.Object) (*rest.RESTClient, error) {
	scheme := runtime.NewScheme()
	metav1.AddToGroupVersion(scheme, version)
	scheme.AddKnownTypes(version, types...)

	cfg = rest.CopyConfig(cfg)
	cfg.APIPath = "/apis"
	if version.Group == "" {
		cfg.APIPath = "/api"
	}
	cfg.GroupVersion = &version
	cfg.NegotiatedSerializer = serializer.NewCodecFactory(scheme).WithoutConversion()
	cfg.ContentType = contentType
	cfg.AcceptContentTypes = contentType
	cfg.WarningHandler = rest.NoWarnings{}
	cfg.WarningHandlerWithContext = nil
	if cfg.UserAgent == "" {
		cfg.UserAgent = rest.DefaultKubernetesUserAgent()
	}
	cfg.QPS = -1
	cfg.RateLimiter = nil
	cfg.Timeout = 0

	client, err := rest.RESTClientFor(cfg)
	if err != nil {
		return nil, fmt.Errorf("create client for %s: %w", cfg.Host, err)
	}
	return client, nil
}
