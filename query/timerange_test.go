package query

import (
	"testing"
	"time"
)

func TestParseTimeExpr(t *testing.T) {
	zone := time.FixedZone("CET", 3600)
	now := time.Date(2026, 3, 6, 14, 30, 0, 0, zone) // a Friday
	at := func(year int, month time.Month, day, hour, minute int) time.Time {
		return time.Date(year, month, day, hour, minute, 0, 0, zone)
	}
	for text, want := range map[string]timeExpr{
		"2026-03-01":                   {at: at(2026, 3, 1, 0, 0), wholeDay: true, zoneAssumed: true},
		"2026-03-01 15:04":             {at: at(2026, 3, 1, 15, 4), zoneAssumed: true},
		"2026-03-01T15:04":             {at: at(2026, 3, 1, 15, 4), zoneAssumed: true},
		"2026/03/01 15:04:05":          {at: at(2026, 3, 1, 15, 4).Add(5 * time.Second), zoneAssumed: true},
		"2026-03-01T15:04:05Z":         {at: time.Date(2026, 3, 1, 15, 4, 5, 0, time.UTC)},
		"2026-03-01T15:04:05.25+02:00": {at: time.Date(2026, 3, 1, 13, 4, 5, 25e7, time.UTC)},
		"2026-03-01 15:04 +0200":       {at: time.Date(2026, 3, 1, 13, 4, 0, 0, time.UTC)},
		"2026-03-01 15:04 UTC":         {at: time.Date(2026, 3, 1, 15, 4, 0, 0, time.UTC)},
		"2026-03-01 UTC":               {at: time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC), wholeDay: true},
		"1 Mar 2026 3pm":               {at: at(2026, 3, 1, 15, 0), zoneAssumed: true},
		"March 1, 2026":                {at: at(2026, 3, 1, 0, 0), wholeDay: true, zoneAssumed: true},
		"mar 1 3:04PM":                 {at: at(2026, 3, 1, 15, 4), zoneAssumed: true},
		"24 December":                  {at: at(2025, 12, 24, 0, 0), wholeDay: true, zoneAssumed: true},
		"14:00":                        {at: at(2026, 3, 6, 14, 0), zoneAssumed: true},
		"14:00Z":                       {at: time.Date(2026, 3, 5, 14, 0, 0, 0, time.UTC)},
		"23:10":                        {at: at(2026, 3, 5, 23, 10), zoneAssumed: true},
		"today":                        {at: at(2026, 3, 6, 0, 0), wholeDay: true, zoneAssumed: true},
		"yesterday 8am":                {at: at(2026, 3, 5, 8, 0), zoneAssumed: true},
		"friday":                       {at: at(2026, 3, 6, 0, 0), wholeDay: true, zoneAssumed: true},
		"Thursday 15:04":               {at: at(2026, 3, 5, 15, 4), zoneAssumed: true},
		"last tue 15:04":               {at: at(2026, 3, 3, 15, 4), zoneAssumed: true},
		"now":                          {at: now},
		"3h":                           {at: now.Add(-3 * time.Hour)},
		"7d ago":                       {at: now.Add(-7 * 24 * time.Hour)},
		"-90m":                         {at: now.Add(-90 * time.Minute)},
	} {
		got, err := parseTimeExpr(text, now, zone)
		if err != nil || !got.at.Equal(want.at) || got.wholeDay != want.wholeDay || got.zoneAssumed != want.zoneAssumed {
			t.Errorf("%q: %v, day %v, assumed %v, %v; want %v, %v, %v", text, got.at, got.wholeDay, got.zoneAssumed, err, want.at, want.wholeDay, want.zoneAssumed)
		}
	}
	for _, text := range []string{"", "soon", "2026-13-01", "2026-03-01 25:00", "15:04 cest", "friday night", "-"} {
		if got, err := parseTimeExpr(text, now, zone); err == nil {
			t.Errorf("%q is accepted as %v", text, got.at)
		}
	}
}

func TestTimeRange(t *testing.T) {
	now := time.Date(2026, 3, 6, 14, 30, 0, 0, time.UTC)
	for name, c := range map[string]struct {
		flags    TimeRange
		from, to time.Time
		err      string
	}{
		"default":          {TimeRange{}, now.Add(-DefaultSince), now, ""},
		"a week":           {TimeRange{Since: "7d"}, now.AddDate(0, 0, -7), now, ""},
		"one whole day":    {TimeRange{From: "2026-03-01", To: "2026-03-01"}, time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC), time.Date(2026, 3, 2, 0, 0, 0, 0, time.UTC), ""},
		"an hour before":   {TimeRange{Since: "1h", To: "2026-03-01 10:00"}, time.Date(2026, 3, 1, 9, 0, 0, 0, time.UTC), time.Date(2026, 3, 1, 10, 0, 0, 0, time.UTC), ""},
		"from is after to": {TimeRange{From: "now", To: "2h"}, time.Time{}, time.Time{}, "--from: 2026-03-06T14:30:00Z is not before the end of the range, 2026-03-06T12:30:00Z"},
		"since and from":   {TimeRange{From: "1h", Since: "1h"}, time.Time{}, time.Time{}, "--since: cannot be combined with --from"},
		"not a duration":   {TimeRange{Since: "yesterday"}, time.Time{}, time.Time{}, `--since: "yesterday" is not a duration; examples are 30m, 12h, 7d and 2w`},
		"before 1970":      {TimeRange{From: "1815-06-18"}, time.Time{}, time.Time{}, "--from: from 1815-06-18T00:00:00Z to 2026-03-06T14:30:00Z is outside the years 1970 to 2200"},
	} {
		t.Run(name, func(t *testing.T) {
			c.flags.Zone = time.UTC
			from, to, _, err := c.flags.Times(now)
			message := ""
			if err != nil {
				message = err.Error()
			}
			if !from.Equal(c.from) || !to.Equal(c.to) || message != c.err {
				t.Errorf("from %v to %v, %v; want %v, %v, %s", from, to, err, c.from, c.to, c.err)
			}
		})
	}
}

func FuzzTimeExpr(f *testing.F) {
	for _, s := range []string{"2026-03-01 15:04 +0200", "friday 3pm", "1 Mar", "Z", "+", "T", "last "} {
		f.Add(s)
	}
	now := time.Date(2026, 3, 6, 14, 30, 0, 0, time.UTC)
	f.Fuzz(func(t *testing.T, s string) {
		if m, err := parseTimeExpr(s, now, time.UTC); err == nil && m.at.IsZero() {
			t.Errorf("%q is accepted as the zero time", s)
		}
	})
}
