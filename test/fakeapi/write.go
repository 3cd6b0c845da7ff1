package fakeapi

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// createEvent creates an Event. s.mu is held.
func (s *Server) createEvent(r *http.Request, body []byte) (code int, answer Object) {
	e := &corev1.Event{}
	if err := json.Unmarshal(body, e); err != nil {
		return failure(http.StatusBadRequest, err.Error())
	}
	e.Namespace = r.PathValue("namespace")
	if s.events[keyOf(e)] != nil {
		return alreadyExists("events", e.Name)
	}
	return http.StatusCreated, s.put(e)
}

// event gets, updates or patches one Event. s.mu is held.
func (s *Server) event(r *http.Request, body []byte) (code int, answer Object) {
	last := s.events[key{r.PathValue("namespace"), r.PathValue("name")}]
	if last == nil {
		return failure(http.StatusNotFound, fmt.Sprintf("events %q not found", r.PathValue("name")))
	}
	next := &corev1.Event{}
	switch r.Method {
	case http.MethodGet:
		return http.StatusOK, last
	case http.MethodPatch: // decoding into the present state is a JSON merge patch, nulls excepted
		next = last.DeepCopy()
	case http.MethodPut:
	default:
		return failure(http.StatusMethodNotAllowed, "no such verb")
	}
	if err := json.Unmarshal(body, next); err != nil {
		return failure(http.StatusBadRequest, err.Error())
	}
	if next.ResourceVersion != "" && next.ResourceVersion != last.ResourceVersion {
		return failure(http.StatusConflict, "the object has been modified")
	}
	return http.StatusOK, s.put(next)
}

// createLease creates a Lease. s.mu is held.
func (s *Server) createLease(r *http.Request, body []byte) (code int, answer Object) {
	l := &coordinationv1.Lease{}
	if err := json.Unmarshal(body, l); err != nil {
		return failure(http.StatusBadRequest, err.Error())
	}
	l.Namespace = r.PathValue("namespace")
	switch {
	case s.leases[key{l.Namespace, l.Name}] != nil:
		return alreadyExists("leases", l.Name)
	case l.ResourceVersion != "":
		return failure(http.StatusBadRequest, "resourceVersion should not be set on objects to be created")
	}
	l.UID = types.UID(fmt.Sprintf("uid-of-version-%d", s.version+1))
	return http.StatusCreated, s.putLease(l)
}

// lease gets, updates or patches one Lease. s.mu is held.
func (s *Server) lease(r *http.Request, body []byte) (code int, answer Object) {
	last := s.leases[key{r.PathValue("namespace"), r.PathValue("name")}]
	switch {
	case r.Method == http.MethodPut && last == nil:
		return failure(http.StatusConflict, "the UID in the precondition differs from the UID of the object, which has none")
	case last == nil:
		return failure(http.StatusNotFound, fmt.Sprintf("leases.coordination.k8s.io %q not found", r.PathValue("name")))
	case r.Method == http.MethodGet:
		return http.StatusOK, last
	case r.Method != http.MethodPut && r.Method != http.MethodPatch:
		return failure(http.StatusMethodNotAllowed, "no such verb")
	}
	next := &coordinationv1.Lease{}
	if r.Method == http.MethodPatch { // see event
		next = last.DeepCopy()
	}
	if err := json.Unmarshal(body, next); err != nil {
		return failure(http.StatusBadRequest, err.Error())
	}
	if next.UID != last.UID || next.ResourceVersion != last.ResourceVersion {
		return failure(http.StatusConflict, "the object has been modified")
	}
	return http.StatusOK, s.putLease(next)
}

func (s *Server) putLease(l *coordinationv1.Lease) *coordinationv1.Lease {
	s.version++
	l.ResourceVersion = strconv.FormatUint(s.version, 10)
	s.leases[key{l.Namespace, l.Name}] = l
	return l
}

// Lease returns a copy of a Lease, nil if there is none.
func (s *Server) Lease(namespace, name string) *coordinationv1.Lease {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.leases[key{namespace, name}].DeepCopy()
}

// UpdateLease changes a Lease, as another client does.
func (s *Server) UpdateLease(namespace, name string, change func(*coordinationv1.Lease)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.leases[key{namespace, name}].DeepCopy()
	change(l)
	s.putLease(l)
}

// DeleteLease deletes a Lease if there is one.
func (s *Server) DeleteLease(namespace, name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.leases, key{namespace, name})
}

func failure(code int, message string) (int, Object) { return code, Status(code, message) }

func alreadyExists(resource, name string) (int, Object) {
	status := Status(http.StatusConflict, fmt.Sprintf("%s %q already exists", resource, name))
	status.Reason = metav1.StatusReasonAlreadyExists
	return http.StatusConflict, status
}
