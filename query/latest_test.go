package query

import (
	"testing"

	"github.com/hindsight-events/hindsight/event/format"
)

func TestLatestOnly(t *testing.T) {
	state := func(uid, version, count string) *format.Record {
		return record(t, "time=2026-03-06T11:59:30Z name=x kind=Pod reason=A event_uid="+uid+" eventRV="+version+" count="+count)
	}
	l := newLatestOnly()
	l.limit = 2
	for _, r := range []*format.Record{state("a", "10", "7"), state("a", "30", "1"), state("a", "20", "9"), state("b", "12", "0")} {
		l.observe(r)
	}
	for _, c := range []struct {
		r    *format.Record
		want bool
	}{
		{state("a", "10", "7"), true},
		{state("a", "20", "9"), true},
		{state("a", "30", "1"), false},
		{state("a", "40", "1"), false},
		{state("b", "12", "0"), false},
		{state("c", "1", "1"), false},
	} {
		if got := l.hides(c.r); got != c.want {
			t.Errorf("version %s of %s: hidden %v, want %v", c.r.Event.ResourceVersion, c.r.Event.UID, got, c.want)
		}
	}
	if l.markPrinted(state("a", "30", "1")); !l.hides(state("a", "30", "1")) || l.hides(state("a", "31", "1")) {
		t.Error("want a printed state hidden, and a later one not")
	}
	if l.full {
		t.Error("full at the limit")
	}
	if l.observe(state("c", "50", "2")); !l.full || l.hides(state("c", "40", "1")) {
		t.Error("an Event beyond the limit is tracked")
	}
}

func TestRecentKeys(t *testing.T) {
	s := newRecentKeys(100)
	for i := range 1000 {
		k := key{byte(i), byte(i >> 8)}
		if s.add(k) {
			t.Fatalf("%d was reported before it was added", i)
		}
		if !s.add(k) {
			t.Fatalf("%d was not remembered", i)
		}
		if n := len(s.newer) + len(s.older); n > 200 {
			t.Fatalf("%d keys are held", n)
		}
		for back := range min(i, 99) {
			k := key{byte(i - back), byte((i - back) >> 8)}
			_, newer := s.newer[k]
			if _, older := s.older[k]; !newer && !older {
				t.Fatalf("%d was forgotten after %d", i-back, i)
			}
		}
	}
}
