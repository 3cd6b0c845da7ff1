package fakeloki_test

import (
	"net/http"
	"net/url"
	"testing"
	"time"

	"github.com/hindsight-events/hindsight/test/fakeloki"
)

func TestScriptedPushes(t *testing.T) {
	t.Parallel()
	s := fakeloki.Start(t, fakeloki.Options{})
	l := loki{url: s.URL}
	old := []stream{{`{case="script"}`, []entry{{age: 1000 * time.Hour, line: "old"}}}}
	s.ScriptPushes(fakeloki.Times(1, fakeloki.Respond(http.StatusTeapot, "no")))
	l.push(t, old, http.StatusTeapot, "^no$")
	l.push(t, old, http.StatusNoContent, "^$")
	s.ScriptPushes(nil)
	l.push(t, old, http.StatusBadRequest, "too old")
	pushes := s.Pushes()
	if len(pushes) != 3 || pushes[0].Status != http.StatusTeapot || pushes[1].Status != http.StatusNoContent || pushes[2].Status != http.StatusBadRequest {
		t.Fatalf("pushes are %+v", pushes)
	}
	if e := pushes[0].Entries(); len(e) != 1 || e[0].Line != "old" {
		t.Errorf("entries are %+v", e)
	}
	if n := len(s.Entries()); n != 1 {
		t.Errorf("%d entries are stored, want 1", n)
	}
}

func TestFlush(t *testing.T) {
	t.Parallel()
	s := fakeloki.Start(t, fakeloki.Options{})
	l := loki{url: s.URL}
	last := now.Truncate(time.Millisecond).Add(500)
	s.Store(fakeloki.Entry{Time: last, Line: "a", Labels: map[string]string{"case": "flush"}})
	s.Flush()
	s.Store(fakeloki.Entry{Time: last, Line: "b", Labels: map[string]string{"case": "flush"}})
	for start, want := range map[time.Time]int{last.Add(-time.Millisecond): 2, last: 1} {
		if got := l.lines(t, `{case="flush"}`, url.Values{"start": {ns(now.Sub(start))}}); len(got) != want {
			t.Errorf("a query from %v finds %q, want %d lines", start, got, want)
		}
	}
}
