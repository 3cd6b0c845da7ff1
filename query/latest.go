package query

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"strconv"
	"strings"

	"github.com/hindsight-events/hindsight/event"
	"github.com/hindsight-events/hindsight/event/format"
)

// errEnough ends a Range when enough entries were found.
var errEnough = errors.New("enough")

// key identifies an Event or a state.
type key [16]byte

func keyOf(parts ...string) (k key) {
	sum := sha256.Sum256([]byte(strings.Join(parts, "\x00")))
	copy(k[:], sum[:])
	return k
}

func stateKey(r *format.Record) key {
	e := r.Event
	if e.UID != "" && e.ResourceVersion != "" {
		return keyOf(string(e.UID), e.ResourceVersion)
	}
	return keyOf(strconv.FormatInt(r.Time.UnixNano(), 10), r.Value(event.FieldCount), e.Namespace, e.Reason, e.InvolvedObject.Kind, e.InvolvedObject.Name, e.Message)
}

// Latest picks, from the states of Events, each Event's latest, once. It needs to observe all states
// before the first is taken.
type Latest struct {
	versions *latestOnly // nil: all states are taken, each once
	taken    *recentKeys
}

// NewLatest returns a Latest for at most some 2 million Events, in up to 40 bytes each.
func NewLatest() *Latest {
	return &Latest{versions: newLatestOnly(), taken: newRecentKeys(recentStates)}
}

// Observe adds a state.
func (l *Latest) Observe(r *format.Record) { l.versions.observe(r) }

// Take reports whether the state is the latest of its Event, and was not taken before.
func (l *Latest) Take(r *format.Record) bool {
	if l.taken.add(stateKey(r)) || l.versions.hides(r) {
		return false
	}
	l.versions.markPrinted(r)
	return true
}

// Full reports whether there were more Events. Of those, several states may be taken.
func (l *Latest) Full() bool { return l.versions != nil && l.versions.full }

// maxTracked bounds the memory of latestOnly to about 80 MiB.
const maxTracked = 1 << 21

// latestOnly hides the states of an Event that are not its latest. It keeps the highest version of
// each Event by 64 bits of a hash of its uid: of a million Events, two share them with a
// probability of 1 in 37 million. A nil *latestOnly hides nothing.
type latestOnly struct {
	ranks map[uint64]uint64 // by eventHash
	limit int
	full  bool // there were more Events
}

func newLatestOnly() *latestOnly {
	return &latestOnly{ranks: map[uint64]uint64{}, limit: maxTracked}
}

// eventHash returns false for a record without a uid.
func eventHash(r *format.Record) (uint64, bool) {
	uid := string(r.Event.UID)
	k := keyOf(uid)
	return binary.LittleEndian.Uint64(k[:]), uid != ""
}

// rank orders the states of one Event: by version, or by time if the version is missing. It is
// even; rank+1 marks the state as printed.
func rank(r *format.Record) uint64 {
	if v := r.Position.Version; v != 0 {
		return v << 1
	}
	return uint64(max(r.Time.UnixNano(), 0)) &^ 1
}

// observe adds a state.
func (l *latestOnly) observe(r *format.Record) {
	h, ok := eventHash(r)
	if !ok {
		return
	}
	known, ok := l.ranks[h]
	if !ok && len(l.ranks) >= l.limit {
		l.full = true
		return
	}
	l.ranks[h] = max(known, rank(r))
}

// hides reports whether a state of a higher version was observed, or this state was printed.
func (l *latestOnly) hides(r *format.Record) bool {
	if l == nil {
		return false
	}
	h, ok := eventHash(r)
	return ok && rank(r) < l.ranks[h]
}

// markPrinted hides the state from now on.
func (l *latestOnly) markPrinted(r *format.Record) {
	if l == nil {
		return
	}
	if h, ok := eventHash(r); ok && l.ranks[h] == rank(r) {
		l.ranks[h]++
	}
}

// recentStates is the minimum number of printed states that Run remembers: more than lie between
// the two copies that a crash or a lost connection causes.
const recentStates = 1 << 16

// recentKeys remembers the last keys added: at least size, at most twice as many.
type recentKeys struct {
	size         int
	newer, older map[key]struct{}
}

func newRecentKeys(size int) *recentKeys { return &recentKeys{size: size, newer: map[key]struct{}{}} }

// add adds a key and reports whether it was already there.
func (s *recentKeys) add(k key) bool {
	if _, ok := s.newer[k]; ok {
		return true
	}
	_, ok := s.older[k]
	if len(s.newer) >= s.size {
		s.older, s.newer = s.newer, map[key]struct{}{}
	}
	s.newer[k] = struct{}{}
	return ok
}

// lastN holds the last n records.
type lastN struct {
	n       int
	records []format.Record
	oldest  int // index of the oldest, once there are n
}

func newLastN(n int) *lastN { return &lastN{n: n} }

func (l *lastN) add(r format.Record) {
	if len(l.records) < l.n {
		l.records = append(l.records, r)
		return
	}
	l.records[l.oldest] = r
	l.oldest = (l.oldest + 1) % l.n
}

func (l *lastN) each(f func(*format.Record) error) error {
	for i := range l.records {
		if err := f(&l.records[(l.oldest+i)%len(l.records)]); err != nil {
			return err
		}
	}
	return nil
}
