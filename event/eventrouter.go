package event

import "encoding/json"

// appendEventRouter writes the line of heptio/eventrouter: what encoding/json
// makes of the Event, under "event". Where the record's time cannot be read from
// that, a standalone line has "time" as well.
func appendEventRouter(dst []byte, r *Record, standalone bool) []byte {
	dst = append(dst, `{"verb":"`...)
	dst = append(dst, r.Verb()...)
	dst = append(dst, `","event":`...)
	body, err := json.Marshal(r.Event)
	if err != nil {
		// Of an Event only managedFields could fail, and New drops them; were
		// it to happen, the line shows it.
		body, _ = json.Marshal(map[string]string{"error": err.Error()})
	}
	// What encoding/json leaves as it is, such as DEL and bidirectional
	// overrides, is inside a string and so may be escaped there.
	dst = appendEscaped(dst, string(body))
	at, resolution := observedTime(r.Event)
	if standalone && !at.Equal(r.Time.Truncate(resolution)) {
		dst = append(dst, `,"time":"`...)
		dst = appendTime(dst, r.Time)
		dst = append(dst, '"')
	}
	return append(dst, '}')
}
