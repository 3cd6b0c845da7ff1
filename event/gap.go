package event

import (
	"cmp"
	"crypto/sha256"
	"fmt"
	"slices"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// GapReason is the reason of the Event in a gap record.
const GapReason = "HindsightGap"

// Cause is the cause of a gap.
type Cause string

const (
	CauseTooOld       Cause = "too_old"       // the API server cannot replay from this version
	CauseRestored     Cause = "restored"      // etcd was restored
	CauseOtherCluster Cause = "other_cluster" // another cluster answers at the address
	CauseStalled      Cause = "stalled"       // watches stalled
	CauseOverflow     Cause = "overflow"      // the journal was full and dropped records of this sink
	CauseDamage       Cause = "damage"        // a part of the journal is damaged
)

func (c Cause) explain() string {
	switch c {
	case CauseTooOld:
		return "the API server could not replay these versions; only the latest state of each Event was read"
	case CauseRestored:
		return "etcd was restored from a backup; all its Events were read again"
	case CauseOtherCluster:
		return "another cluster answers at this address; all its Events were read"
	case CauseStalled:
		return "watches delivered nothing while lists showed newer Events; only the latest state of each Event was read"
	case CauseOverflow:
		return "the journal was full because the destination was too slow"
	case CauseDamage:
		return "a part of the journal could not be read"
	default:
		return cmp.Or(string(c), "the cause is unknown")
	}
}

// Gap is a range of positions of a source in which states may be missing.
type Gap struct {
	Source    string // as in Record: a namespace, or empty for all
	Namespace string // of the gap record's Event: Hindsight's own
	Sink      string // the only sink with the gap; empty: all

	// From is the position up to which no state is missing, To the position after which
	// none is. Unknown times are zero. While To.Version is zero, the gap has no end yet
	// and To.Time is the time of the record.
	From, To Position

	Cause         Cause
	MissedAtLeast int // states known to be missing
}

// Names of the annotations of a gap record's Event, "hindsight/<name>", and of the fields
// of its line.
const (
	gapFromVersion   = "from_version"
	gapToVersion     = "to_version"
	gapFromTime      = "from_time"
	gapToTime        = "to_time"
	gapCause         = "cause"
	gapMissedAtLeast = "missed_at_least"
)

// reservedPrefix begins annotations and labels that only Hindsight may set.
const reservedPrefix = "hindsight/"

// gapFieldNames are in the order of the fields of a line.
var gapFieldNames = [...]string{gapFromVersion, gapToVersion, gapFromTime, gapToTime, gapCause, gapMissedAtLeast}

// GapFields returns the fields that the line of a gap record has in addition.
func (r *Record) GapFields() []Pair {
	pairs := make([]Pair, len(gapFieldNames))
	for i, name := range gapFieldNames {
		pairs[i] = Pair{name, r.Event.Annotations[reservedPrefix+name]}
	}
	return pairs
}

// SetGapField sets a field of GapFields in an Event. It returns false for other names.
func SetGapField(e *corev1.Event, name, value string) bool {
	if !slices.Contains(gapFieldNames[:], name) {
		return false
	}
	if e.Annotations == nil {
		e.Annotations = map[string]string{}
	}
	e.Annotations[reservedPrefix+name] = value
	return true
}

// Supersedes reports whether o is the same gap, declared before its end was known.
func (g Gap) Supersedes(o Gap) bool {
	return o.To.Version == 0 && o.Source == g.Source && o.Sink == g.Sink && o.Cause == g.Cause &&
		o.From.String() == g.From.String()
}

// ForgedGap reports whether the record has the reason of a gap record and is none.
func (r *Record) ForgedGap() bool {
	return !r.Gap && r.Event != nil && r.Event.Reason == GapReason && r.Event.Annotations[reservedPrefix+gapCause] == ""
}

// NewGap returns the gap record that declares g: a Warning in Hindsight's own namespace.
// The same gap always gives the same record, so that it can be declared again after a
// crash.
//
// Its Time is To's, else From's, else zero. Its Position is From, so that it does not move
// the source past the gap; a caller may change it.
func NewGap(g Gap) Record {
	at := g.To.Time
	if at.IsZero() {
		at = g.From.Time
	}
	at = seconds(metav1.Time{Time: at})
	id := sha256.Sum256([]byte(g.Source + "\x00" + g.From.String() + "\x00" + g.To.String()))
	// A UUID of version 8, for application-defined bits.
	id[6] = id[6]&0x0f | 0x80
	id[8] = id[8]&0x3f | 0x80

	e := &corev1.Event{
		ObjectMeta: metav1.ObjectMeta{
			Namespace:         g.Namespace,
			Name:              fmt.Sprintf("hindsight-gap.%x", id[:8]),
			UID:               types.UID(fmt.Sprintf("%x-%x-%x-%x-%x", id[:4], id[4:6], id[6:8], id[8:10], id[10:16])),
			ResourceVersion:   versionString(g.To.Version),
			CreationTimestamp: metav1.Time{Time: at},
			Annotations:       gapAnnotations(g),
		},
		// "*" is not a valid name of a namespace.
		InvolvedObject: corev1.ObjectReference{
			APIVersion: "v1", Kind: "Namespace", Name: cmp.Or(g.Source, "*"),
		},
		Reason:         GapReason,
		Message:        gapMessage(g),
		Source:         corev1.EventSource{Component: "hindsight"},
		FirstTimestamp: metav1.Time{Time: at},
		LastTimestamp:  metav1.Time{Time: at},
		Count:          1,
		Type:           corev1.EventTypeWarning,
	}
	return Record{
		Source:   g.Source,
		Position: g.From,
		Event:    e,
		Time:     at,
		Gap:      true,
		OnlySink: g.Sink,
	}
}

func gapAnnotations(g Gap) map[string]string {
	a := make(map[string]string, len(gapFieldNames))
	set := func(name, value string) {
		if value != "" {
			a[reservedPrefix+name] = value
		}
	}
	set(gapFromVersion, versionString(g.From.Version))
	set(gapToVersion, versionString(g.To.Version))
	set(gapFromTime, timeString(g.From.Time))
	if g.To.Version != 0 || g.Cause != CauseStalled {
		set(gapToTime, timeString(g.To.Time))
	}
	set(gapCause, string(g.Cause))
	set(gapMissedAtLeast, strconv.Itoa(g.MissedAtLeast))
	return a
}

// gapMessage returns "Events of all namespaces may have been missed between
// 2019-07-19T11:00:00Z (version 100) and 2019-07-19T11:20:00Z (version 900): …".
func gapMessage(g Gap) string {
	of := "all namespaces"
	if g.Source != "" {
		of = "namespace " + g.Source
	}
	to, why := instant(g.To, "now"), g.Cause.explain()
	if g.Cause == CauseStalled && g.To.Version == 0 {
		to, why = "now", "watches deliver nothing while lists show newer Events; until that ends, only the latest state of each Event is read"
	}
	s := "Events of " + of + " may have been missed between " +
		instant(g.From, "the start") + " and " + to + ": " + why
	switch {
	case g.MissedAtLeast == 1:
		s += "; at least 1 is missing"
	case g.MissedAtLeast > 1:
		s += "; at least " + strconv.Itoa(g.MissedAtLeast) + " are missing"
	}
	return s
}

// instant describes a position in a message.
func instant(p Position, unknown string) string {
	switch {
	case p.Time.IsZero() && p.Version == 0:
		return unknown
	case p.Time.IsZero():
		return "version " + versionString(p.Version)
	case p.Version == 0:
		return timeString(p.Time)
	default:
		return timeString(p.Time) + " (version " + versionString(p.Version) + ")"
	}
}

func versionString(v uint64) string {
	if v == 0 {
		return ""
	}
	return strconv.FormatUint(v, 10)
}

func timeString(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339)
}
