package audit

import (
	"testing"
	"time"

	"github.com/hindsight-events/hindsight/event"
	"github.com/hindsight-events/hindsight/event/format"
)

// TestParseGap checks that gap records are parsed in every format.
func TestParseGap(t *testing.T) {
	noon := time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)
	from, to := event.Position{Version: 100, Time: noon.Add(-time.Minute)}, event.Position{Version: 900, Time: noon}
	tests := map[string]struct {
		gap  event.Gap
		want gap
	}{
		"all namespaces": {
			event.Gap{From: from, To: to, Cause: event.CauseOverflow, MissedAtLeast: 2},
			gap{from: 100, to: 900, end: noon},
		},
		"one namespace": {
			event.Gap{Source: "team-a", From: from, To: to, Cause: event.CauseTooOld},
			gap{namespace: "team-a", from: 100, to: 900, end: noon},
		},
		"no times": {
			event.Gap{From: event.Position{Version: 100}, To: event.Position{Version: 900, Time: noon}, Cause: event.CauseDamage},
			gap{from: 100, to: 900, end: noon},
		},
		"no begin": {
			event.Gap{To: to, Cause: event.CauseOtherCluster},
			gap{to: 900, end: noon},
		},
		"no end": {
			event.Gap{From: from, To: event.Position{Time: noon}, Cause: event.CauseDamage},
			gap{from: 100, end: noon},
		},
		"open": {
			event.Gap{From: from, To: event.Position{Time: noon}, Cause: event.CauseStalled},
			gap{from: 100, end: noon, open: true},
		},
		"ended stall": {
			event.Gap{From: from, To: to, Cause: event.CauseStalled},
			gap{from: 100, to: 900, end: noon},
		},
	}
	for name, tt := range tests {
		for _, encoding := range []format.Format{format.Logfmt, format.JSON, format.EventRouter, format.Text} {
			t.Run(name+"/"+string(encoding), func(t *testing.T) {
				record := event.NewGap(tt.gap)
				entry := format.Entry{
					Time:   record.Time,
					Line:   string(format.Encoder{Format: encoding}.Append(nil, &record)),
					Labels: map[string]string{"namespace": "monitoring", "reason": "HindsightGap"},
				}
				entry.Metadata = map[string]string{}
				for _, p := range record.AppendMetadata(nil, event.DefaultLabels) {
					entry.Metadata[p.Name] = p.Value
				}
				r, err := format.Parser{}.Parse(entry)
				if err != nil {
					t.Fatal(err)
				}
				if !r.Gap {
					t.Fatal("not recognized as a gap record")
				}
				got := parseGap(r.Event, r.Time)
				if encoding != format.Text && got.cause != string(tt.gap.Cause) {
					t.Errorf("cause %q", got.cause)
				}
				got.cause = ""
				if got != tt.want {
					t.Errorf("%+v, want %+v", got, tt.want)
				}
			})
		}
	}
}

func TestGapContains(t *testing.T) {
	noon := time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)
	tests := map[string]struct {
		gap     gap
		version string
		at      time.Time
		want    bool
	}{
		"from":               {gap{from: 100, to: 200}, "100", noon, false},
		"after from":         {gap{from: 100, to: 200}, "101", noon, true},
		"to":                 {gap{from: 100, to: 200}, "200", noon, true},
		"after to":           {gap{from: 100, to: 200}, "201", noon, false},
		"another namespace":  {gap{namespace: "b", from: 100, to: 200}, "150", noon, false},
		"its namespace":      {gap{namespace: "a", from: 100, to: 200}, "150", noon, true},
		"ends by time":       {gap{from: 100, end: noon}, "150", noon, true},
		"open":               {gap{from: 100, end: noon, open: true}, "150", noon.Add(1), true},
		"after the end time": {gap{from: 100, end: noon}, "150", noon.Add(1), false},
		"no version":         {gap{to: 200}, "", noon, false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if got := tt.gap.contains(&state{namespace: "a", version: tt.version, at: tt.at}); got != tt.want {
				t.Errorf("%v, want %v", got, tt.want)
			}
		})
	}
}
