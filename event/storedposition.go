package event

import (
	"cmp"
	"encoding/json"
	"fmt"
	"strconv"
	"time"
)

// StoredPosition is a Position in JSON, as checkpoints and cursors store it.
type StoredPosition struct {
	Epoch   string     `json:"epoch,omitempty"` // empty: the document's
	Version uint64     `json:"version,omitempty"`
	Listed  uint64     `json:"listed,omitempty"`
	Time    StoredTime `json:"time,omitzero"`
}

// Stored returns the stored form of p in a document with the given default epoch.
func (p Position) Stored(epoch string) StoredPosition {
	s := StoredPosition{Epoch: p.Epoch.String(), Version: p.Version, Listed: p.ListVersion}
	if s.Epoch == epoch {
		s.Epoch = ""
	}
	if t := p.Time.UTC(); hasRFC3339(t) {
		s.Time = StoredTime{t}
	}
	return s
}

// Position is the inverse of Stored.
func (s StoredPosition) Position(epoch string) (Position, error) {
	e, err := ParseEpoch(cmp.Or(s.Epoch, epoch))
	return Position{Epoch: e, Version: s.Version, ListVersion: s.Listed, Time: s.Time.Time}, err
}

// StoredTime is a time in JSON: RFC 3339 in UTC, in whole seconds.
type StoredTime struct{ time.Time }

// MarshalJSON writes RFC 3339.
func (t StoredTime) MarshalJSON() ([]byte, error) {
	return json.Marshal(t.UTC().Format(time.RFC3339))
}

// UnmarshalJSON reads RFC 3339, or a number of seconds since 1970.
func (t *StoredTime) UnmarshalJSON(b []byte) error {
	if seconds, err := strconv.ParseInt(string(b), 10, 64); err == nil {
		t.Time = time.Unix(seconds, 0).UTC()
		return nil
	}
	var s string
	if err := json.Unmarshal(b, &s); err != nil {
		return err
	}
	parsed, err := time.Parse(time.RFC3339, s)
	if err != nil {
		return fmt.Errorf("parse time: %w", err)
	}
	if parsed = parsed.UTC().Truncate(time.Second); !hasRFC3339(parsed) {
		return fmt.Errorf("parse time: %s is out of range", s)
	}
	t.Time = parsed
	return nil
}

// hasRFC3339 reports whether a time can be written in RFC 3339, with a year of four digits.
func hasRFC3339(t time.Time) bool { return t.Year() >= 1 && t.Year() <= 9999 }
