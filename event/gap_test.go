package event

import (
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"
)

func TestTheSameGapIsTheSameRecord(t *testing.T) {
	a, b := NewGap(exampleGap()), NewGap(exampleGap())
	if !reflect.DeepEqual(a, b) {
		t.Errorf("got %+v and %+v", a, b)
	}
	if !regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-8[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`).MatchString(string(a.Event.UID)) {
		t.Errorf("%q is not a UUID of version 8", a.Event.UID)
	}
	for name, change := range map[string]func(*Gap){
		"source": func(g *Gap) { g.Source = "team-a" },
		"from":   func(g *Gap) { g.From.Version++ },
		"to":     func(g *Gap) { g.To.Version++ },
		"epoch":  func(g *Gap) { g.To.Epoch.Restores++ },
	} {
		g := exampleGap()
		change(&g)
		if r := NewGap(g); r.Event.UID == a.Event.UID || r.Event.Name == a.Event.Name {
			t.Errorf("a different %s gives the same Event %s %s", name, r.Event.Name, r.Event.UID)
		}
	}
}

func TestGapRecordRoundTrip(t *testing.T) {
	g := exampleGap()
	g.Sink = "loki"
	r := NewGap(g)
	if got := roundTrip(t, &r); everything(t, got) != everything(t, r) || !got.Gap || got.OnlySink != "loki" {
		t.Errorf("got %+v, want %+v", got, r)
	}
}

func TestGapTime(t *testing.T) {
	g := exampleGap()
	if r := NewGap(g); !r.Time.Equal(g.To.Time) {
		t.Errorf("got %s, want the time of To, %s", r.Time, g.To.Time)
	}
	g.To.Time = time.Time{}
	if r := NewGap(g); !r.Time.Equal(g.From.Time) {
		t.Errorf("got %s, want the time of From, %s", r.Time, g.From.Time)
	}
	g.From.Time = time.Time{}
	if r := NewGap(g); !r.Time.IsZero() {
		t.Errorf("got %s, want none", r.Time)
	}
}

func TestGapMessage(t *testing.T) {
	for _, tt := range []struct {
		name string
		gap  Gap
		want string
	}{
		{
			"everything known", exampleGap(),
			"Events of all namespaces may have been missed between 2026-03-06T14:05:44Z (version 48377) and 2026-03-06T14:38:10Z (version 51017): ",
		},
		{
			"one namespace, no times",
			Gap{Source: "team-a", From: Position{Version: 5}, To: Position{Version: 9}, Cause: CauseRestored},
			"Events of namespace team-a may have been missed between version 5 and version 9: ",
		},
		{
			"nothing known",
			Gap{Cause: CauseDamage},
			"Events of all namespaces may have been missed between the start and now: a part of the journal could not be read",
		},
		{
			"one missing",
			Gap{Cause: CauseOverflow, MissedAtLeast: 1},
			"Events of all namespaces may have been missed between the start and now: the journal was full because the destination was too slow; at least 1 is missing",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := NewGap(tt.gap).Event.Message; !strings.HasPrefix(got, tt.want) {
				t.Errorf("got  %q\nwant %q…", got, tt.want)
			}
		})
	}
}

func exampleGap() Gap {
	return Gap{
		Namespace: "monitoring",
		From: Position{
			Epoch:   Epoch{Cluster: "8d1c9c9e-7a3c-4a55-8f3e-2a1b3c4d5e6f"},
			Version: 48377,
			Time:    time.Date(2026, 3, 6, 14, 5, 44, 0, time.UTC),
		},
		To: Position{
			Epoch:   Epoch{Cluster: "8d1c9c9e-7a3c-4a55-8f3e-2a1b3c4d5e6f"},
			Version: 51017,
			Time:    time.Date(2026, 3, 6, 14, 38, 10, 0, time.UTC),
		},
		Cause:         CauseTooOld,
		MissedAtLeast: 12,
	}
}
