package kube

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/rest"
)

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func TestRequests(t *testing.T) {
	for name, test := range map[string]struct {
		version      schema.GroupVersion
		contentType  string
		path, accept string
	}{
		"the core group": {corev1.SchemeGroupVersion, runtime.ContentTypeProtobuf, "/api/v1/pods/a", "application/vnd.kubernetes.protobuf"},
		"a named group":  {coordinationv1.SchemeGroupVersion, runtime.ContentTypeJSON, "/apis/coordination.k8s.io/v1/pods/a", "application/json"},
	} {
		t.Run(name, func(t *testing.T) {
			var request *http.Request
			cfg := &rest.Config{
				Host: "http://api", QPS: 1, Burst: 1, Timeout: time.Nanosecond,
				Transport: roundTripper(func(r *http.Request) (*http.Response, error) {
					request = r
					body, err := json.Marshal(&metav1.Status{
						TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"},
						Status:   metav1.StatusFailure, Reason: metav1.StatusReasonGone, Code: http.StatusGone,
					})
					return &http.Response{
						StatusCode: http.StatusGone, Header: http.Header{"Content-Type": {"application/json"}},
						Body: io.NopCloser(bytes.NewReader(body)), Request: r,
					}, err
				}),
			}
			client, err := NewClient(cfg, test.version, test.contentType)
			if err != nil {
				t.Fatal(err)
			}
			begin := time.Now()
			for range 3 {
				if err := client.Get().Resource("pods").Name("a").Do(t.Context()).Error(); !apierrors.IsGone(err) {
					t.Errorf("a Status in an answer is not decoded: %v", err)
				}
			}
			if time.Since(begin) > time.Second {
				t.Errorf("three requests took %v: the rate is limited", time.Since(begin))
			}
			if request.URL.Path != test.path {
				t.Errorf("requested %s, want %s", request.URL.Path, test.path)
			}
			if got := request.Header.Get("Accept"); got != test.accept {
				t.Errorf("accepts %s, want %s", got, test.accept)
			}
			if request.UserAgent() == "" {
				t.Error("sends no User-Agent")
			}
			if cfg.APIPath != "" || cfg.GroupVersion != nil || cfg.QPS != 1 || cfg.Timeout != time.Nanosecond {
				t.Errorf("changed the configuration that it was given: %+v", cfg)
			}
		})
	}
}

func TestTypesAreDecoded(t *testing.T) {
	cfg := &rest.Config{Host: "http://api", Transport: roundTripper(func(r *http.Request) (*http.Response, error) {
		body, err := json.Marshal(&coordinationv1.Lease{
			TypeMeta:   metav1.TypeMeta{Kind: "Lease", APIVersion: coordinationv1.SchemeGroupVersion.String()},
			ObjectMeta: metav1.ObjectMeta{Name: "a"},
		})
		return &http.Response{
			StatusCode: http.StatusOK, Header: http.Header{"Content-Type": {"application/json"}},
			Body: io.NopCloser(bytes.NewReader(body)), Request: r,
		}, err
	})}
	client, err := NewClient(cfg, coordinationv1.SchemeGroupVersion, runtime.ContentTypeJSON, &coordinationv1.Lease{})
	if err != nil {
		t.Fatal(err)
	}
	var lease coordinationv1.Lease
	if err := client.Get().Resource("leases").Name("a").Do(t.Context()).Into(&lease); err != nil || lease.Name != "a" {
		t.Errorf("got %v, %v", lease.Name, err)
	}
}

func TestAnImpossibleConfiguration(t *testing.T) {
	_, err := NewClient(&rest.Config{Host: "http://a b"}, corev1.SchemeGroupVersion, runtime.ContentTypeJSON)
	if err == nil || !strings.HasPrefix(err.Error(), "create client for http://a b: ") {
		t.Errorf("got %v", err)
	}
}
