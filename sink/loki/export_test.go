package loki

import (
	"testing"

	"github.com/golang/snappy"

	"github.com/hindsight-events/hindsight/event"
)

// Encode returns the body of a push.
func Encode(stream string, entries ...[]byte) []byte { return encode(stream, entries...) }

// ParsesRejection reports whether a body is a rejection of single entries.
func ParsesRejection(body string) bool {
	_, ok := parseRejection(blankQuoted(body))
	return ok
}

// CheckRejection checks that not more entries are rejected than a response reports, except for
// entries of unknown state.
func CheckRejection(t *testing.T, body string, records []event.Record, tooManyRequests bool) {
	t.Helper()
	enc := encoder{metadata: true}
	entries := make([]entry, len(records))
	for i := range records {
		e, err := decode(enc.append(nil, &records[i]))
		if err != nil {
			t.Fatal(err)
		}
		entries[i] = e
	}
	status := 400
	if tooManyRequests {
		status = 429
	}
	r := (&client{}).classify(response{status: status, body: body})
	if r.outcome == pushAccepted {
		t.Fatal("classified as accepted")
	}
	if r.outcome != pushPartlyRejected {
		return
	}
	statuses, ok := r.rejection.statuses(entries)
	if !ok {
		return
	}
	reported := r.rejection.total
	for _, g := range r.rejection.groups {
		reported += g.count
	}
	rejected := 0
	for _, st := range statuses {
		if st.state == entryRejected {
			rejected++
		}
		if (st.state == entryRejected || st.state == entryUnknown) && st.reason == "" {
			t.Error("rejected without a reason")
		}
	}
	if rejected > reported {
		t.Errorf("%d entries are rejected, %d were reported: %q", rejected, reported, body)
	}
}

// Decode decodes an entry.
func Decode(b []byte) error {
	_, err := decode(b)
	return err
}

// AgeConnections makes the next push open a new connection.
func (s *Sink) AgeConnections() {
	s.client.mu.Lock()
	defer s.client.mu.Unlock()
	s.client.since = s.client.since.Add(-renewAfter)
}

// Stream is a stream of a push, with one entry.
type Stream struct {
	Labels string
	Entry  []byte
}

// EncodeShared returns the body of a push of several streams, which the sink never sends: a
// message is the concatenation of its repeated fields.
func EncodeShared(streams ...Stream) []byte {
	var request []byte
	for _, s := range streams {
		request = appendRequest(request, s.Labels, s.Entry)
	}
	return snappy.Encode(nil, request)
}
