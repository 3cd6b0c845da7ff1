package audit

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/hindsight-events/hindsight/event/format"
)

func TestRun(t *testing.T) {
	t.Parallel()
	gapRecord := func(at time.Time, name, from, to string) format.Entry {
		return format.Entry{
			Time: at,
			Line: fmt.Sprintf("name=%s kind=Namespace eventRV=%s reason=HindsightGap type=Warning count=1 msg=\"Events may have been missed\" "+
				"from_version=%s to_version=%s cause=overflow", name, to, from, to),
			Labels:   map[string]string{"job": "hindsight", "cluster": "test", "namespace": "monitoring", "reason": "HindsightGap"},
			Metadata: map[string]string{"event_uid": "gap", "event_version": to, "type": "Warning"},
		}
	}
	tests := map[string]struct {
		// change changes the entries of the Events 0 to 4, and the rules.
		change  func(s []format.Entry, r *Rules) []format.Entry
		events  func([]*corev1.Event)
		summary string
		want    []string // in the findings
	}{
		"all stored once": {
			summary: "5 Events compared, 5 found, 0 missing, 0 repeated, 0 mistimed, 0 altered, 0 explained",
		},
		"one missing": {
			change:  func(s []format.Entry, _ *Rules) []format.Entry { return slices.Delete(s, 2, 3) },
			summary: "5 Events compared, 4 found, 1 missing, 0 repeated, 0 mistimed, 0 altered, 0 explained",
			want:    []string{"missing    team-a/web-2.17a BackOff Pod/web-2, version 102, "},
		},
		"only an earlier state": {
			change: func(s []format.Entry, _ *Rules) []format.Entry {
				s[2] = with(s[2], func(e *format.Entry) { e.Metadata["event_version"] = "50" })
				return s
			},
			summary: "5 Events compared, 4 found, 1 missing, 0 repeated, 0 mistimed, 0 altered, 0 explained",
			want:    []string{"missing    team-a/web-2.17a"},
		},
		"also earlier and later states": {
			change: func(s []format.Entry, _ *Rules) []format.Entry {
				earlier := with(s[2], func(e *format.Entry) { e.Metadata["event_version"] = "50" })
				later := with(s[2], func(e *format.Entry) { e.Metadata["event_version"] = "5000" })
				return append(s, earlier, later)
			},
			summary: "5 Events compared, 5 found, 0 missing, 0 repeated, 0 mistimed, 0 altered, 0 explained",
		},
		"lines without metadata": {
			change: func(s []format.Entry, _ *Rules) []format.Entry {
				for i := range s {
					s[i] = with(s[i], func(e *format.Entry) { e.Line += " event_uid=" + e.Metadata["event_uid"]; e.Metadata = nil })
				}
				return s
			},
			summary: "5 Events compared, 5 found, 0 missing, 0 repeated, 0 mistimed, 0 altered, 0 explained",
		},
		"foreign lines": {
			change: func(s []format.Entry, _ *Rules) []format.Entry {
				return append(s, format.Entry{Time: s[0].Time, Line: "GET / 200", Labels: s[0].Labels})
			},
			summary: "5 Events compared, 5 found, 0 missing, 0 repeated, 0 mistimed, 0 altered, 0 explained",
		},
		"stored under two times": {
			change: func(s []format.Entry, _ *Rules) []format.Entry {
				return append(s, with(s[1], func(e *format.Entry) { e.Time = e.Time.Add(time.Second) }))
			},
			summary: "5 Events compared, 5 found, 0 missing, 1 repeated, 0 mistimed, 0 altered, 0 explained",
			want:    []string{"repeated   team-a/web-1.17a", "2 times: they differ in time ("},
		},
		"stored in two streams": {
			change: func(s []format.Entry, _ *Rules) []format.Entry {
				return append(s, with(s[1], func(e *format.Entry) { e.Labels["pod"] = "hindsight-0" }))
			},
			summary: "5 Events compared, 5 found, 0 missing, 1 repeated, 0 mistimed, 0 altered, 0 explained",
			want: []string{
				"repeated   team-a/web-1.17a",
				`they differ in stream ({cluster="test", job="hindsight", namespace="team-a", reason="BackOff"} and {cluster="test", job="hindsight", namespace="team-a", pod="hindsight-0", reason="BackOff"})`,
			},
		},
		"reason limited in between": {
			change: func(s []format.Entry, _ *Rules) []format.Entry {
				return append(s, with(s[1], func(e *format.Entry) { e.Labels["reason"] = "other"; e.Metadata["full_reason"] = "BackOff" }))
			},
			summary: "5 Events compared, 5 found, 0 missing, 1 repeated, 0 mistimed, 0 altered, 0 explained",
			want:    []string{"max_streams may have been reached in between), structured metadata"},
		},
		"three different lines": {
			change: func(s []format.Entry, _ *Rules) []format.Entry {
				return append(s,
					with(s[1], func(e *format.Entry) { e.Line += " note=again" }),
					with(s[1], func(e *format.Entry) { e.Line += " note=more" }))
			},
			summary: "5 Events compared, 5 found, 0 missing, 1 repeated, 0 mistimed, 0 altered, 0 explained",
			want:    []string{"repeated   team-a/web-1.17a", "3 times: they differ in line"},
		},
		"another time": {
			change: func(s []format.Entry, _ *Rules) []format.Entry {
				s[3].Time = s[3].Time.Add(-90 * time.Second)
				return s
			},
			summary: "5 Events compared, 5 found, 0 missing, 0 repeated, 1 mistimed, 0 altered, 0 explained",
			want:    []string{"mistimed   team-a/web-3.17a", ", 1m30s too early"},
		},
		"20 hours early": {
			change: func(s []format.Entry, _ *Rules) []format.Entry {
				s[3].Time = s[3].Time.Add(-20 * time.Hour)
				return s
			},
			summary: "5 Events compared, 5 found, 0 missing, 0 repeated, 1 mistimed, 0 altered, 0 explained",
			want:    []string{"mistimed   team-a/web-3.17a", "20h0m0s too early"},
		},
		"another message": {
			change: func(s []format.Entry, _ *Rules) []format.Entry {
				s[0].Line = strings.Replace(s[0].Line, "restarting", "deleting", 1)
				return s
			},
			summary: "5 Events compared, 5 found, 0 missing, 0 repeated, 0 mistimed, 1 altered, 0 explained",
			want:    []string{"altered    team-a/web-0.17a", "stored with another message"},
		},
		"another reason and count": {
			change: func(s []format.Entry, _ *Rules) []format.Entry {
				s[0] = with(s[0], func(e *format.Entry) { e.Labels["reason"] = "Killing"; e.Metadata["count"] = "7" })
				return s
			},
			summary: "5 Events compared, 5 found, 0 missing, 0 repeated, 0 mistimed, 1 altered, 0 explained",
			want:    []string{`stored with reason "Killing" instead of "BackOff", count 7 instead of 1`},
		},
		"no reason, label other": {
			events: func(e []*corev1.Event) { e[0].Reason = "" },
			change: func(s []format.Entry, _ *Rules) []format.Entry {
				s[0] = with(s[0], func(e *format.Entry) {
					e.Labels["reason"] = "other"
					e.Line = strings.Replace(e.Line, "reason= ", "", 1)
				})
				return s
			},
			summary: "5 Events compared, 5 found, 0 missing, 0 repeated, 0 mistimed, 0 altered, 0 explained",
		},
		"no reason, but stored with one": {
			events: func(e []*corev1.Event) { e[0].Reason = "" },
			change: func(s []format.Entry, _ *Rules) []format.Entry {
				s[0] = with(s[0], func(e *format.Entry) {
					e.Labels["reason"] = "Killing"
					e.Line = strings.Replace(e.Line, "reason= ", "", 1)
				})
				return s
			},
			summary: "5 Events compared, 5 found, 0 missing, 0 repeated, 0 mistimed, 1 altered, 0 explained",
			want:    []string{`stored with reason "Killing" instead of ""`},
		},
		"no type": {
			events: func(e []*corev1.Event) { e[0].Type = "" },
			change: func(s []format.Entry, _ *Rules) []format.Entry {
				s[0] = with(s[0], func(e *format.Entry) {
					delete(e.Metadata, "type")
					e.Metadata["detected_level"] = "info"
					e.Line = strings.Replace(e.Line, "type= ", "", 1)
				})
				return s
			},
			summary: "5 Events compared, 5 found, 0 missing, 0 repeated, 0 mistimed, 0 altered, 0 explained",
		},
		"lines of the format text": {
			change: func(s []format.Entry, _ *Rules) []format.Entry {
				for i := range s {
					s[i] = with(s[i], func(e *format.Entry) { e.Line = fmt.Sprintf("BackOff Pod/web-%d: %[1]d (observed)", i) })
				}
				s[1].Metadata["name"] = "web-7"
				return s
			},
			summary: "5 Events compared, 5 found, 0 missing, 0 repeated, 0 mistimed, 1 altered, 0 explained",
			want:    []string{`stored with name "web-7" instead of "web-1"`},
		},
		"invalid UTF-8": {
			events: func(e []*corev1.Event) { e[0].Message = "bad \uFFFD\uFFFD\uFFFD bytes" },
			change: func(s []format.Entry, _ *Rules) []format.Entry {
				s[0].Line = strings.Replace(s[0].Line, "\uFFFD\uFFFD\uFFFD", "\uFFFD", 1)
				return s
			},
			summary: "5 Events compared, 5 found, 0 missing, 0 repeated, 0 mistimed, 0 altered, 0 explained",
		},
		"truncated message": {
			change: func(s []format.Entry, _ *Rules) []format.Entry {
				s[0].Line = regexp.MustCompile(`msg="[^ ]* .*" event`).ReplaceAllString(s[0].Line, `msg="Back… (14 bytes cut)" event`)
				return s
			},
			summary: "5 Events compared, 5 found, 0 missing, 0 repeated, 0 mistimed, 0 altered, 0 explained",
		},
		"dropped": {
			events: func(e []*corev1.Event) { e[4].Reason = "Pulled" },
			change: func(s []format.Entry, r *Rules) []format.Entry {
				r.Drop = []Selector{mustSelector(t, `{namespace="kube-system"}`), mustSelector(t, `{reason=~"Pulled|Created", node="node-1"}`)}
				return s[:4]
			},
			summary: "5 Events compared, 4 found, 0 missing, 0 repeated, 0 mistimed, 0 altered, 1 explained (1 dropped by rule)",
			want:    []string{"explained  team-a/web-4.17a Pulled", `: dropped by rule: {reason=~"Pulled|Created", node="node-1"}`},
		},
		"drop rule, but stored": {
			change: func(s []format.Entry, r *Rules) []format.Entry {
				r.Drop = []Selector{mustSelector(t, `{name="web-4", message=~".*restarting.*"}`)}
				r.Redact = []Redaction{{Match: regexp.MustCompile(`restarting`), With: "…"}}
				for i := range s {
					s[i].Line = strings.Replace(s[i].Line, "restarting", "…", 1)
				}
				return s
			},
			summary: "5 Events compared, 5 found, 0 missing, 0 repeated, 0 mistimed, 0 altered, 0 explained",
		},
		"not matched": {
			events: func(e []*corev1.Event) { e[4].Type = "Normal" },
			change: func(s []format.Entry, r *Rules) []format.Entry {
				r.Match, r.Sink = []Selector{mustSelector(t, `{type="Warning"}`), mustSelector(t, `{kind="Node"}`)}, "warnings"
				return s[:4]
			},
			summary: "5 Events compared, 4 found, 0 missing, 0 repeated, 0 mistimed, 0 altered, 1 explained (1 not matched by the sink)",
			want:    []string{"not matched by the sink: sink warnings"},
		},
		"not watched": {
			events: func(e []*corev1.Event) { e[4].Namespace = "team-b" },
			change: func(s []format.Entry, r *Rules) []format.Entry {
				r.Namespaces = []string{"team-a", "team-c"}
				r.Match = []Selector{mustSelector(t, `{namespace="team-a"}`)}
				return s[:4]
			},
			summary: "5 Events compared, 4 found, 0 missing, 0 repeated, 0 mistimed, 0 altered, 1 explained (1 of a namespace that is not watched)",
			want:    []string{"explained  team-b/web-4.17a", "source.namespaces: team-a, team-c"},
		},
		"redacted": {
			change: func(s []format.Entry, r *Rules) []format.Entry {
				r.Redact = []Redaction{{Match: regexp.MustCompile(`off (\d)`), With: "off #$1"}}
				for i := range s {
					s[i].Line = strings.Replace(s[i].Line, "Back-off ", "Back-off #", 1)
				}
				return s
			},
			summary: "5 Events compared, 5 found, 0 missing, 0 repeated, 0 mistimed, 0 altered, 0 explained",
		},
		"not redacted": {
			change: func(s []format.Entry, r *Rules) []format.Entry {
				r.Redact = []Redaction{{Match: regexp.MustCompile(`off 3`), With: "off #"}}
				return s
			},
			summary: "5 Events compared, 5 found, 0 missing, 0 repeated, 0 mistimed, 1 altered, 0 explained",
			want:    []string{"altered    team-a/web-3.17a"},
		},
		"two inside a gap, one before it": {
			change: func(s []format.Entry, _ *Rules) []format.Entry {
				return []format.Entry{s[0], gapRecord(s[4].Time, "*", "101", "103"), s[4]}
			},
			summary: "5 Events compared, 2 found, 1 missing, 0 repeated, 0 mistimed, 0 altered, 2 explained (2 inside a declared gap)",
			want: []string{
				"missing    team-a/web-1.17a",
				"explained  team-a/web-2.17a", "explained  team-a/web-3.17a", ": inside a declared gap: versions 101 to 103, overflow",
			},
		},
		"gap of another namespace": {
			change: func(s []format.Entry, _ *Rules) []format.Entry {
				return append(s[:4], gapRecord(s[0].Time, "team-b", "100", "200"))
			},
			summary: "5 Events compared, 4 found, 1 missing, 0 repeated, 0 mistimed, 0 altered, 0 explained",
			want:    []string{"missing    team-a/web-4.17a"},
		},
		"before the first start": {
			change:  func(s []format.Entry, _ *Rules) []format.Entry { return s[2:] },
			summary: "5 Events compared, 3 found, 0 missing, 0 repeated, 0 mistimed, 0 altered, 2 explained (2 before the first start)",
			want:    []string{"explained  team-a/web-0.17a", "explained  team-a/web-1.17a", "the oldest entry has the time "},
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			start := begun()
			var events []*corev1.Event
			var stored []format.Entry
			for i := range 5 {
				events = append(events, podEvent(i, start.Add(time.Duration(i)*time.Second)))
			}
			if tt.events != nil {
				tt.events(events)
			}
			for _, e := range events {
				stored = append(stored, entryOf(e))
			}
			o := Options{Client: clientOf(t, serve(t, events...))}
			if tt.change != nil {
				stored = tt.change(stored, &o.Rules)
			}
			o.Store = &memory{entries: stored}
			r, err := Run(t.Context(), o)
			if err != nil {
				t.Fatal(err)
			}
			if got := r.Summary(); got != tt.summary {
				t.Errorf("summary\n%s\nwant\n%s", got, tt.summary)
			}
			if clean := strings.Contains(tt.summary, "0 missing, 0 repeated, 0 mistimed, 0 altered"); r.Clean() != clean {
				t.Errorf("clean %v, want %v", r.Clean(), clean)
			}
			var text strings.Builder
			if err := r.WriteText(&text); err != nil {
				t.Fatal(err)
			}
			for _, want := range tt.want {
				if !strings.Contains(text.String(), want) {
					t.Errorf("want %q in\n%s", want, text.String())
				}
			}
			if len(tt.want) == 0 && len(r.Findings) > 0 {
				t.Errorf("want no findings, got\n%s", text.String())
			}
		})
	}
}

func TestNothingStored(t *testing.T) {
	t.Parallel()
	_, err := Run(t.Context(), Options{Client: clientOf(t, serve(t, podEvent(1, begun()))), Store: &memory{}})
	if err == nil || err.Error() != "read the stored entries: memory is empty: check address or path, tenant, job and cluster" {
		t.Errorf("error %v", err)
	}
}

func TestLinesWithoutUID(t *testing.T) {
	t.Parallel()
	e := podEvent(1, begun())
	at := entryOf(e).Time
	store := &memory{entries: []format.Entry{{Time: at, Line: at.Format(time.RFC3339Nano) + " team-a Warning BackOff Pod/web-1: Back-off"}}}
	_, err := Run(t.Context(), Options{Client: clientOf(t, serve(t, e)), Store: store})
	if err == nil || !strings.Contains(err.Error(), "the lines have neither uid nor resourceVersion") {
		t.Errorf("error %v", err)
	}
}

// TestSettle checks that a young state is waited for.
func TestSettle(t *testing.T) {
	run := func(t *testing.T, arrives time.Duration) (*Result, []string) {
		t.Helper()
		young, old := podEvent(1, time.Now().Add(-10*time.Second)), podEvent(2, time.Now().Add(-time.Hour))
		store := &memory{entries: []format.Entry{entryOf(old)}}
		arrival := time.Now().Add(arrives)
		store.onFind = func() {
			if len(store.entries) == 1 && !time.Now().Before(arrival) {
				store.entries = append(store.entries, entryOf(young))
			}
		}
		var messages []string
		r, err := Run(t.Context(), Options{
			Client: clientOf(t, serve(t, young, old)), Store: store, Settle: 30 * time.Second,
			Notify: func(message string) { messages = append(messages, message) },
		})
		if err != nil {
			t.Fatal(err)
		}
		return r, messages
	}
	synctest.Test(t, func(t *testing.T) {
		r, messages := run(t, 15*time.Second)
		if r.Found != 2 || !r.Clean() {
			t.Errorf("stored in time: %s", r.Summary())
		}
		if want := []string{"1 Event is not stored yet; waiting for up to 20s"}; !slices.Equal(messages, want) {
			t.Errorf("messages %q, want %q", messages, want)
		}
		if r, _ = run(t, 25*time.Second); r.Missing != 1 {
			t.Errorf("stored too late: %s", r.Summary())
		}
		if r, messages = run(t, 0); r.Missing != 0 || len(messages) != 0 {
			t.Errorf("stored before the audit: %s, messages %q", r.Summary(), messages)
		}
	})
}

// TestSettleClockAhead checks that the wait is not longer if the API server's clock is ahead.
func TestSettleClockAhead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first, ahead := podEvent(1, time.Now().Add(-time.Hour)), podEvent(2, time.Now().Add(10*time.Minute))
		began := time.Now()
		r, err := Run(t.Context(), Options{Client: clientOf(t, serve(t, first, ahead)), Store: &memory{entries: []format.Entry{entryOf(first)}}, Settle: 30 * time.Second})
		if err != nil || r.Missing != 1 {
			t.Errorf("%v, error %v", r, err)
		}
		if took := time.Since(began); took != 30*time.Second {
			t.Errorf("the audit took %s", took)
		}
	})
}

// TestSearches checks that few Events are searched for by uid, and many are not.
func TestSearches(t *testing.T) {
	t.Parallel()
	for _, missing := range []int{1, maxUIDs, maxUIDs + 1} {
		t.Run(fmt.Sprint(missing), func(t *testing.T) {
			start := begun()
			first := podEvent(0, start.Add(-time.Minute))
			events, store := []*corev1.Event{first}, &memory{entries: []format.Entry{entryOf(first)}}
			for i := range missing {
				events = append(events, podEvent(i+1, start))
			}
			r, err := Run(t.Context(), Options{Client: clientOf(t, serve(t, events...)), Store: store, Namespace: "team-a", Limit: 3})
			if err != nil {
				t.Fatal(err)
			}
			if r.Missing != missing || len(r.Findings) != min(missing, 3) {
				t.Errorf("%d of %d findings are listed; %s", len(r.Findings), missing, r.Summary())
			}
			second := store.searches[1]
			if byUID := missing <= maxUIDs; byUID != (len(second.UIDs) == missing) || !byUID && len(second.UIDs) != 0 {
				t.Errorf("searched for %d uids of %d", len(second.UIDs), missing)
			}
			if second.Namespace != "team-a" {
				t.Errorf("searched in namespace %q", second.Namespace)
			}
		})
	}
}

func TestStoreFails(t *testing.T) {
	t.Parallel()
	want := errors.New("no route to host")
	_, err := Run(t.Context(), Options{Client: clientOf(t, serve(t)), Store: failing{&memory{}, want}})
	if !errors.Is(err, want) {
		t.Errorf("error %v, want %v, also without Events to compare", err, want)
	}
}

type failing struct {
	*memory
	err error
}

func (f failing) Find(context.Context, Search, func(format.Entry) error) error { return f.err }

// TestSpanIsBounded checks that a very old Event does not extend the search.
func TestSpanIsBounded(t *testing.T) {
	t.Parallel()
	e := podEvent(1, time.Date(1999, 1, 1, 0, 0, 0, 0, time.UTC))
	e.ManagedFields, e.CreationTimestamp = nil, metav1.Time{}
	other := podEvent(2, begun())
	store := &memory{entries: []format.Entry{entryOf(other)}}
	r, err := Run(t.Context(), Options{Client: clientOf(t, serve(t, e, other)), Store: store})
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range store.searches {
		if s.From.Before(time.Now().Add(-maxAge - wideMargin - time.Hour)) {
			t.Errorf("searched from %s", s.From)
		}
	}
	if r.Found != 1 {
		t.Error(r.Summary())
	}
}
