package query

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/prometheus/common/model"

	"github.com/hindsight-events/hindsight/internal/lazyregexp"
)

// TimeRange holds the flags that select a time range. A time without a zone is in Zone; a date or
// weekday without a time of day is the whole day; a duration is that long ago.
type TimeRange struct {
	Since string // a duration before To, instead of From
	From  string
	To    string // empty: now
	Zone  *time.Location
}

// DefaultSince is the length of the range if neither Since nor From is set.
const DefaultSince = 24 * time.Hour

// Times returns the begin and the end of the range, and whether Zone was assumed for one of them.
func (r TimeRange) Times(now time.Time) (from, to time.Time, assumed bool, err error) {
	bad := func(flag string, err error) (time.Time, time.Time, bool, error) {
		return time.Time{}, time.Time{}, false, fmt.Errorf("%s: %w", flag, err)
	}
	if r.Since != "" && r.From != "" {
		return bad("--since", errors.New("cannot be combined with --from"))
	}
	to = now
	if r.To != "" {
		t, err := parseTimeExpr(r.To, now, r.Zone)
		if err != nil {
			return bad("--to", err)
		}
		to, assumed = t.at, t.zoneAssumed
		if t.wholeDay {
			to = t.at.AddDate(0, 0, 1)
		}
	}
	switch {
	case r.From != "":
		t, err := parseTimeExpr(r.From, now, r.Zone)
		if err != nil {
			return bad("--from", err)
		}
		from, assumed = t.at, assumed || t.zoneAssumed
	case r.Since != "":
		d, err := parseDuration(r.Since)
		if err != nil {
			return bad("--since", err)
		}
		from = to.Add(-d)
	default:
		from = to.Add(-DefaultSince)
	}
	if !from.Before(to) {
		return bad("--from", fmt.Errorf("%s is not before the end of the range, %s", from.Format(time.RFC3339), to.Format(time.RFC3339)))
	}
	// Loki has nanoseconds since 1970 in 64 bits.
	if from.Year() < 1970 || to.Year() > 2200 {
		return bad("--from", fmt.Errorf("from %s to %s is outside the years 1970 to 2200", from.Format(time.RFC3339), to.Format(time.RFC3339)))
	}
	return from, to, assumed, nil
}

// ParseTime parses a time as in From, in a zone if it has none of its own. A day is its begin.
func ParseTime(s string, now time.Time, zone *time.Location) (at time.Time, zoneAssumed bool, err error) {
	t, err := parseTimeExpr(s, now, zone)
	return t.at, t.zoneAssumed, err
}

// ParseDuration parses a duration as in Since.
func ParseDuration(s string) (time.Duration, error) { return parseDuration(s) }

// parseDuration parses 90s, 1h30m, 7d, 2w.
func parseDuration(s string) (time.Duration, error) {
	d, err := model.ParseDuration(strings.TrimSpace(s))
	if err != nil || d <= 0 {
		return 0, fmt.Errorf("%q is not a duration; examples are 30m, 12h, 7d and 2w", s)
	}
	return time.Duration(d), nil
}

// timeExpr is a parsed time expression.
type timeExpr struct {
	at          time.Time
	wholeDay    bool // without a time of day; at is its begin
	zoneAssumed bool // the expression has no zone
}

// A date and a clock may be combined, and followed by a zone.
var (
	dates  = []string{"2006-01-02", "2006/01/02", "20060102", "2 Jan 2006", "2 January 2006", "Jan 2 2006", "January 2 2006"}
	noYear = []string{"2 Jan", "2 January", "Jan 2", "January 2"}
	clocks = []string{"15:04:05.999999999", "15:04", "3:04:05pm", "3:04pm", "3pm"}
	zones  = []string{"Z07:00", "Z0700", "Z07"}

	dayT = lazyregexp.New(`(\d)[Tt](\d)`)
	ago  = lazyregexp.New(`^-?(\S+?)( ago)?$`)
)

// parseTimeExpr parses a time: RFC 3339; a date, a time of day, or both, with or without a zone;
// today, yesterday or a weekday (the last one that has begun), alone or with a time of day; now; a
// duration ago.
func parseTimeExpr(s string, now time.Time, zone *time.Location) (timeExpr, error) {
	text := dayT().ReplaceAllString(strings.ReplaceAll(s, ",", " "), "$1 $2")
	text = strings.Join(strings.Fields(text), " ")
	now = now.In(zone)
	if strings.EqualFold(text, "now") {
		return timeExpr{at: now}, nil
	}
	if m := ago().FindStringSubmatch(strings.TrimSpace(s)); m != nil {
		if d, err := parseDuration(m[1]); err == nil {
			return timeExpr{at: now.Add(-d)}, nil
		}
	}
	in, text, hasZone := cutZone(text, zone)
	m, ok := parseLocal(text, now.In(in), in)
	if !ok {
		return timeExpr{}, fmt.Errorf("%q is not a time; examples are 2006-01-02, \"2006-01-02 15:04\", 15:04, yesterday, \"friday 15:04\", 3h, and RFC 3339", s)
	}
	m.zoneAssumed = !hasZone
	return m, nil
}

// cutZone cuts the zone off the end of a time.
func cutZone(text string, zone *time.Location) (in *time.Location, rest string, hasZone bool) {
	for _, name := range []string{"UTC", "GMT", "utc", "gmt"} {
		if rest, ok := strings.CutSuffix(text, name); ok {
			return time.UTC, strings.TrimSpace(rest), true
		}
	}
	i := strings.LastIndexAny(text, "Zz+-")
	if i <= 0 || !strings.Contains(text[:i], ":") { // otherwise it is part of a date
		return zone, text, false
	}
	for _, layout := range zones {
		if t, err := time.Parse(layout, strings.ToUpper(text[i:])); err == nil {
			return t.Location(), strings.TrimSpace(text[:i]), true
		}
	}
	return zone, text, false
}

// parseLocal parses a time without a zone.
func parseLocal(text string, now time.Time, in *time.Location) (timeExpr, bool) {
	text = title(text)
	parse := func(layout string) (time.Time, bool) {
		t, err := time.ParseInLocation(layout, text, in)
		return t, err == nil
	}
	for _, date := range dates {
		if t, ok := parse(date); ok {
			return timeExpr{at: t, wholeDay: true}, true
		}
		for _, clock := range clocks {
			if t, ok := parse(date + " " + clock); ok {
				return timeExpr{at: t}, true
			}
		}
	}
	for _, date := range noYear {
		for _, clock := range append([]string{""}, clocks...) {
			t, ok := parse(strings.TrimSpace(date + " " + clock))
			if !ok {
				continue
			}
			t = time.Date(now.Year(), t.Month(), t.Day(), t.Hour(), t.Minute(), t.Second(), t.Nanosecond(), in)
			if t.After(now) {
				t = t.AddDate(-1, 0, 0)
			}
			return timeExpr{at: t, wholeDay: clock == ""}, true
		}
	}
	day, rest, named := namedDay(text, now)
	if named && rest == "" {
		return timeExpr{at: day, wholeDay: true}, true
	}
	for _, clock := range clocks {
		t, err := time.ParseInLocation(clock, rest, in)
		if err != nil {
			continue
		}
		at := time.Date(day.Year(), day.Month(), day.Day(), t.Hour(), t.Minute(), t.Second(), t.Nanosecond(), in)
		if !named && at.After(now) {
			at = at.AddDate(0, 0, -1)
		}
		return timeExpr{at: at}, true
	}
	return timeExpr{}, false
}

// title writes each word with an initial capital, as in layouts: months, weekdays, Am and Pm.
func title(text string) string {
	words := strings.Fields(strings.ToLower(text))
	for i, w := range words {
		if w[0] >= 'a' && w[0] <= 'z' {
			words[i] = strings.ToUpper(w[:1]) + w[1:]
		}
	}
	return strings.Join(words, " ")
}

// namedDay cuts today, yesterday or a weekday off the beginning of a time. Without one, the day is
// today.
func namedDay(text string, now time.Time) (day time.Time, rest string, named bool) {
	midnight := func(t time.Time) time.Time {
		return time.Date(t.Year(), t.Month(), t.Day(), 0, 0, 0, 0, now.Location())
	}
	text = strings.TrimPrefix(text, "Last ")
	word, rest, _ := strings.Cut(text, " ")
	switch word {
	case "Today":
		return midnight(now), rest, true
	case "Yesterday":
		return midnight(now.AddDate(0, 0, -1)), rest, true
	}
	for back := range 7 {
		d := now.AddDate(0, 0, -back)
		name := d.Weekday().String()
		if word == name || word == name[:3] {
			return midnight(d), rest, true
		}
	}
	return midnight(now), text, false
}
