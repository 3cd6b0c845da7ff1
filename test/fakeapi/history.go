package fakeapi

import (
	"fmt"
	"maps"
	"slices"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
)

// Change is one write of an Event.
type Change struct {
	Version uint64
	Type    watch.EventType
	Event   *corev1.Event // of a deletion: with the version of the state before
}

// key is the namespace and the name of an object.
type key struct{ namespace, name string }

// String returns the key in the form by which etcd orders a list.
func (k key) String() string { return k.namespace + "/" + k.name }

func keyOf(e *corev1.Event) key { return key{e.Namespace, e.Name} }

// Put creates or updates an Event and returns the stored state, which must not be changed. The
// server sets the resourceVersion and, unless the Event has one, the uid. Without a namespace the
// Event belongs to "default".
func (s *Server) Put(e *corev1.Event) *corev1.Event {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.put(e.DeepCopy())
}

func (s *Server) put(e *corev1.Event) *corev1.Event {
	if e.Namespace == "" {
		e.Namespace = "default"
	}
	change := Change{Type: watch.Added, Event: e, Version: s.version + 1}
	if last := s.events[keyOf(e)]; last != nil {
		change.Type = watch.Modified
		e.UID = last.UID
	} else if e.UID == "" {
		e.UID = types.UID(fmt.Sprintf("00000000-0000-4000-8000-%012d", change.Version))
	}
	e.ResourceVersion = strconv.FormatUint(change.Version, 10)
	s.append(change)
	return e
}

// Delete deletes an Event and returns the version of the deletion. It panics if there is none.
func (s *Server) Delete(namespace, name string) uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	change := Change{Type: watch.Deleted, Event: s.events[key{namespace, name}].DeepCopy(), Version: s.version + 1}
	s.append(change)
	return change.Version
}

// Append adds a change to the history, with any Version.
func (s *Server) Append(c Change) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.append(c)
}

func (s *Server) append(c Change) {
	s.version = max(s.version, c.Version)
	s.history = append(s.history, c)
	apply(s.events, c)
	close(s.changed)
	s.changed = make(chan struct{})
}

func apply(events map[key]*corev1.Event, c Change) {
	if c.Type == watch.Deleted {
		delete(events, keyOf(c.Event))
	} else {
		events[keyOf(c.Event)] = c.Event
	}
}

// Advance raises the version by n, as writes of other objects do.
func (s *Server) Advance(n uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.version += n
}

// Version returns the version of the last write.
func (s *Server) Version() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.version
}

// Compact makes versions older than version unavailable: lists and watches from them fail with 410.
func (s *Server) Compact(version uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.compacted = version
}

// Compacted returns the oldest version that is available.
func (s *Server) Compacted() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.compacted
}

// Restore returns to the state at an earlier version, as a restore of an etcd backup does.
func (s *Server) Restore(version uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.events = s.eventsAt(version)
	s.history = slices.DeleteFunc(s.history, func(c Change) bool { return c.Version > version })
	s.version, s.compacted = version, min(s.compacted, version)
}

// Replace replaces uid, history and version, as if the cluster were another one.
func (s *Server) Replace(clusterUID types.UID, version uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.clusterUID, s.version, s.compacted, s.history = clusterUID, version, 0, nil
	clear(s.events)
}

// History returns all changes that Restore and Replace have not removed.
func (s *Server) History() []Change {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.history[:len(s.history):len(s.history)]
}

// Event returns the present state of an Event, nil if there is none.
func (s *Server) Event(namespace, name string) *corev1.Event {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.events[key{namespace, name}]
}

// EventAt returns the state of an Event at a version, nil if there was none.
func (s *Server) EventAt(namespace, name string, version uint64) *corev1.Event {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.eventsAt(version)[key{namespace, name}]
}

// eventsAt returns the Events at a version.
func (s *Server) eventsAt(version uint64) map[key]*corev1.Event {
	if version >= s.version {
		return maps.Clone(s.events)
	}
	events := map[key]*corev1.Event{}
	for _, c := range s.history {
		if c.Version <= version {
			apply(events, c)
		}
	}
	return events
}
