package query

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/mattn/go-runewidth"

	"github.com/hindsight-events/hindsight/event/format"
)

var noon = time.Date(2026, 3, 6, 12, 0, 0, 0, time.UTC)

// record parses a line.
func record(t testing.TB, text string) *format.Record {
	t.Helper()
	r, err := format.Parser{}.Parse(format.Entry{Line: text})
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return &r
}

func printed(t testing.TB, output string, s Style, lines ...string) string {
	t.Helper()
	var b bytes.Buffer
	s.Now = noon
	p, err := NewPrinter(output, &b, s)
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range lines {
		if err := p.Print(record(t, l)); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.Flush(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

const (
	pulled  = `time=2026-03-06T11:59:30Z namespace=prod name=web-0 kind=Pod reason=Pulled type=Normal count=1 msg="image is there" event=web-0.1 event_uid=1 component=kubelet node=n-1`
	backOff = `time=2026-03-06T11:55:00Z namespace=prod name=web-0 kind=Pod reason=BackOff type=Warning count=7 msg="Back-off restarting" event=web-0.2 firstseen=2026-03-06T11:40:00Z event_uid=2 sourcecomponent=kubelet sourcehost=n-1`
)

func TestPrinters(t *testing.T) {
	for name, c := range map[string]struct {
		output string
		style  Style
		want   string
	}{
		"table": {"", Style{}, `
LAST SEEN          TYPE      REASON    OBJECT      MESSAGE
5m (x7 over 20m)   Warning   BackOff   Pod/web-0   Back-off restarting
30s                Normal    Pulled    Pod/web-0   image is there
`},
		"all namespaces, no headers": {"", Style{AllNamespaces: true, NoHeaders: true}, `
prod   5m (x7 over 20m)   Warning   BackOff   Pod/web-0   Back-off restarting
prod   30s                Normal    Pulled    Pod/web-0   image is there
`},
		"wide": {"wide", Style{}, `
LAST SEEN          TYPE      REASON    OBJECT      SOURCE    NODE   COUNT   FIRST SEEN   MESSAGE
5m (x7 over 20m)   Warning   BackOff   Pod/web-0   kubelet   n-1    7       20m          Back-off restarting
30s                Normal    Pulled    Pod/web-0   kubelet   n-1    1       30s          image is there
`},
		"times": {"", Style{Times: true, Zone: time.FixedZone("", 3600)}, `
LAST SEEN                                 TYPE      REASON    OBJECT      MESSAGE
2026-03-06T12:55:00+01:00 (x7 over 15m)   Warning   BackOff   Pod/web-0   Back-off restarting
2026-03-06T12:59:30+01:00                 Normal    Pulled    Pod/web-0   image is there
`},
		"narrow terminal": {"", Style{Width: 40}, `
LAST SEEN       TYPE      REASON
    OBJECT      MESSAGE
5m (x7 over 20m)   Warning   BackOff
    Pod/web-0   Back-off restarting
30s             Normal    Pulled
    Pod/web-0   image is there
`},
		"color": {"", Style{Color: true, NoHeaders: true}, `
5m (x7 over 20m)   ` + "\x1b[33mWarning\x1b[0m" + `   BackOff   Pod/web-0   Back-off restarting
30s                Normal    Pulled    Pod/web-0   image is there
`},
		"names": {"name", Style{}, "\nevent/web-0.2\nevent/web-0.1\n"},
		"text": {"text", Style{}, `
2026-03-06T11:55:00Z prod Warning BackOff Pod/web-0: Back-off restarting (x7)
2026-03-06T11:59:30Z prod Pulled Pod/web-0: image is there
`},
	} {
		t.Run(name, func(t *testing.T) {
			if got := printed(t, c.output, c.style, backOff, pulled); got != strings.TrimPrefix(c.want, "\n") {
				t.Errorf("got\n%swant%s", got, c.want)
			}
		})
	}
}

// TestAgesAndTimes checks that ages are printed while no row is older than a day, and times from
// then on.
func TestAgesAndTimes(t *testing.T) {
	at := func(ago time.Duration, more string) string {
		return "time=" + noon.Add(-ago).Format(time.RFC3339) + " namespace=a name=x kind=Pod reason=R type=Normal msg=m " + more
	}
	first := func(ago time.Duration) string { return "count=3 firstseen=" + noon.Add(-ago).Format(time.RFC3339) }
	const day = 24 * time.Hour
	for name, c := range map[string]struct {
		output string
		lines  []string
		want   []string // LAST SEEN
	}{
		"one day":                  {"", []string{at(day, ""), at(time.Minute, "")}, []string{"24h", "60s"}},
		"one second more":          {"", []string{at(day+time.Second, ""), at(time.Minute, "")}, []string{"2026-03-05T11:59:59Z", "2026-03-06T11:59:00Z"}},
		"only the last row":        {"", []string{at(time.Minute, ""), at(2*day, "")}, []string{"2026-03-06T11:59:00Z", "2026-03-04T12:00:00Z"}},
		"first seen long ago":      {"", []string{at(time.Minute, first(3*day))}, []string{"60s (x3 over 3d)"}},
		"first seen is a column":   {"wide", []string{at(time.Minute, first(3*day))}, []string{"2026-03-06T11:59:00Z (x3 over 2d23h)"}},
		"in the future":            {"", []string{at(-time.Minute, "")}, []string{"0s"}},
		"reporter's clock in 1970": {"wide", []string{at(time.Minute, "count=3 firstseen=1970-01-01T00:00:07Z observed_time=1970-01-01T00:01:07Z")}, []string{"60s (x3 over 60s, observed 1970-01-01T00:01:07Z)"}},
		"once, in 1970":            {"", []string{at(time.Minute, "count=1 observed_time=1970-01-01T00:01:07Z")}, []string{"60s (observed 1970-01-01T00:01:07Z)"}},
	} {
		t.Run(name, func(t *testing.T) {
			var got []string
			for l := range strings.Lines(printed(t, c.output, Style{NoHeaders: true}, c.lines...)) {
				seen, _, _ := strings.Cut(l, "   ")
				got = append(got, seen)
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("%q, want %q", got, c.want)
			}
		})
	}
	t.Run("followed", func(t *testing.T) {
		var b bytes.Buffer
		p, err := NewPrinter("", &b, Style{NoHeaders: true, Now: noon})
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range []string{at(2*day, ""), at(time.Minute, "")} {
			if err := p.Print(record(t, l)); err != nil {
				t.Fatal(err)
			}
			if err := p.Flush(); err != nil {
				t.Fatal(err)
			}
		}
		if strings.Contains(b.String(), "60s") {
			t.Errorf("ages and times:\n%s", b.String())
		}
	})
}

// TestTableFitsTheTerminal checks, for all kinds of messages, that each line fits, that no control
// character is printed, and that no part of the message is missing.
func TestTableFitsTheTerminal(t *testing.T) {
	t.Parallel()
	messages := []string{
		"short", "", strings.Repeat("many words ", 60), strings.Repeat("x", 700),
		"漢字かな交じり文" + strings.Repeat("表示幅", 50), "a\nb\tc", "\x1b[2J\x1b]0;title\x07 gone?", "\u202eright to left\u202c",
		strings.Repeat("word ", 5) + strings.Repeat("y", 300) + " end", "\xff\xfe", "emoji 👩‍👩‍👧‍👦 " + strings.Repeat("🚀", 40),
	}
	for width := 20; width <= 200; width++ {
		for _, wide := range []string{"", "wide"} {
			var b bytes.Buffer
			p, err := NewPrinter(wide, &b, Style{Width: width, AllNamespaces: true, Now: noon})
			if err != nil {
				t.Fatal(err)
			}
			for i, m := range messages {
				r := record(t, backOff)
				r.Event.Message = m
				if i%3 == 0 {
					r.Event.InvolvedObject.Name = strings.Repeat("long-name-", 1+4*i)
				}
				if err := p.Print(r); err != nil {
					t.Fatal(err)
				}
			}
			if err := p.Flush(); err != nil {
				t.Fatal(err)
			}
			for l := range strings.Lines(b.String()) {
				l = strings.TrimSuffix(l, "\n")
				if w := runewidth.StringWidth(l); w > width {
					t.Fatalf("a line has width %d on a terminal of width %d:\n%s", w, width, l)
				}
				if i := strings.IndexFunc(l, func(c rune) bool { return unicode.IsControl(c) || unicode.Is(unicode.Bidi_Control, c) }); i >= 0 {
					t.Fatalf("a control character is printed: %q", l)
				}
			}
			got := letters(b.String())
			for _, m := range messages {
				if !strings.Contains(got, letters(Printable(m))) {
					t.Fatalf("width %d: parts of %q are missing:\n%s", width, m, b.String())
				}
			}
		}
	}
}

// letters removes white space, where lines may be wrapped.
func letters(s string) string {
	return strings.Join(strings.Fields(s), "")
}

// TestControlCharacters checks that no output prints control characters.
func TestControlCharacters(t *testing.T) {
	for _, output := range Outputs {
		for _, text := range []string{
			`time=2026-03-06T11:59:30Z name=web-0 kind=Pod type="War\u001b[31mning" reason="a\u001b[2Jb" event="\u001b]0;x\u0007" msg="\u001b[2J\u009b2J\u202e\u2028\u0000 \r\n x"`,
			`{"verb":"ADDED","event":{"metadata":{"name":"\u001b[2J","uid":"1"},"reason":"a\u009bb","message":"\u001b[2J\u202e\u2028\u0000 \r\n\u007f x","lastTimestamp":"2026-03-06T11:59:30Z"}}`,
		} {
			got := printed(t, output, Style{Width: 80, Color: true, NoHeaders: true}, text)
			got = strings.NewReplacer(bold, "", yellow, "", reset, "").Replace(got)
			for _, c := range got {
				if c != '\n' && (unicode.IsControl(c) || unicode.Is(unicode.Bidi_Control, c) || c == '\u2028') {
					t.Errorf("%s prints %q: %q", output, c, got)
				}
			}
		}
	}
}

// TestTableBuffersOnlyTheSample checks that rows are printed at once when the widths are known.
func TestTableBuffersOnlyTheSample(t *testing.T) {
	var b bytes.Buffer
	p := newTable(&b, Style{Now: noon}, false)
	for i := range 1000 {
		r := record(t, pulled)
		r.Event.InvolvedObject.Name = fmt.Sprint("web-", i)
		if err := p.Print(r); err != nil {
			t.Fatal(err)
		}
		if len(p.buffered) > sampleRows {
			t.Fatalf("%d rows are buffered", len(p.buffered))
		}
	}
	if n := strings.Count(b.String(), "\n"); n < 900 {
		t.Errorf("%d lines are printed before Flush", n)
	}
}
