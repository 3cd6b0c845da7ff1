package main

import (
	"bytes"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/golang/snappy"
	"google.golang.org/protobuf/encoding/protowire"
)

// loki accepts pushes and counts their content. It reads the time, the line and the metadata
// event_version of an entry, which identifies the state; or eventRV in a line of logfmt.
type loki struct {
	history  *history
	encoding *encoding
	seed     maphash.Seed

	mu       sync.Mutex // guards the following
	answer   int        // the status of all responses; 0: pushes are accepted
	delay    time.Duration
	received received
	streams  map[string]bool
	states   []uint64            // a bit for each state that has come
	others   map[uint64]struct{} // hashes of entries without a version of ours
	backlog  []int64             // when the states came that were there at the start, in ns since 1970
	lags     []int64             // from write to receipt of the later ones, in ns
	warnings []int64             // those of Warnings
	changed  chan struct{}       // closed when something is received
}

// received counts all pushes.
type received struct {
	Entries       int       `json:"entries"`       // distinct
	Repeated      int       `json:"repeated"`      // duplicates
	Pushes        int       `json:"pushes"`        // accepted
	Refused       int       `json:"refused"`       // pushes
	Bytes         int       `json:"bytes"`         // of the bodies of pushes
	CountedBytes  int       `json:"counted_bytes"` // of lines and metadata, as Loki counts
	Streams       int       `json:"streams"`
	First         time.Time `json:"first,omitzero"` // when the first push was accepted
	Last          time.Time `json:"last,omitzero"`  // when the last new entry arrived
	LagMedian     float64   `json:"lag_median_seconds"`
	LagNinetyNine float64   `json:"lag_p99_seconds"`
	LagMax        float64   `json:"lag_max_seconds"`
	WarningMedian float64   `json:"warning_lag_median_seconds"` // of the later ones
	WarningMax    float64   `json:"warning_lag_max_seconds"`
}

func newLoki(h *history, e *encoding) *loki {
	return &loki{
		history:  h,
		encoding: e,
		seed:     maphash.MakeSeed(),
		streams:  make(map[string]bool),
		others:   make(map[uint64]struct{}),
		changed:  make(chan struct{}),
	}
}

// rooms are buffers for pushes that are being read.
var rooms = sync.Pool{New: func() any { return new(room) }}

type room struct {
	packed  bytes.Buffer
	plain   []byte
	entries []entry
}

// entry is one entry of a push.
type entry struct {
	state int // 0: not one of ours
	hash  uint64
}

func (l *loki) push(w http.ResponseWriter, r *http.Request) {
	at := time.Now()
	room := rooms.Get().(*room)
	defer rooms.Put(room)
	room.packed.Reset()
	if _, err := io.Copy(&room.packed, r.Body); err != nil {
		return // the client has gone
	}
	l.mu.Lock()
	answer, delay := l.answer, l.delay
	if answer != 0 {
		l.received.Refused++
	}
	l.mu.Unlock()
	time.Sleep(delay)
	if answer != 0 {
		http.Error(w, "refused by the benchmark", answer)
		return
	}
	if err := l.count(room, at); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// count reads a push and counts its content.
func (l *loki) count(room *room, at time.Time) (err error) {
	if room.plain, err = snappy.Decode(room.plain[:cap(room.plain)], room.packed.Bytes()); err != nil {
		return fmt.Errorf("push: %w", err)
	}
	var counted int
	room.entries = room.entries[:0]
	streams := make([]string, 0, 1)
	err = fields(room.plain, func(_ protowire.Number, stream []byte) error {
		var labels []byte
		return fields(stream, func(number protowire.Number, value []byte) error {
			if number == 1 {
				labels = value
				streams = append(streams, string(labels))
				return nil
			}
			e, size, err := l.entry(labels, value)
			room.entries = append(room.entries, e)
			counted += size
			return err
		})
	})
	if err != nil {
		return fmt.Errorf("push: %w", err)
	}

	present, _ := l.history.now()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.received.Pushes++
	l.received.Bytes += room.packed.Len()
	l.received.CountedBytes += counted
	for _, s := range streams {
		l.streams[s] = true
	}
	if l.received.First.IsZero() {
		l.received.First = at
	}
	for _, e := range room.entries {
		if l.seen(e) {
			l.received.Repeated++
			continue
		}
		l.received.Entries++
		l.received.Last = at
		switch n := e.state - present.backlog; {
		case e.state == 0 || n > len(present.written): // not one of ours
		case n > 0:
			lag := at.UnixNano() - present.written[n-1]
			l.lags = append(l.lags, lag)
			if l.encoding.warning[l.encoding.object(present.state(e.state).event)] {
				l.warnings = append(l.warnings, lag)
			}
		default:
			l.backlog = append(l.backlog, at.UnixNano())
		}
	}
	close(l.changed)
	l.changed = make(chan struct{})
	return nil
}

// entry reads an entry and returns its size as Loki counts it.
func (l *loki) entry(labels, b []byte) (e entry, counted int, err error) {
	var stamp, line []byte
	err = fields(b, func(number protowire.Number, value []byte) error {
		switch number {
		case 1:
			stamp = value
		case 2:
			line = value
			counted += len(value)
		case 3:
			var name []byte
			return fields(value, func(number protowire.Number, value []byte) error {
				counted += len(value)
				if number == 1 {
					name = value
				} else if string(name) == "event_version" {
					v, err := strconv.Atoi(string(value))
					e.state = max(v-firstVersion, 0)
					return err
				}
				return nil
			})
		}
		return nil
	})
	if _, after, ok := bytes.Cut(line, []byte("eventRV=")); ok && e.state == 0 { // of Grafana Alloy
		number, _, _ := bytes.Cut(after, []byte(" "))
		v, _ := strconv.Atoi(string(number))
		e.state = max(v-firstVersion, 0)
	}
	if e.state == 0 {
		var h maphash.Hash
		h.SetSeed(l.seed)
		for _, part := range [][]byte{labels, stamp, line} {
			_, _ = h.Write(part)
			_ = h.WriteByte(0)
		}
		e.hash = h.Sum64()
	}
	return e, counted, err
}

// seen reports whether an entry has come before, and remembers it. l.mu is held.
func (l *loki) seen(e entry) bool {
	if e.state == 0 {
		before := len(l.others)
		l.others[e.hash] = struct{}{}
		return len(l.others) == before
	}
	word, bit := e.state/64, uint64(1)<<(e.state%64)
	if word >= len(l.states) {
		l.states = append(l.states, make([]uint64, word+1-len(l.states))...)
	}
	seen := l.states[word]&bit != 0
	l.states[word] |= bit
	return seen
}

// now returns the pushes so far, and a channel that is closed at the next.
func (l *loki) now() (received, <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	r := l.received
	r.Streams = len(l.streams)
	return r, l.changed
}

// withLags adds how long states took from their write to here; those that were
// there at the start, from a time that is given. If that is zero, they do not
// count.
func (l *loki) withLags(r received, since time.Time) received {
	l.mu.Lock()
	lags, warnings, backlog := slices.Clone(l.lags), slices.Sorted(slices.Values(l.warnings)), l.backlog
	l.mu.Unlock()
	if !since.IsZero() {
		for _, at := range backlog {
			lags = append(lags, at-since.UnixNano())
		}
	}
	if len(lags) == 0 {
		return r
	}
	slices.Sort(lags)
	at := func(lags []int64, i int) float64 { return time.Duration(lags[i]).Seconds() }
	r.LagMedian, r.LagNinetyNine, r.LagMax = at(lags, len(lags)/2), at(lags, len(lags)*99/100), at(lags, len(lags)-1)
	if n := len(warnings); n > 0 {
		r.WarningMedian, r.WarningMax = at(warnings, n/2), at(warnings, n-1)
	}
	return r
}

// behave sets the response to pushes.
func (l *loki) behave(answer int, delay time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.answer, l.delay = answer, delay
}

var errTruncated = errors.New("not a PushRequest")

// fields calls visit with each field of a message that has a length, as all have
// that are read here.
func fields(b []byte, visit func(number protowire.Number, value []byte) error) error {
	for len(b) > 0 {
		number, kind, n := protowire.ConsumeTag(b)
		if n < 0 {
			return errTruncated
		}
		m := protowire.ConsumeFieldValue(number, kind, b[n:])
		if m < 0 {
			return errTruncated
		}
		if kind == protowire.BytesType {
			value, _ := protowire.ConsumeBytes(b[n:])
			if err := visit(number, value); err != nil {
				return err
			}
		}
		b = b[n+m:]
	}
	return nil
}
