package audit

import (
	"encoding/json"
	"strings"
	"testing"
	"time"
)

func TestWrite(t *testing.T) {
	r := &Result{
		Time: time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC), Compared: 4, Found: 1, Missing: 2, Mistimed: 1,
		Explained: map[string]int{Dropped: 1}, Findings: []Finding{}, limit: 1, listed: map[group]int{},
	}
	s := &state{
		namespace: "team-a", name: "web-0.17a", uid: "1", version: "100", kind: "Pod", object: "web-0",
		eventReason: "Odd\x1b[31m", at: time.Date(2026, 1, 2, 11, 59, 59, 100, time.UTC),
	}
	r.add(s, Missing, "", "the reason is not known")
	r.add(s, Missing, "", "the reason is not known")
	r.add(s, Explained, Dropped, `{kind="Pod"}`)
	var text strings.Builder
	if err := r.WriteText(&text); err != nil {
		t.Fatal(err)
	}
	want := `missing    team-a/web-0.17a "Odd\x1b[31m" Pod/web-0, version 100, 2026-01-02T11:59:59.0000001Z: the reason is not known
explained  team-a/web-0.17a "Odd\x1b[31m" Pod/web-0, version 100, 2026-01-02T11:59:59.0000001Z: dropped by rule: {kind="Pod"}
missing    … and 1 more
2026-01-02T12:00:00Z: 4 Events compared, 1 found, 2 missing, 0 repeated, 1 mistimed, 0 altered, 1 explained (1 dropped by rule)
`
	if text.String() != want {
		t.Errorf("text\n%s\nwant\n%s", text.String(), want)
	}

	var b strings.Builder
	if err := r.WriteJSON(&b); err != nil {
		t.Fatal(err)
	}
	if strings.Count(b.String(), "\n") != 1 {
		t.Errorf("want one line, got\n%s", b.String())
	}
	var got struct {
		Time                     time.Time
		Compared, Found, Missing int
		Explained                map[string]int
		Findings                 []struct{ Finding, Why, Detail, Namespace, Name, UID, Version, Object, Reason string }
	}
	if err := json.Unmarshal([]byte(b.String()), &got); err != nil {
		t.Fatal(err)
	}
	if got.Compared != 4 || got.Missing != 2 || got.Explained[Dropped] != 1 || len(got.Findings) != 2 {
		t.Errorf("JSON %s", b.String())
	}
	if f := got.Findings[1]; f.Finding != "explained" || f.Why != Dropped || f.Name != "web-0.17a" || f.Object != "Pod/web-0" || f.Reason != "Odd\x1b[31m" {
		t.Errorf("finding %+v", f)
	}
}
