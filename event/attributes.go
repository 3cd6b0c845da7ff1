package event

import "slices"

// Attribute returns the value of an attribute, empty if the record does not have it.
func (r *Record) Attribute(name string) string {
	i, found := slices.BinarySearchFunc(r.Attributes, Pair{Name: name}, comparePairs)
	if !found {
		return ""
	}
	return r.Attributes[i].Value
}

// SetAttribute sets an attribute; an empty value removes it.
func (r *Record) SetAttribute(name, value string) {
	p := Pair{name, value}
	i, found := slices.BinarySearchFunc(r.Attributes, p, comparePairs)
	switch {
	case found && value == "":
		r.Attributes = slices.Delete(r.Attributes, i, i+1)
	case found:
		r.Attributes[i] = p
	case value != "":
		r.Attributes = slices.Insert(r.Attributes, i, p)
	}
}

// IsAttributeName reports whether an attribute can have the name: letters, digits and underscores,
// not a digit first.
func IsAttributeName(name string) bool {
	for i := range len(name) {
		c := name[i]
		if c != '_' && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (i == 0 || c < '0' || c > '9') {
			return false
		}
	}
	return name != ""
}
