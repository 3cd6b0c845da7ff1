package objects

import (
	"encoding/hex"
	"strings"
)

// uid is the uid of an object: a UUID, or the 32 hexadecimal digits of a static pod.
type uid [16]byte

const uuidLength = 36

func parseUID(s string) (u uid, ok bool) {
	if len(s) == uuidLength {
		if s[8] != '-' || s[13] != '-' || s[18] != '-' || s[23] != '-' {
			return u, false
		}
		s = s[:8] + s[9:13] + s[14:18] + s[19:23] + s[24:]
	}
	if len(s) != 2*len(u) {
		return u, false
	}
	n, err := hex.Decode(u[:], []byte(s))
	return u, err == nil && n == len(u)
}

// name adds the uid of an object that an Event is about. The first object of a uid counts.
func (g *Graph) name(text string, id int32) { g.addUID(text, id, false) }

// nameRelated adds the uid of an object that an Event claims to be related. The API server checks the
// namespace of the object that an Event is about, but not of a related one, so that this counts only
// while no Event is about the uid.
func (g *Graph) nameRelated(text string, id int32) { g.addUID(text, id, true) }

func (g *Graph) addUID(text string, id int32, related bool) {
	u, ok := parseUID(text)
	if !ok || id < 0 {
		return
	}
	known, ok := g.uids[u]
	if ok && (related || known >= 0) {
		return
	}
	if !ok && len(g.uids) >= g.limit {
		g.full = true
		return
	}
	if related {
		id = ^id
	}
	g.uids[u] = id
}

// Named returns the object of a uid.
func (g *Graph) Named(text string) (Object, bool) {
	u, ok := parseUID(text)
	if !ok {
		return Object{}, false
	}
	id, ok := g.uids[u]
	if !ok {
		return Object{}, false
	}
	return g.object(max(id, ^id)), true
}

// UIDs returns the uids in a message that a Graph could name: those that no name precedes.
func UIDs(message string) (uids []string) {
	for start, end := nextUID(message, 0); start >= 0; start, end = nextUID(message, end) {
		if !namedBefore(message[:start]) {
			uids = append(uids, message[start:end])
		}
	}
	return uids
}

// Resolve returns a message with each known uid replaced by namespace/name, and the objects that it
// names so. A uid that follows its pod's name, as in name_namespace(uid), remains.
func (g *Graph) Resolve(message string) (text string, named []Object) {
	return g.resolve(message, false)
}

// Annotate is like Resolve, but keeps each uid, followed by (namespace/name).
func (g *Graph) Annotate(message string) (text string, named []Object) {
	return g.resolve(message, true)
}

func (g *Graph) resolve(message string, keep bool) (text string, named []Object) {
	var b strings.Builder
	done := 0
	for start, end := nextUID(message, 0); start >= 0; start, end = nextUID(message, end) {
		o, ok := g.Named(message[start:end])
		if !ok || namedBefore(message[:start]) {
			continue
		}
		name := o.Name
		if o.Namespace != "" {
			name = o.Namespace + "/" + name
		}
		if keep {
			b.WriteString(message[done:end] + " (" + name + ")")
		} else {
			b.WriteString(message[done:start] + name)
		}
		done = end
		named = append(named, o)
	}
	if done == 0 {
		return message, nil
	}
	return b.String() + message[done:], named
}

// namedBefore reports whether a text ends in name_namespace( .
func namedBefore(text string) bool {
	_, _, ok := podBefore(text)
	return ok
}

// podBefore returns the names in a text that ends in name_namespace( .
func podBefore(text string) (namespace, name string, ok bool) {
	text, ok = strings.CutSuffix(text, "(")
	if !ok {
		return "", "", false
	}
	if i := strings.LastIndexAny(text, " \"'=[,"); i >= 0 {
		text = text[i+1:]
	}
	name, namespace, ok = strings.Cut(text, "_")
	return namespace, name, ok && validName(name) && validName(namespace)
}

// podInParentheses returns the uid of the Event's own pod in a message of the kubelet:
//
//	Back-off restarting failed container api in pod web-0_prod(e28fc031-2b00-4faf-a711-d6b2edb2f2f5)
func podInParentheses(o Object, message string) (n name, ok bool) {
	for start, end := nextUID(message, 0); start >= 0; start, end = nextUID(message, end) {
		if namespace, pod, ok := podBefore(message[:start]); ok && namespace == o.Namespace && pod == o.Name {
			return name{uid: message[start:end], object: o}, true
		}
	}
	return name{}, false
}

// nextUID returns where the next UUID in a text begins and ends, from a position on; -1 for none. Its
// neighbours are no letters, digits or hyphens.
func nextUID(text string, from int) (start, end int) {
	for i := from; i+uuidLength <= len(text); {
		dash := strings.IndexByte(text[i:], '-')
		if dash < 0 {
			return -1, -1
		}
		at := i + dash - 8
		if at >= from && at+uuidLength <= len(text) &&
			(at == 0 || !inName(text[at-1])) && (at+uuidLength == len(text) || !inName(text[at+uuidLength])) {
			if _, ok := parseUID(text[at : at+uuidLength]); ok {
				return at, at + uuidLength
			}
		}
		i += dash + 1
	}
	return -1, -1
}

func inName(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '-'
}
