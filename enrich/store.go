package enrich

import (
	"crypto/sha256"
	"sync"
	"time"
	"unique"

	"github.com/google/uuid"
)

// store has the owner and the values of objects by uid. Objects with the same owner and values
// share them, so an object costs about 60 bytes. It is safe for concurrent use.
type store struct {
	keepDeleted time.Duration

	mu      sync.Mutex
	objects map[key]object
	names   map[name]key          // of objects that Events refer to by name
	awaited map[key]chan struct{} // closed when the object is stored
}

// key identifies an object.
type key [16]byte

// uidKey returns the key of a uid. A uid that is not a UUID is hashed.
func uidKey(uid string) (k key) {
	if u, err := uuid.Parse(uid); err == nil {
		return key(u)
	}
	sum := sha256.Sum256([]byte(uid))
	copy(k[:], sum[:])
	return k
}

// name is another name of an object: of a cluster-scoped object its kind and name, of a static pod
// its hash.
type name struct{ kind, name string }

// key returns a key under which the object can be awaited.
func (n name) key() key { return uidKey(n.kind + "\x00" + n.name) }

// object is an entry of the store.
type object struct {
	properties unique.Handle[properties]
	deletedAt  uint32 // Unix seconds; 0: not deleted
	list       uint16 // number of the last list that had it
	watch      uint16 // number of the watch that has it
}

// properties are what an Event gets from an object.
type properties struct {
	owner  owner
	values string // encoded by encodeValues
}

// owner is a controller, as in an owner reference. The zero owner is none.
type owner struct{ uid, kind, name string }

func newStore(keepDeleted time.Duration) *store {
	return &store{
		keepDeleted: keepDeleted,
		objects:     make(map[key]object), names: make(map[name]key), awaited: make(map[key]chan struct{}),
	}
}

// set stores an object of a watch. list is the number of the last list of that watch.
func (s *store) set(k key, watch, list uint16, p properties, names ...name) {
	o := object{properties: unique.Make(p), watch: watch, list: list}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.objects[k] = o
	s.announce(k)
	for _, n := range names {
		s.names[n] = k
		s.announce(n.key())
		s.announce(uidKey(n.name)) // a static pod
	}
}

func (s *store) announce(k key) {
	if stored, ok := s.awaited[k]; ok {
		close(stored)
		delete(s.awaited, k)
	}
}

// get returns the properties of an object that exists or was deleted at most keepDeleted ago.
func (s *store) get(k key) (properties, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	o, ok := s.objects[k]
	if !ok {
		return properties{}, false
	}
	return o.properties.Value(), true
}

// named is get for an object with another name than its uid.
func (s *store) named(n name) (properties, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	o, ok := s.objects[s.names[n]]
	if !ok {
		return properties{}, false
	}
	return o.properties.Value(), true
}

// stored returns a channel that is closed once the object of a key is stored. It is nil if it is
// already.
func (s *store) stored(k key) <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.objects[k]; ok {
		return nil
	}
	c, ok := s.awaited[k]
	if !ok {
		c = make(chan struct{})
		s.awaited[k] = c
	}
	return c
}

// giveUp ends the wait for an object.
func (s *store) giveUp(k key) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.awaited, k)
}

// delete marks an object as deleted.
func (s *store) delete(k key, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if o, ok := s.objects[k]; ok && o.deletedAt == 0 {
		o.deletedAt = uint32(now.Unix())
		s.objects[k] = o
	}
}

// endList marks the objects of a watch as deleted that were not in its last list.
func (s *store) endList(watch, list uint16, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for k, o := range s.objects {
		if o.watch == watch && o.list != list && o.deletedAt == 0 {
			o.deletedAt = uint32(now.Unix())
			s.objects[k] = o
		}
	}
}

// removeDeleted removes the objects that were deleted more than keepDeleted ago.
func (s *store) removeDeleted(now time.Time) {
	before := uint32(now.Add(-s.keepDeleted).Unix())
	s.mu.Lock()
	defer s.mu.Unlock()
	removed := false
	for k, o := range s.objects {
		if o.deletedAt != 0 && o.deletedAt < before {
			delete(s.objects, k)
			removed = true
		}
	}
	if !removed {
		return
	}
	for n, k := range s.names {
		if _, ok := s.objects[k]; !ok {
			delete(s.names, n)
		}
	}
}

// count returns the number of objects, deleted ones included.
func (s *store) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.objects)
}
