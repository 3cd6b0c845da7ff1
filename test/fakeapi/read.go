package fakeapi

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
)

// list returns a page of Events in the order of their keys. A continue token is the version of the
// list and the last key before; the version "-" stands for the present one, as in the token that a
// client gets with the answer 410. s.mu is held.
func (s *Server) list(r *http.Request) (code int, answer Object) {
	q := r.URL.Query()
	version, after := cmp.Or(parseNumber(q.Get("resourceVersion")), s.version), ""
	if token := q.Get("continue"); token != "" {
		var of string
		of, after, _ = strings.Cut(token, ":")
		version = cmp.Or(parseNumber(of), s.version)
	}
	switch {
	case version > s.version:
		status := Status(http.StatusGatewayTimeout, "Too large resource version")
		status.Details = &metav1.StatusDetails{RetryAfterSeconds: 1, Causes: []metav1.StatusCause{{Type: metav1.CauseTypeResourceVersionTooLarge}}}
		return http.StatusGatewayTimeout, status
	case version < s.compacted:
		status := Status(http.StatusGone, "the version is too old")
		if after != "" {
			status.Continue = "-:" + after
		}
		return http.StatusGone, status
	}
	namespace := r.PathValue("namespace")
	var found []*corev1.Event
	for k, e := range s.eventsAt(version) {
		if (namespace == "" || namespace == k.namespace) && k.String() > after {
			found = append(found, e)
		}
	}
	slices.SortFunc(found, func(a, b *corev1.Event) int { return cmp.Compare(keyOf(a).String(), keyOf(b).String()) })
	list := &corev1.EventList{ListMeta: metav1.ListMeta{ResourceVersion: strconv.FormatUint(version, 10)}}
	if limit := int(parseNumber(q.Get("limit"))); limit > 0 && len(found) > limit {
		left := int64(len(found) - limit)
		found = found[:limit]
		list.Continue, list.RemainingItemCount = fmt.Sprintf("%d:%s", version, keyOf(found[limit-1])), &left
	}
	for _, e := range found {
		list.Items = append(list.Items, *e)
	}
	return http.StatusOK, list
}

// serveWatch sends the changes after the requested version, until the requested timeout.
func (s *Server) serveWatch(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	from := parseNumber(q.Get("resourceVersion"))
	ctx := r.Context()
	if seconds := parseNumber(q.Get("timeoutSeconds")); seconds > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Duration(seconds)*time.Second)
		defer cancel()
	}
	w.Header().Set("Content-Type", contentType(r))
	_ = http.NewResponseController(w).Flush()
	if from < s.Compacted() {
		SendFrame(w, r, watch.Error, Status(http.StatusGone, "too old resource version"))
		return
	}
	namespace := r.PathValue("namespace")
	for {
		s.mu.Lock()
		changed := s.changed
		var changes []Change
		for _, c := range s.history {
			if c.Version > from {
				from = c.Version
				if namespace == "" || namespace == c.Event.Namespace {
					changes = append(changes, c)
				}
			}
		}
		s.mu.Unlock()
		for _, c := range changes {
			e := c.Event.DeepCopy()
			e.ResourceVersion = strconv.FormatUint(c.Version, 10)
			SendFrame(w, r, c.Type, e)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return
		case <-s.closed:
			return
		}
	}
}

// parseNumber returns a number of a query, 0 if there is none.
func parseNumber(text string) uint64 {
	n, _ := strconv.ParseUint(text, 10, 64)
	return n
}
