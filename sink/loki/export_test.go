package loki

import (
	"testing"

	"github.com/hindsight-events/hindsight/event"
)

// Encode is the body of a push.
func Encode(stream string, entries ...[]byte) []byte { return encode(stream, entries...) }

// Understands reports whether a body names the entries that were refused.
func Understands(body string) bool {
	_, ok := parseRejection(blankQuoted(body))
	return ok
}

// CheckRefusal checks that no answer has more entries given up than it says are
// refused, unless they are called suspect.
func CheckRefusal(t *testing.T, body string, records []event.Record, busy bool) {
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
	if busy {
		status = 429
	}
	v := (&client{}).classify(response{status: status, body: body})
	if v.outcome == pushAccepted {
		t.Fatal("taken for a success")
	}
	if v.outcome != pushPartlyRejected {
		return
	}
	fates, ok := v.rejection.statuses(entries)
	if !ok {
		return
	}
	said := v.rejection.total
	for _, g := range v.rejection.groups {
		said += g.count
	}
	given := 0
	for _, f := range fates {
		if f.kind == entryRejected {
			given++
		}
		if (f.kind == entryRejected || f.kind == entryUnknown) && f.reason == "" {
			t.Error("given up without a reason")
		}
	}
	if given > said {
		t.Errorf("%d entries are given up, %d were refused: %q", given, said, body)
	}
}

// Decode is what a refusal is matched against.
func Decode(b []byte) error {
	_, err := decode(b)
	return err
}

// Age makes the connections so old that the next push needs new ones.
func (s *Sink) Age() {
	s.client.mu.Lock()
	defer s.client.mu.Unlock()
	s.client.since = s.client.since.Add(-renewAfter)
}
