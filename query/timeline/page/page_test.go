package page

import (
	"bytes"
	"encoding/json"
	"html"
	"regexp"
	"strings"
	"testing"

	"github.com/hindsight-events/hindsight/query/timeline"
)

// What an Event contains neither ends the block of data nor begins markup, and the data are those of
// the Timeline.
func TestDataStayData(t *testing.T) {
	hostile := "</script><script>alert(1)</script><!--<script>]]>\u2028&amp;\"'\x00\u202e"
	tl := &timeline.Timeline{
		Version: timeline.Version, Title: hostile, Query: timeline.Query{For: hostile, Zone: "UTC"},
		Objects: []timeline.Object{{Kind: hostile, Name: hostile, Owner: timeline.None}},
		Events:  []timeline.Event{{Type: hostile, Reason: hostile, Message: hostile, Node: timeline.None}},
		Rows:    []timeline.Row{{Summary: hostile, Reason: hostile, By: timeline.None, Events: []int{0}}},
	}
	got := written(t, tl)
	if n := strings.Count(got, "<script"); n != 2 {
		t.Errorf("%d scripts, want the data and the page's own", n)
	}
	if n := strings.Count(got, "</script"); n != 2 {
		t.Errorf("scripts end %d times", n)
	}
	_, rest, _ := strings.Cut(got, `<script type="application/json" id="data">`)
	block, _, _ := strings.Cut(rest, "</script>")
	if strings.ContainsAny(block, "<>&\u2028\u2029") {
		t.Errorf("the data contain markup: %s", block)
	}
	var again timeline.Timeline
	if err := json.Unmarshal([]byte(block), &again); err != nil {
		t.Fatal(err)
	}
	if again.Title != hostile || again.Events[0].Message != hostile || again.Rows[0].Summary != hostile {
		t.Errorf("the data are %+v", again)
	}
}

// The policy allows the page's script and style by hash, and nothing else.
func TestPolicy(t *testing.T) {
	got := written(t, &timeline.Timeline{Title: "test"})
	content := regexp.MustCompile(`http-equiv="Content-Security-Policy" content="([^"]*)"`).FindStringSubmatch(got)
	if content == nil {
		t.Fatal("no policy")
	}
	policy := html.UnescapeString(content[1])
	for _, tag := range []string{"style", "script"} {
		body := regexp.MustCompile(`(?s)<` + tag + `>(.*?)</` + tag + `>`).FindStringSubmatch(got)
		if body == nil {
			t.Fatalf("no %s", tag)
		}
		if want := tag + "-src " + source(body[1]); !strings.Contains(policy, want+";") {
			t.Errorf("the policy %q lacks %q", policy, want)
		}
	}
	for _, want := range []string{"default-src 'none';", "base-uri 'none';", "form-action 'none';"} {
		if !strings.Contains(policy, want) {
			t.Errorf("the policy %q lacks %q", policy, want)
		}
	}
	if strings.Contains(policy, "unsafe") {
		t.Errorf("the policy is %q", policy)
	}
}

// The scripts use nothing that parses a string as HTML, runs one, or loads anything.
func TestScriptsHaveNoSinks(t *testing.T) {
	sinks := regexp.MustCompile(`innerHTML|outerHTML|insertAdjacentHTML|document\.write|createContextualFragment|DOMParser|\beval\b|new Function|fetch\(|XMLHttpRequest|sendBeacon|WebSocket|EventSource|import\(|\.src\b|\.href\b|cssText|setAttributeNS`)
	if found := sinks.FindAllString(script, -1); found != nil {
		t.Errorf("the scripts use %q", found)
	}
	if found := regexp.MustCompile(`url\(|@import`).FindAllString(style, -1); found != nil {
		t.Errorf("the style uses %q", found)
	}
}

func written(t *testing.T, tl *timeline.Timeline) string {
	t.Helper()
	var b bytes.Buffer
	if err := Write(&b, tl); err != nil {
		t.Fatal(err)
	}
	return b.String()
}
