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

// errEnough ends a Range that has found what was asked for.
var errEnough = errors.New("enough")

// key stands for an Event or a state of one.
type key [16]byte

func keyOf(parts ...string) (k key) {
	sum := sha256.Sum256([]byte(strings.Join(parts, "\x00")))
	copy(k[:], sum[:])
	return k
}

// eventKey is false for a record that does not say which Event it is of.
func eventKey(r *format.Record) (key, bool) {
	uid := string(r.Event.UID)
	return keyOf(uid), uid != ""
}

func stateKey(r *format.Record) key {
	e := r.Event
	if e.UID != "" && e.ResourceVersion != "" {
		return keyOf(string(e.UID), e.ResourceVersion)
	}
	return keyOf(strconv.FormatInt(r.Time.UnixNano(), 10), r.Value(event.FieldCount), e.Namespace, e.Reason, e.InvolvedObject.Kind, e.InvolvedObject.Name, e.Message)
}

// maxTracked bounds the memory of a fold to about 80 MiB.
const maxTracked = 1 << 21

// latestOnly knows the highest version of each Event, by 64 bits of a hash of its uid:
// of a million Events, two share them with a probability of 1 in 37 million. A nil
// fold hides nothing.
type latestOnly struct {
	latest map[uint64]uint64 // ranks, by foldKey
	limit  int
	full   bool // there were more Events
}

func newLatestOnly() *latestOnly { return &latestOnly{latest: map[uint64]uint64{}, limit: maxTracked} }

// latestKey is false for a record that does not say which Event it is of.
func latestKey(r *format.Record) (uint64, bool) {
	k, ok := eventKey(r)
	return binary.LittleEndian.Uint64(k[:]), ok
}

// rank orders the states of one Event: by version, or by time where the version
// is missing. It is even, so that there is room above it for shown.
func rank(r *format.Record) uint64 {
	if v := r.Position.Version; v != 0 {
		return v << 1
	}
	return uint64(max(r.Time.UnixNano(), 0)) &^ 1
}

// observe takes a state into account.
func (f *latestOnly) observe(r *format.Record) {
	k, ok := latestKey(r)
	if !ok {
		return
	}
	known, ok := f.latest[k]
	if !ok && len(f.latest) >= f.limit {
		f.full = true
		return
	}
	f.latest[k] = max(known, rank(r))
}

// hides reports whether the Event has a state of a higher version, or the same
// state was shown.
func (f *latestOnly) hides(r *format.Record) bool {
	if f == nil {
		return false
	}
	k, ok := latestKey(r)
	return ok && rank(r) < f.latest[k]
}

// markShown makes the fold hide the state from now on.
func (f *latestOnly) markShown(r *format.Record) {
	if f == nil {
		return
	}
	if k, ok := latestKey(r); ok && f.latest[k] == rank(r) {
		f.latest[k]++
	}
}

// recentStates is how many states Run remembers to have printed, at the least:
// more than are stored twice in between by a crash or a lost connection.
const recentStates = 1 << 16

// recent remembers what was added last: at least size keys, at most twice as
// many.
type recent struct {
	size          int
	newer, before map[key]struct{}
}

func newRecent(size int) *recent { return &recent{size: size, newer: map[key]struct{}{}} }

// add reports whether the key is remembered already.
func (s *recent) add(k key) bool {
	if _, ok := s.newer[k]; ok {
		return true
	}
	_, ok := s.before[k]
	if len(s.newer) >= s.size {
		s.before, s.newer = s.newer, map[key]struct{}{}
	}
	s.newer[k] = struct{}{}
	return ok
}

// lastN holds the last records of many.
type lastN struct {
	n       int
	records []format.Record
	next    int // the oldest, once there are as many as there may be
}

func newLastN(most int) *lastN { return &lastN{n: most} }

func (t *lastN) add(r format.Record) {
	if len(t.records) < t.n {
		t.records = append(t.records, r)
		return
	}
	t.records[t.next] = r
	t.next = (t.next + 1) % t.n
}

func (t *lastN) each(f func(*format.Record) error) error {
	for i := range t.records {
		if err := f(&t.records[(t.next+i)%len(t.records)]); err != nil {
			return err
		}
	}
	return nil
}
