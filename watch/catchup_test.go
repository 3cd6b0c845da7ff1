package watch

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/hindsight-events/hindsight/event"
	"github.com/hindsight-events/hindsight/event/format"
	"github.com/hindsight-events/hindsight/test/fakeapi"
)

// sinksAt sets the positions of sinks behind the start.
func sinksAt(behind map[string]event.Position) func(*Options) {
	return func(o *Options) { o.SinkPositions = behind }
}

// addressed formats records as states does. Records for one sink begin with its name; the end of
// its list is "=position".
func addressed(records []event.Record) []string {
	out := []string{}
	for _, r := range records {
		var s string
		switch {
		case !r.PositionOnly():
			s = states([]event.Record{r})[0]
		case r.OnlySink != "":
			s = "=" + r.Position.String()
		default:
			continue
		}
		if r.OnlySink != "" {
			s = r.OnlySink + ":" + s
		}
		out = append(out, s)
	}
	return out
}

// writeHistory writes a@101 b@102 a@103 c@104 b@105 a@106 d@107.
func writeHistory(a *api) {
	for _, name := range []string{"a", "b", "a", "c", "b", "a", "d"} {
		a.write(name)
	}
}

func TestSinksAtDifferentPositions(t *testing.T) {
	t.Parallel()
	restoredOnce := func(version uint64) event.Position {
		return event.Position{Epoch: event.Epoch{Cluster: "uid-a", Restores: 1}, Version: version}
	}
	listing := func(version, listed uint64) event.Position {
		p := at(version)
		p.ListVersion = listed
		return p
	}
	for name, test := range map[string]struct {
		start     event.Position
		behind    map[string]event.Position
		compacted uint64
		want      []string
		end       string // the last position
		probes    int    // in addition to the one before each watch
		lists     int
	}{
		"one sink, a little behind": {
			start: at(105), behind: map[string]event.Position{"loki": at(103)},
			want: []string{"c@104", "b@105", "a@106", "d@107"}, probes: 1,
		},
		"all at one position": {
			start: at(105), behind: map[string]event.Position{"loki": at(105), "file": at(105)},
			want: []string{"a@106", "d@107"},
		},
		"a dead sink does not affect the others": {
			start: at(106), behind: map[string]event.Position{"dead": at(101)}, compacted: 105,
			want:   []string{"dead:gap:too_old", "dead:c@104", "dead:b@105", "dead:a@106", "dead:=uid-a/0@106", "d@107"},
			probes: 1, lists: 1,
		},
		"the watch begins at the lowest replayable position": {
			start: at(106), behind: map[string]event.Position{"dead": at(101), "slow": at(104), "file": at(105)}, compacted: 104,
			want:   []string{"dead:gap:too_old", "dead:b@102", "dead:a@103", "dead:c@104", "dead:=uid-a/0@104", "b@105", "a@106", "d@107"},
			probes: 2, lists: 1,
		},
		"two dead sinks, one after the other": {
			start: at(106), behind: map[string]event.Position{"dead": at(101), "also": at(104)}, compacted: 106,
			want: []string{
				"also:gap:too_old", "also:b@105", "also:a@106", "also:=uid-a/0@106",
				"dead:gap:too_old", "dead:c@104", "dead:b@105", "dead:a@106", "dead:=uid-a/0@106", "d@107",
			},
			probes: 2, lists: 2,
		},
		"nothing can be replayed": {
			start: at(105), behind: map[string]event.Position{"dead": at(101)}, compacted: 107,
			want:   []string{"dead:gap:too_old", "dead:c@104", "dead:b@105", "dead:=uid-a/0@105", "gap:too_old", "a@106", "d@107"},
			probes: 1, lists: 3,
		},
		"a sink from before a restore": {
			start: restoredOnce(105), behind: map[string]event.Position{"dead": at(104)},
			want: []string{"dead:gap:restored", "dead:a@103", "dead:c@104", "dead:b@105", "dead:=uid-a/1@105", "a@106", "d@107"},
			end:  "uid-a/1@107", lists: 1,
		},
		"a sink from another cluster": {
			start: at(105), behind: map[string]event.Position{"dead": {Epoch: event.Epoch{Cluster: "uid-z", Restores: 7}, Version: 9000}},
			want:  []string{"dead:gap:other_cluster", "dead:a@103", "dead:c@104", "dead:b@105", "dead:=uid-a/0@105", "a@106", "d@107"},
			lists: 1,
		},
		"a new sink": {
			start: at(105), behind: map[string]event.Position{"new": {}},
			want:  []string{"new:a@103", "new:c@104", "new:b@105", "new:=uid-a/0@105", "a@106", "d@107"},
			lists: 1,
		},
		"one in a list that the others have completed": {
			start: at(105), behind: map[string]event.Position{"slow": listing(101, 104)}, compacted: 102,
			want:   []string{"b@102", "a@103", "c@104", "b@105", "a@106", "d@107"},
			probes: 1, lists: 1,
		},
		"all in one list": {
			start: listing(103, 105), behind: map[string]event.Position{"slow": listing(101, 105)}, compacted: 105,
			want:   []string{"a@103", "c@104", "b@105", "a@106", "d@107"},
			probes: 1, lists: 1,
		},
		"all in one list, which is too old": {
			start: listing(103, 105), behind: map[string]event.Position{"slow": listing(101, 105)}, compacted: 106,
			want:   []string{"slow:gap:too_old", "slow:=uid-a/0@103+list@105", "gap:too_old", "c@104", "b@105", "a@106", "d@107"},
			probes: 1, lists: 2,
		},
		// A list as of 105 would not show the second sink states that were overwritten before.
		"one in a list, one before its version": {
			start: at(106), behind: map[string]event.Position{"listing": listing(101, 105), "slow": at(102)},
			want:   []string{"b@102", "a@103", "c@104", "b@105", "a@106", "d@107"},
			probes: 1, lists: 1,
		},
		"one in a list, one before its version and too old": {
			start: at(106), behind: map[string]event.Position{"listing": listing(101, 105), "slow": at(102)}, compacted: 104,
			want: []string{
				"slow:gap:too_old", "slow:=uid-a/0@102+list@105",
				"a@103", "c@104", "b@105", "a@106", "d@107",
			},
			probes: 2, lists: 2,
		},
		"a restore that no sink has seen": {
			start: at(500), behind: map[string]event.Position{"dead": at(101)},
			want: []string{"gap:restored", "c@104", "b@105", "a@106", "d@107"},
			end:  "uid-a/1@107", lists: 1,
		},
		"another cluster that no sink has seen": {
			start:  event.Position{Epoch: event.Epoch{Cluster: "uid-z", Restores: 3}, Version: 105},
			behind: map[string]event.Position{"dead": {Epoch: event.Epoch{Cluster: "uid-z", Restores: 3}, Version: 101}},
			want:   []string{"gap:other_cluster", "c@104", "b@105", "a@106", "d@107"},
			lists:  1,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				a := newAPI(t)
				writeHistory(a)
				a.Compact(test.compacted)
				given := maps.Clone(test.behind)
				var gaps []string
				r := run(a, test.start, sinksAt(test.behind), func(o *Options) {
					o.OnGap = func(g event.Gap) { gaps = append(gaps, strings.TrimPrefix(g.Sink+":gap:"+string(g.Cause), ":")) }
				})
				time.Sleep(time.Minute)
				synctest.Wait()
				records := r.journal.all()
				wantStates(t, "emitted", addressed(records), test.want...)
				wantPosition(t, r.Position(), max(test.end, "uid-a/0@107"))
				if n := a.CountRequests("resourceVersionMatch=Exact", "limit=1&"); n != test.probes {
					t.Errorf("%d probes for a replayable version, want %d", n, test.probes)
				}
				if n := a.CountRequests("limit=500"); n != test.lists {
					t.Errorf("%d lists, want %d", n, test.lists)
				}
				declared := slices.DeleteFunc(slices.Clone(test.want), func(s string) bool { return !strings.Contains(s, "gap:") })
				wantStates(t, "gaps", gaps, declared...)
				if !maps.Equal(test.behind, given) {
					t.Error("the caller's map was changed")
				}
				for _, rec := range records {
					if rec.Gap && rec.OnlySink != "" {
						from := test.behind[rec.OnlySink].Version
						if got := rec.Event.Annotations["hindsight/from_version"]; got != fmt.Sprint(from) {
							t.Errorf("gap of %s from version %s, want %d", rec.OnlySink, got, from)
						}
					}
				}
			})
		})
	}
}

// Sinks behind are logged at the start and after each list, and counted in the metrics.
func TestSinksBehindAreReported(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := newAPI(t)
		writeHistory(a)
		a.Compact(105)
		reg := prometheus.NewRegistry()
		r := run(a, at(106), sinksAt(map[string]event.Position{"loki": at(105), "dead": at(103)}), func(o *Options) {
			o.StartReason = "lease"
			o.Metrics = NewMetrics(reg)
		})
		synctest.Wait()
		_ = r.stop()
		log := r.log.String()
		for _, want := range []string{
			`msg="reading events" from=uid-a/0@106 reason=lease behind="dead uid-a/0@103, loki uid-a/0@105"`,
			`msg="listed events" sink=dead reason=behind from=uid-a/0@103 to=uid-a/0@105 listed=3 emitted=2 already_seen=1`,
			`msg="events may have been missed" sink=dead cause=too_old from=uid-a/0@103 to=uid-a/0@105`,
			`msg="stopped reading events" at=uid-a/0@107 emitted=4 already_seen=1`,
		} {
			if !strings.Contains(log, want) {
				t.Errorf("not logged: %s", want)
			}
		}
		err := testutil.GatherAndCompare(reg, strings.NewReader(`
			# HELP hindsight_watch_relists_total Lists read, by reason.
			# TYPE hindsight_watch_relists_total counter
			hindsight_watch_relists_total{reason="behind",source=""} 1
			hindsight_watch_relists_total{reason="closed_at_once",source=""} 0
			hindsight_watch_relists_total{reason="first",source=""} 0
			hindsight_watch_relists_total{reason="interrupted",source=""} 0
			hindsight_watch_relists_total{reason="other_cluster",source=""} 0
			hindsight_watch_relists_total{reason="restored",source=""} 0
hindsight_watch_relists_total{reason="stalled",source=""} 0
			hindsight_watch_relists_total{reason="too_old",source=""} 0
			hindsight_watch_relists_total{reason="watch_failing",source=""} 0
		`), "hindsight_watch_relists_total")
		if err != nil {
			t.Error(err)
		}
	})
}

// If the API server answers neither yes nor 410 to a probe for a replayable version, the probe is
// retried.
func TestReplayProbeFails(t *testing.T) {
	t.Parallel()
	for name, answer := range map[string]http.HandlerFunc{
		"forbidden": func(w http.ResponseWriter, r *http.Request) {
			fakeapi.Fail(w, r, http.StatusForbidden, "events is forbidden")
		},
		"too many requests": func(w http.ResponseWriter, r *http.Request) {
			fakeapi.Fail(w, r, http.StatusTooManyRequests, "too many requests")
		},
		"etcd has no leader": func(w http.ResponseWriter, r *http.Request) {
			fakeapi.Fail(w, r, http.StatusInternalServerError, "etcdserver: no leader")
		},
		"version from the future": func(w http.ResponseWriter, r *http.Request) {
			fakeapi.Fail(w, r, http.StatusGatewayTimeout, "Too large resource version")
		},
		"connection lost": func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
		"HTML":            func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("<html>")) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				a := newAPI(t)
				writeHistory(a)
				probes := 0
				a.Intercept(func(w http.ResponseWriter, r *http.Request) bool {
					if q := r.URL.Query(); q.Get("limit") != "1" || q.Get("resourceVersionMatch") == "" {
						return false
					}
					if probes++; probes > 2 {
						return false
					}
					answer(w, r)
					return true
				})
				r := run(a, at(105), sinksAt(map[string]event.Position{"loki": at(103)}))
				time.Sleep(2 * time.Minute)
				synctest.Wait()
				wantStates(t, "emitted", addressed(r.journal.all()), "c@104", "b@105", "a@106", "d@107")
				if err := r.Ready(); err != nil {
					t.Errorf("not ready: %v", err)
				}
			})
		})
	}
}

// The position of a slow sink is compacted before the common watch begins there. Sinks further
// ahead get no gap record.
func TestSlowSinkBecomesTooOldLater(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		when func(r *http.Request) bool // the request before which etcd is compacted
		want []string
	}{
		"before its watch": {
			func(r *http.Request) bool { return fakeapi.IsWatch(r) },
			[]string{"slow:gap:too_old", "slow:a@103", "slow:c@104", "slow:b@105", "slow:=uid-a/0@105", "a@106", "d@107"},
		},
		"while another is caught up": {
			func(r *http.Request) bool { return isPage(r) },
			[]string{
				"dead:gap:too_old", "dead:gap:too_old", "dead:a@103", "dead:c@104", "dead:b@105", "dead:=uid-a/0@105",
				"slow:gap:too_old", "slow:a@103", "slow:c@104", "slow:b@105", "slow:=uid-a/0@105", "a@106", "d@107",
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				a := newAPI(t)
				writeHistory(a)
				behind := map[string]event.Position{"slow": at(102)}
				if strings.Contains(name, "another") {
					behind["dead"] = at(101)
					a.Compact(102)
				}
				a.Intercept(func(_ http.ResponseWriter, r *http.Request) bool {
					if test.when(r) {
						a.Compact(105)
					}
					return false
				})
				r := run(a, at(105), sinksAt(behind))
				time.Sleep(time.Minute)
				synctest.Wait()
				// The record of the end of a list may be merged with the next one for the sink.
				got := slices.DeleteFunc(addressed(r.journal.all()), func(s string) bool { return s == "dead:=uid-a/0@102" })
				wantStates(t, "emitted", got, test.want...)
				wantPosition(t, r.position(), "uid-a/0@107")
			})
		})
	}
}

// After a restore during a catch-up, everything is read again for all sinks.
func TestRestoreDuringCatchUp(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := newAPI(t)
		writeHistory(a)
		a.Compact(104)
		lists := 0
		a.Intercept(func(_ http.ResponseWriter, r *http.Request) bool {
			if isPage(r) {
				if lists++; lists == 1 {
					a.Restore(103)
				}
			}
			return false
		})
		r := run(a, at(106), sinksAt(map[string]event.Position{"dead": at(101)}))
		time.Sleep(time.Minute)
		synctest.Wait()
		wantStates(t, "emitted", addressed(r.journal.all()), "gap:restored", "b@102", "a@103")
		wantPosition(t, r.position(), "uid-a/1@103")
		if from := r.journal.all()[0].Event.Annotations["hindsight/from_version"]; from != "106" {
			t.Errorf("gap from version %s, want the start", from)
		}
	})
}

// A lagging API server answers once during a catch-up. The list is retried; a sink that was caught
// up before gets nothing twice.
func TestLaggingServerDuringCatchUp(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := newAPI(t)
		writeHistory(a)
		a.Compact(106)
		lists := 0
		a.Intercept(func(w http.ResponseWriter, r *http.Request) bool {
			if !isPage(r) {
				return false
			}
			if lists++; lists != 2 {
				return false
			}
			fakeapi.Respond(w, r, http.StatusOK, &corev1.EventList{ListMeta: metav1.ListMeta{ResourceVersion: "105"}})
			return true
		})
		r := run(a, at(106), sinksAt(map[string]event.Position{"also": at(104), "dead": at(101)}))
		time.Sleep(time.Minute)
		synctest.Wait()
		wantStates(t, "emitted", addressed(r.journal.all()),
			"also:gap:too_old", "also:b@105", "also:a@106", "also:=uid-a/0@106",
			"dead:gap:too_old", "dead:c@104", "dead:b@105", "dead:a@106", "dead:=uid-a/0@106", "d@107")
		wantPosition(t, r.Position(), "uid-a/0@107")
	})
}

// The list for one sink exceeds the space for sorting, and the API server lags during it. Nothing
// is lost, although states may repeat, and all records are for this sink. Until the end, the
// position marks the list as incomplete.
func TestSortOverflowOfOneSink(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := newAPI(t)
		a.padding = strings.Repeat("x", 10<<10)
		want := writeMany(a, 1200)
		a.Compact(a.Version())
		pages := 0
		a.Intercept(func(w http.ResponseWriter, r *http.Request) bool {
			if !isPage(r) {
				return false
			}
			if pages++; pages == 2 {
				fakeapi.Respond(w, r, http.StatusOK, &corev1.EventList{ListMeta: metav1.ListMeta{ResourceVersion: "1299"}})
				return true
			}
			q := r.URL.Query()
			q.Set("limit", "500")
			r.URL.RawQuery = q.Encode()
			return false
		})
		r := run(a, at(a.Version()), sinksAt(map[string]event.Position{"dead": at(100)}), func(o *Options) { o.SortMaxBytes = 1 })
		time.Sleep(time.Minute)
		synctest.Wait()
		records := r.journal.all()
		got := states(records)
		if got[0] != "gap:too_old" {
			t.Errorf("begins with %s", got[0])
		}
		got = slices.DeleteFunc(got, func(s string) bool { return s == "gap:too_old" })
		slices.SortFunc(got, byVersion)
		wantStates(t, "emitted, in any order", slices.Compact(got), want...)
		for _, rec := range records[:len(records)-1] {
			if rec.Position.ListVersion != 1300 {
				t.Fatalf("a record of the list is at %s", rec.Position)
			}
		}
		for i, rec := range records {
			if rec.OnlySink != "dead" {
				t.Fatalf("record %d is for %q", i, rec.OnlySink)
			}
		}
		wantPosition(t, records[len(records)-1].Position, "uid-a/0@1300")
		wantPosition(t, r.Position(), "uid-a/0@1300")
	})
}

// Records that only move the position are merged per sink.
func TestPositionRecordsPerSink(t *testing.T) {
	t.Parallel()
	b := newBatcher("", at(100), nil, nil)
	for _, sink := range []string{"a", "b", "b", ""} {
		before := b.at()
		to := before
		to.Version++
		b.advance(before, to, sink)
	}
	var got []string
	for _, rec := range b.pending.records {
		got = append(got, rec.OnlySink+strconv.FormatUint(rec.Position.Version, 10))
	}
	wantStates(t, "pending", got, "a101", "b103", "104")
	if p, ok := lastForAll(b.pending.records[:2]); ok {
		t.Errorf("position %s is for all", p)
	}
	if p, ok := lastForAll(b.pending.records); !ok || p != at(104) {
		t.Errorf("position %s is for all: %t", p, ok)
	}
}

// One leader declares a gap to all sinks; the next one declares it again to a sink that had not
// accepted it. Both records are equal, so the gap is shown once.
func TestGapDeclaredAgainIsEqual(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := newAPI(t)
		a.write("a")
		a.write("b")
		time.Sleep(10 * time.Second)
		a.write("c") // 103, the newest of the gap
		a.compact()
		var gaps []event.Gap
		first := run(a, at(101), func(o *Options) { o.OnGap = func(g event.Gap) { gaps = append(gaps, g) } })
		synctest.Wait()
		_ = first.stop()
		a.write("c") // so that a list shows less of the gap
		a.compact()
		second := run(a, at(103), sinksAt(map[string]event.Position{"loki": at(101)}), func(o *Options) { o.KnownGaps = gaps })
		synctest.Wait()
		lines := func(r *running) (gaps []string) {
			for _, rec := range r.journal.all() {
				if rec.Gap && rec.Event.ResourceVersion == "103" {
					gaps = append(gaps, string(format.Encoder{Format: format.EventRouter, Standalone: true}.Append(nil, &rec)))
				}
			}
			return gaps
		}
		if one, again := lines(first), lines(second); len(one) != 1 || len(again) != 1 || one[0] != again[0] {
			t.Errorf("declared first as\n%s\nand again as\n%s", one, again)
		}
	})
}
