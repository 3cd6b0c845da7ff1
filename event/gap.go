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

// GapReason is the reason of the Events that say states may have been missed.
const GapReason = "HindsightGap"

// Cause is why states may have been missed.
type Cause string

const (
	CauseTooOld       Cause = "too_old"       // the API server could not replay from there any more
	CauseRestored     Cause = "restored"      // the cluster's state went back to an earlier one
	CauseOtherCluster Cause = "other_cluster" // another cluster answers at the address
	CauseStalled      Cause = "stalled"       // watches brought nothing while lists showed newer Events
	CauseOverflow     Cause = "overflow"      // the journal was full and this sink let it drop records
	CauseDamage       Cause = "damage"        // a part of the journal could not be read
)

func (c Cause) explain() string {
	switch c {
	case CauseTooOld:
		return "the API server could not replay this stretch any more; of each Event only its latest state was read again"
	case CauseRestored:
		return "the cluster's state was restored from a backup; everything it now holds was read again"
	case CauseOtherCluster:
		return "another cluster answers at this address; everything it holds was read"
	case CauseStalled:
		return "watches brought nothing while lists showed newer Events; of each Event only the latest state was read, again and again"
	case CauseOverflow:
		return "the destination was behind for so long that the journal was full"
	case CauseDamage:
		return "a part of the journal could not be read"
	default:
		return cmp.Or(string(c), "the cause is not known")
	}
}

// Gap is a stretch in which states of a source may have been missed.
type Gap struct {
	Source    string // as in Record: a namespace, or empty for all
	Namespace string // our own: that of the Event which tells of the gap
	Sink      string // the only sink that missed something; empty: all

	// From is the position up to which nothing was missed, To that from which
	// on nothing is. Where a time is not known it is zero. While To.Version is zero, the
	// end is not known; To.Time is then the time of the record.
	From, To Position

	Cause         Cause
	MissedAtLeast int // states known to be missing
}

// Names of what a gap's Event says in annotations, "hindsight/<name>", and a
// line in fields, in this order.
const (
	gapFromVersion   = "from_version"
	gapToVersion     = "to_version"
	gapFromTime      = "from_time"
	gapToTime        = "to_time"
	gapCause         = "cause"
	gapMissedAtLeast = "missed_at_least"
)

// ownPrefix begins the names of annotations that mean something to readers of what
// Hindsight writes.
const ownPrefix = "hindsight/"

// gapFieldNames are in the order of a line.
var gapFieldNames = [...]string{gapFromVersion, gapToVersion, gapFromTime, gapToTime, gapCause, gapMissedAtLeast}

// GapFields returns the fields of a line that declare the gap of a gap record.
func (r *Record) GapFields() []Pair {
	pairs := make([]Pair, len(gapFieldNames))
	for i, name := range gapFieldNames {
		pairs[i] = Pair{name, r.Event.Annotations[ownPrefix+name]}
	}
	return pairs
}

// SetGapField sets a field of GapFields in an Event that is read from a line. It
// ignores other names.
func SetGapField(e *corev1.Event, name, value string) {
	if !slices.Contains(gapFieldNames[:], name) {
		return
	}
	if e.Annotations == nil {
		e.Annotations = map[string]string{}
	}
	e.Annotations[ownPrefix+name] = value
}

// Supersedes reports whether o is the same gap declared before its end was known.
func (g Gap) Supersedes(o Gap) bool {
	return o.To.Version == 0 && o.Source == g.Source && o.Sink == g.Sink && o.Cause == g.Cause &&
		o.From.String() == g.From.String()
}

// ForgedGap reports whether the record is of an Event that has the reason of our gap
// records and is none of them.
func (r *Record) ForgedGap() bool {
	return !r.Gap && r.Event != nil && r.Event.Reason == GapReason && r.Event.Annotations[ownPrefix+gapCause] == ""
}

// NewGap returns the record that tells readers of a gap: a Warning in our own
// namespace. The same gap always gives the same record, so that it can be
// declared again after a crash.
//
// Its Time is To's, else From's, and zero if neither is known. Its Position is
// From: telling of a gap does not take the source past it. A caller that
// journals it elsewhere sets another.
func NewGap(g Gap) Record {
	at := g.To.Time
	if at.IsZero() {
		at = g.From.Time
	}
	at = seconds(metav1.Time{Time: at})
	id := sha256.Sum256([]byte(g.Source + "\x00" + g.From.String() + "\x00" + g.To.String()))
	// A UUID of version 8: one whose bits are the application's own.
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
		// No namespace has this name; it reads as what it means.
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
			a[ownPrefix+name] = value
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

// gapMessage is a sentence like "Events of all namespaces may have been missed
// between 2019-07-19T11:00:00Z (version 100) and 2019-07-19T11:20:00Z (version
// 900): …".
func gapMessage(g Gap) string {
	of := "all namespaces"
	if g.Source != "" {
		of = "namespace " + g.Source
	}
	to, why := instant(g.To, "now"), g.Cause.explain()
	if g.Cause == CauseStalled && g.To.Version == 0 {
		to, why = "now", "watches bring nothing while lists show newer Events; until they work again, of each Event only the latest state is read"
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

// instant describes a position to a person.
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
