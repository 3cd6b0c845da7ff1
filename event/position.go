package event

import (
	"cmp"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Position is how far a source has been read: every state up to and including Version,
// in Epoch. Versions are etcd revisions and compare as integers within one epoch. The
// zero Position is the start of a source.
type Position struct {
	Epoch   Epoch
	Version uint64

	// ListVersion is the version of the list that is being journaled, zero once the
	// list is complete. After a restart, states newer than Version up to ListVersion are
	// listed again; states newer than ListVersion are watched.
	ListVersion uint64

	// Time is the API server's time of the newest write that was read, in whole
	// seconds; zero if unknown.
	Time time.Time
}

// IsZero reports whether p is the start of a source.
func (p Position) IsZero() bool {
	return p.Epoch == Epoch{} && p.Version == 0 && p.ListVersion == 0
}

// Compare returns -1, 0 or 1 if p is before, at or after q. Both have to be of one cluster
// (Epoch.SameCluster). An earlier epoch comes first, then the lower version, then the
// position of an incomplete list.
func (p Position) Compare(q Position) int {
	if c := cmp.Compare(p.Epoch.Restores, q.Epoch.Restores); c != 0 {
		return c
	}
	if c := cmp.Compare(p.Version, q.Version); c != 0 {
		return c
	}
	switch {
	case p.ListVersion == q.ListVersion:
		return 0
	case p.ListVersion == 0:
		return 1
	case q.ListVersion == 0:
		return -1
	default:
		return cmp.Compare(p.ListVersion, q.ListVersion)
	}
}

// LaterOf returns the later of two positions; p if they cannot be compared, because
// they are of two clusters.
func LaterOf(p, q Position) Position {
	switch {
	case p.IsZero():
		return q
	case q.IsZero(), !p.Epoch.SameCluster(q.Epoch), p.Compare(q) > 0:
		return p
	default:
		return q
	}
}

// PositionOf returns the position of a source. A namespace without one has the position
// of all namespaces.
func PositionOf(positions map[string]Position, source string) Position {
	if p, ok := positions[source]; ok {
		return p
	}
	return positions[""]
}

// Includes reports whether a source that has been read up to p has been read up to a
// state of the same cluster. While a list is being journaled, the states before the
// position have been read.
func (p Position) Includes(state Position) bool {
	p.ListVersion, state.ListVersion = 0, 0
	return state.Epoch.SameCluster(p.Epoch) && state.Compare(p) <= 0
}

func (p Position) String() string {
	if p.IsZero() {
		return "none"
	}
	s := p.Epoch.String() + "@" + strconv.FormatUint(p.Version, 10)
	if p.ListVersion != 0 {
		s += "+list@" + strconv.FormatUint(p.ListVersion, 10)
	}
	return s
}

// Epoch is a period in which the versions of a cluster only grow. A restored etcd starts
// a new one, and so does another cluster behind the same address.
type Epoch struct {
	// Cluster is the uid of the namespace kube-system, empty without permission to read
	// it.
	Cluster string
	// Restores is the number of etcd restores noticed so far.
	Restores int
}

// unknownCluster is the stored form of an empty Epoch.Cluster.
const unknownCluster = "-"

// String returns the stored form of an epoch: "<uid or ->/<restores>".
func (e Epoch) String() string {
	return cmp.Or(e.Cluster, unknownCluster) + "/" + strconv.Itoa(e.Restores)
}

// ParseEpoch is the inverse of String.
func ParseEpoch(s string) (Epoch, error) {
	cluster, n, ok := strings.Cut(s, "/")
	restores, err := strconv.Atoi(n)
	if !ok || err != nil || cluster == "" || restores < 0 {
		return Epoch{}, fmt.Errorf("parse epoch %q: want <uid or %s>/<number of restores>", s, unknownCluster)
	}
	if cluster == unknownCluster {
		cluster = ""
	}
	return Epoch{Cluster: cluster, Restores: restores}, nil
}

// SameCluster reports whether both epochs may belong to one cluster: their uids are equal,
// or one is unknown.
func (e Epoch) SameCluster(o Epoch) bool {
	return e.Cluster == o.Cluster || e.Cluster == "" || o.Cluster == ""
}
