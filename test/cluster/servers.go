package cluster

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
)

// serverComponents are the controllers inside kube-apiserver that write Events,
// for example ClusterIPNotAllocated in some of its starts:
// https://github.com/kubernetes/kubernetes/tree/v1.36.3/pkg/registry/core/service
// (ipallocator/controller, portallocator/controller) and
// pkg/controlplane/controller/defaultservicecidr.
var serverComponents = []string{
	"ipallocator-repair-controller", "portallocator-repair-controller", "kubernetes-service-cidr-controller",
}

// ByAPIServer reports whether an Event of a component, its reportingComponent or
// source.component, is one that the API server writes by itself. A test that
// compares Events with those that it has written leaves these out.
func ByAPIServer(component string) bool { return slices.Contains(serverComponents, component) }

// EventByAPIServer is ByAPIServer for an Event.
func EventByAPIServer(e *corev1.Event) bool {
	return ByAPIServer(e.ReportingController) || ByAPIServer(e.Source.Component)
}

// WithoutAPIServer removes the entries of Events that the API server writes by itself.
func WithoutAPIServer(entries []LokiEntry) []LokiEntry {
	return slices.DeleteFunc(entries, func(e LokiEntry) bool { return ByAPIServer(e.Metadata["component"]) })
}
