package event

import (
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// appendText writes what a person would say: "Preempted Pod/ingester-x: by
// team-a/querier-y on node n".
func appendText(dst []byte, r *Record, standalone bool) []byte {
	e := r.Event
	start := len(dst)
	word := func(s string) {
		if s == "" {
			return
		}
		if len(dst) > start {
			dst = append(dst, ' ')
		}
		dst = appendEscaped(dst, s)
	}
	if standalone {
		if !r.Time.IsZero() {
			dst = appendTime(dst, r.Time)
		}
		word(e.Namespace)
		if e.Type != corev1.EventTypeNormal {
			word(e.Type)
		}
	}
	word(e.Reason)
	object := objectName(&corev1.ObjectReference{Kind: e.InvolvedObject.Kind, Name: e.InvolvedObject.Name})
	if object == "" {
		object = objectName(&corev1.ObjectReference{Kind: "Event", Name: e.Name})
	}
	word(object)
	if m := withoutReason(e.Message, e.Reason); m != "" {
		if len(dst) > start {
			dst = append(dst, ':')
		}
		word(m)
	}
	if e.Related != nil {
		word("(" + objectName(e.Related) + ")")
	}
	if standalone {
		if n := count(e); n > 1 {
			word("(x" + strconv.Itoa(int(n)) + ")")
		}
		if !r.ObservedTime.IsZero() {
			word("(observed at " + r.Value(FieldObservedTime) + ", " + tooFar + ")")
		}
	}
	return dst
}

// withoutReason returns the message without the reason it may begin with.
func withoutReason(message, reason string) string {
	if reason == "" || len(message) < len(reason) || !strings.EqualFold(message[:len(reason)], reason) {
		return message
	}
	rest := message[len(reason):]
	trimmed := strings.TrimLeft(rest, ": ")
	if rest != "" && trimmed == rest {
		return message // the reason is only the beginning of a longer word
	}
	return trimmed
}
