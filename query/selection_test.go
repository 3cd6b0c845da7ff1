package query

import (
	"strings"
	"testing"

	"github.com/hindsight-events/hindsight/event"
	"github.com/hindsight-events/hindsight/query/line"
)

func TestLogQL(t *testing.T) {
	bare := func(f event.Format) Layout {
		l := DefaultLayout()
		l.Format, l.Metadata = f, false
		return l
	}
	other := DefaultLayout()
	other.Job = "events"
	other.Labels = map[string]string{"ns": "namespace", "kind": "kind"}
	other.Fixed = map[string]string{"team": "a"}
	for name, c := range map[string]struct {
		filter Filter
		layout Layout
		want   string
	}{
		"everything":     {Filter{}, DefaultLayout(), `{job="hindsight"}`},
		"of a namespace": {Filter{Namespace: "prod", Types: []string{"warning"}}, DefaultLayout(), `{job="hindsight", namespace="prod"} | type="Warning"`},
		"about an object": {
			Filter{Namespace: "prod", For: "deploy/web"},
			DefaultLayout(),
			`{job="hindsight", namespace="prod"} | kind="Deployment" | name="web"`,
		},
		"about an object of a kind that is not known": {
			Filter{For: "certificates.cert-manager.io/a"},
			DefaultLayout(),
			`{job="hindsight"} | kind=~"(?i:certificate(s|es)?)" | name="a"`,
		},
		// The label is "other" where a reason is not fit to be one.
		"of a reason": {
			Filter{Reasons: []string{"BackOff"}},
			DefaultLayout(),
			`{job="hindsight", reason=~"BackOff|other"} | reason="BackOff" or full_reason="BackOff"`,
		},
		"of several": {
			Filter{Reasons: []string{"A", "B.c"}},
			DefaultLayout(),
			"{job=\"hindsight\", reason=~`A|B\\.c|other`} | reason=~`A|B\\.c` or full_reason=~`A|B\\.c`",
		},
		"of all but a reason": {
			Filter{Selector: `{reason!="Pulled"}`},
			DefaultLayout(),
			`{job="hindsight", reason!="Pulled"} | full_reason!="Pulled"`,
		},
		"of a cluster and a node": {Filter{Cluster: "eu", Node: "n-1"}, DefaultLayout(), `{job="hindsight", cluster="eu"} | node="n-1"`},
		"a job of one's own":      {Filter{Selector: `{job=~".+", team="b"}`}, DefaultLayout(), `{job=~".+", team="b"}`},
		"a text":                  {Filter{Grep: "exceeded quota"}, DefaultLayout(), `{job="hindsight"} |= "exceeded quota"`},
		"a text that a line escapes": {
			Filter{Grep: `say "hi"`},
			DefaultLayout(),
			"{job=\"hindsight\"} | logfmt event_message=\"msg\" | event_message=~`(?s:.*)(?:say \"hi\")(?s:.*)`",
		},
		"a pattern, last": {
			Filter{Grep: "a|b", Types: []string{"Normal"}},
			DefaultLayout(),
			`{job="hindsight"} | type="Normal" | logfmt event_message="msg" | event_message=~"(?s:.*)(?:a|b)(?s:.*)"`,
		},
		"other labels":                 {Filter{Namespace: "prod", For: "po/x"}, other, `{job="events", team="a", ns="prod", kind="Pod"} | name="x"`},
		"a reason that is no label":    {Filter{Reasons: []string{"A"}}, other, `{job="events", team="a"} | logfmt event_reason="reason" | event_reason="A"`},
		"without metadata":             {Filter{For: "pod/x"}, bare(event.JSON), `{job="hindsight"} | json event_kind="kind", event_name="name" | event_kind="Pod" | event_name="x"`},
		"without metadata, whole":      {Filter{For: "pod/x"}, bare(event.EventRouter), `{job="hindsight"} | json event_kind="event.involvedObject.kind", event_name="event.involvedObject.name" | event_kind="Pod" | event_name="x"`},
		"without metadata, a sentence": {Filter{For: "pod/x", Namespace: "a"}, bare(event.Text), `{job="hindsight", namespace="a"}`},
	} {
		t.Run(name, func(t *testing.T) {
			s, err := NewSelection(c.filter)
			if err != nil {
				t.Fatal(err)
			}
			if got := s.LogQL(c.layout); got != c.want {
				t.Errorf("\n%s\nwant\n%s", got, c.want)
			}
		})
	}
}

func TestMatch(t *testing.T) {
	r := record(t, backOff)
	r.Labels = map[string]string{"cluster": "eu"}
	for name, c := range map[string]struct {
		filter Filter
		want   bool
	}{
		"nothing asked":       {Filter{}, true},
		"namespace":           {Filter{Namespace: "prod"}, true},
		"another namespace":   {Filter{Namespace: "dev"}, false},
		"short kind":          {Filter{For: "po/web-0"}, true},
		"plural":              {Filter{For: "pods/web-0"}, true},
		"unknown kind":        {Filter{For: "podlings/web-0"}, false},
		"type":                {Filter{Types: []string{"WARNING"}}, true},
		"other type":          {Filter{Types: []string{"Normal"}}, false},
		"one of the reasons":  {Filter{Reasons: []string{"Pulled", "BackOff"}}, true},
		"node":                {Filter{Node: "n-1"}, true},
		"message":             {Filter{Grep: "^Back-off"}, true},
		"not in the message":  {Filter{Grep: "web-0"}, false},
		"selector":            {Filter{Selector: `{kind="Pod", reason=~"Back.*", component="kubelet"}`}, true},
		"label":               {Filter{Selector: `{cluster=~"e."}`}, true},
		"other cluster":       {Filter{Cluster: "us"}, false},
		"anchored expression": {Filter{Selector: `{reason=~"Back"}`}, false},
	} {
		s, err := NewSelection(c.filter)
		if err != nil {
			t.Fatal(err)
		}
		if got := s.Match(r); got != c.want {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}

func TestWhatCannotBeAsked(t *testing.T) {
	for want, f := range map[string]Filter{
		`--for: "web-0" is no object; write it as in pod/web-0`:                     {For: "web-0"},
		`--types: "Error" is no type of Event; they are Normal and Warning`:         {Types: []string{"Error"}},
		"--grep: error parsing regexp: missing closing ): `(`":                      {Grep: "("},
		"-l `Preempted`: write it in braces, as in {reason=~\"Preempted|Evicted\"}": {Selector: "Preempted"},
	} {
		if _, err := NewSelection(f); err == nil || err.Error() != want {
			t.Errorf("%v, want %s", err, want)
		}
	}
	s, err := NewSelection(Filter{Cluster: "eu"})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.CheckFiles(); err == nil || !strings.Contains(err.Error(), "cluster") {
		t.Errorf("files are asked for labels: %v", err)
	}
}

func TestFold(t *testing.T) {
	state := func(uid, version, count string) *line.Record {
		return record(t, "time=2026-03-06T11:59:30Z name=x kind=Pod reason=A event_uid="+uid+" eventRV="+version+" count="+count)
	}
	f := newFold()
	f.most = 2
	for _, r := range []*line.Record{state("a", "10", "7"), state("a", "30", "1"), state("a", "20", "9"), state("b", "12", "0")} {
		f.note(r)
	}
	for _, c := range []struct {
		r    *line.Record
		want bool
	}{
		{state("a", "10", "7"), true},
		{state("a", "20", "9"), true},
		{state("a", "30", "1"), false},
		{state("a", "40", "1"), false},
		{state("b", "12", "0"), false},
		{state("c", "1", "1"), false},
	} {
		if got := f.hides(c.r); got != c.want {
			t.Errorf("%s of %s is hidden: %v, want %v", c.r.Event.ResourceVersion, c.r.Event.UID, got, c.want)
		}
	}
	if f.shown(state("a", "30", "1")); !f.hides(state("a", "30", "1")) || f.hides(state("a", "31", "1")) {
		t.Error("a state that was shown is not hidden, or a later one is")
	}
	if f.full {
		t.Error("it is full with as many as may be held")
	}
	if f.note(state("c", "50", "2")); !f.full || f.hides(state("c", "40", "1")) {
		t.Error("more is held than may be")
	}
}

func TestRecent(t *testing.T) {
	s := newRecent(100)
	for i := range 1000 {
		k := key{byte(i), byte(i >> 8)}
		if s.add(k) {
			t.Fatalf("%d is known before it was added", i)
		}
		if !s.add(k) {
			t.Fatalf("%d is forgotten at once", i)
		}
		if n := len(s.newer) + len(s.before); n > 200 {
			t.Fatalf("%d are held", n)
		}
		for back := range min(i, 99) {
			k := key{byte(i - back), byte((i - back) >> 8)}
			_, newer := s.newer[k]
			if _, before := s.before[k]; !newer && !before {
				t.Fatalf("%d is forgotten at %d", i-back, i)
			}
		}
	}
}
