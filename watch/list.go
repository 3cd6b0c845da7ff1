package watch

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
)

// pageInfo is what is known of a page of a list once it was read.
type pageInfo struct {
	version       uint64 // of the list
	continueToken string // for the next page; empty after the last
}

// readPage reads one page of a list. An error of visit is returned as it is.
func (w *Watcher) readPage(ctx context.Context, req *rest.Request, visit func(item []byte, err error) error) (pageInfo, error) {
	in, err := open(ctx, req, listHeaderTimeout, bodyReadTimeout)
	if err != nil {
		return pageInfo{}, err
	}
	defer in.Close()
	m, err := readList(in, visit)
	if err != nil {
		return pageInfo{}, err
	}
	version, err := strconv.ParseUint(m.ResourceVersion, 10, 64)
	if err != nil || version == 0 {
		return pageInfo{}, fmt.Errorf("read event list: resourceVersion %q is not a version", m.ResourceVersion)
	}
	return pageInfo{version: version, continueToken: m.Continue}, nil
}

// events is a request for the Events of the source.
func (w *Watcher) events() *rest.Request {
	return w.client.Get().NamespaceIfScoped(w.namespace, w.namespace != "").Resource("events")
}

// listPage is a request for a page of a list. Without a resourceVersion the API
// server reads from etcd what is newest at that moment. (With "0" it may answer
// from a cache and ignore the limit.)
func (w *Watcher) listPage(token string, limit int) *rest.Request {
	req := w.events().Param("limit", strconv.Itoa(limit))
	if token != "" {
		req.Param("continue", token)
	}
	return req
}

// listAsOf makes a list one of the Events as they were at a version.
func listAsOf(req *rest.Request, version uint64) *rest.Request {
	return req.Param("resourceVersion", strconv.FormatUint(version, 10)).
		Param("resourceVersionMatch", string(metav1.ResourceVersionMatchExact))
}

// continueToken returns the token with which an expired list can be continued.
func continueToken(err error) string {
	var s apierrors.APIStatus
	if !errors.As(err, &s) {
		return ""
	}
	return s.Status().Continue
}
