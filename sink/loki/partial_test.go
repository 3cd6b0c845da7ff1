package loki_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hindsight-events/hindsight/sink/loki"
	"github.com/hindsight-events/hindsight/sink/sinktest"
)

// number returns which of sinktest's records an entry is of.
func number(t *testing.T, line string) (n int) {
	t.Helper()
	at := strings.Index(line, "record-")
	if at < 0 {
		t.Fatalf("no record in %q", line)
	}
	fmt.Sscanf(line[at:], "record-%d.", &n)
	return n
}

// refusing is a Loki that refuses records, in its words: old ones as the
// distributor does, such that are behind as the ingester does.
type refusing struct {
	old, future, long, behind map[int]bool

	rateLimit map[int]bool // entries that the ingester refuses only once
	names     int          // how many the ingester names; 10 in a real one
}

const stream = `{cluster="prod", job="hindsight", namespace="team-a", reason="Pulled", service_name="hindsight"}`

func (r *refusing) answer(t *testing.T) func(http.ResponseWriter, string, []entry) (int, string) {
	return func(_ http.ResponseWriter, _ string, entries []entry) (int, string) {
		grouped := map[string]int{}
		var ingester []entry
		for _, e := range entries {
			n := number(t, e.line)
			at := e.at.UTC().Format(time.RFC3339)
			switch {
			case r.old[n]:
				grouped["entry for stream '"+stream+"' has timestamp too old: "+at+", oldest acceptable timestamp is: 2019-07-19T13:00:00+02:00"]++
			case r.future[n]:
				grouped["entry for stream '"+stream+"' has timestamp too new: "+at]++
			case r.long[n]:
				grouped[fmt.Sprintf("max entry size '100' bytes exceeded for stream '%s' while adding an entry with length '%d' bytes", stream, len(e.line))]++
			default:
				ingester = append(ingester, e)
			}
		}
		var named []string
		total, status := 0, http.StatusBadRequest
		for _, e := range ingester {
			n := number(t, e.line)
			why := ""
			switch {
			case r.behind[n]:
				why = "entry too far behind, entry timestamp is: " + e.at.UTC().Format(time.RFC3339) + ", oldest acceptable timestamp is: 2019-07-19T11:00:00Z"
				status = http.StatusBadRequest
			case r.rateLimit[n]:
				delete(r.rateLimit, n)
				why = "Per stream rate limit exceeded (limit: 3MB/sec) while attempting to ingest for stream '" + stream + "' totaling 135B, consider splitting a stream via additional labels or contact your Loki administrator to see if the limit can be increased"
				status = http.StatusTooManyRequests
			default:
				continue
			}
			if total++; total <= r.names {
				named = append(named, fmt.Sprintf("entry with timestamp %s ignored, reason: '%s',\n", e.at.UTC(), why))
			}
		}
		if total > 0 { // hides what the distributor has refused
			return status, strings.Join(named, "") + fmt.Sprintf("user 'fake', total ignored: %d out of %d for stream: %s\n", total, len(ingester), stream)
		}
		var parts []string
		for message, n := range grouped {
			if len(grouped) > 1 || n > 1 {
				message = fmt.Sprintf("%d errors like: %s", n, message)
			}
			parts = append(parts, message)
		}
		if len(parts) > 0 {
			return http.StatusBadRequest, strings.Join(parts, "; ") + "\n"
		}
		return http.StatusNoContent, ""
	}
}

// set makes a set of numbers, each from to before to.
func set(ranges ...[2]int) map[int]bool {
	s := map[int]bool{}
	for _, r := range ranges {
		for n := r[0]; n < r[1]; n++ {
			s[n] = true
		}
	}
	return s
}

func TestRefusedInPart(t *testing.T) {
	for name, c := range map[string]struct {
		loki   refusing
		pushes int // until all is settled
		errors int // attempts of the delivery that fail
		want   map[int]bool
		says   string
	}{
		"a record is too old": {
			refusing{old: set([2]int{0, 1})}, 1, 0, set([2]int{0, 1}), "has timestamp too old",
		},
		"the older ones of a second are too old": {
			refusing{old: set([2]int{0, 7})}, 1, 0, set([2]int{0, 7}), "has timestamp too old",
		},
		"too old, too new and too long at once": {
			refusing{old: set([2]int{0, 9}), future: set([2]int{93, 100}), long: set([2]int{50, 51})},
			1, 0, set([2]int{0, 9}, [2]int{50, 51}, [2]int{93, 100}), "",
		},
		"all of them": {
			refusing{old: set([2]int{0, 100})}, 1, 0, set([2]int{0, 100}), "has timestamp too old",
		},
		"some are too far behind": {
			refusing{behind: set([2]int{0, 2}, [2]int{5, 9}), names: 10}, 1, 0, set([2]int{0, 2}, [2]int{5, 9}), "entry too far behind",
		},
		"more are too far behind than are named, and it is clear which": {
			refusing{behind: set([2]int{0, 40}), names: 10}, 1, 0, set([2]int{0, 40}), "entry too far behind",
		},
		"more are too far behind than are named, and it is not clear which: all that may be": {
			refusing{behind: set([2]int{0, 10}, [2]int{90, 92}), names: 10}, 1, 0, set([2]int{0, 100}), "",
		},
		"some are too far behind, which hides that others are too old": {
			refusing{old: set([2]int{0, 3}), behind: set([2]int{3, 5}), names: 10}, 2, 0, set([2]int{0, 5}), "",
		},
		"some are too far behind and others have to wait": {
			refusing{rateLimit: set([2]int{10, 20}), behind: set([2]int{0, 5}), names: 15}, 2, 1, set([2]int{0, 5}), "",
		},
		"some have to wait, which hides that others are too far behind": {
			refusing{rateLimit: set([2]int{0, 30}), behind: set([2]int{90, 92}), names: 10}, 2, 1, set([2]int{90, 92}), "",
		},
	} {
		t.Run(name, func(t *testing.T) {
			d := newServer(t)
			dir := t.TempDir()
			s := newSink(t, d.URL, func(_ *loki.Config, o *loki.Options) { o.DeadLetterDir = dir })
			records := sinktest.Records(0, 100)
			start := time.Date(2019, 7, 19, 10, 59, 54, 0, time.UTC) // 40 records are from before 11
			for i := range records {
				records[i].Time = start.Add(time.Duration(i) * time.Second / 7)
			}
			if strings.Contains(name, "more are") {
				for i := range records[:40] {
					records[i].Time = start.Add(time.Duration(i) * time.Millisecond)
				}
				for i := range records[40:] {
					records[40+i].Time = start.Add(time.Duration(10+i) * time.Second)
				}
			}
			records[50].Event.Message = "record-50. " + strings.Repeat("x", 200)
			d.answer = c.loki.answer(t)
			failed, refused := send(t, s, sinktest.Batch(s, records), 5)
			if refused == nil {
				t.Fatal("nothing was refused")
			}
			if len(failed) != c.errors || len(d.requests) < c.pushes {
				t.Errorf("%d attempts failed, with %d pushes; want %d and at least %d: %v", len(failed), len(d.requests), c.errors, c.pushes, failed)
			}
			if c.errors == 0 && len(d.requests) != c.pushes {
				t.Errorf("%d pushes, want %d", len(d.requests), c.pushes)
			}
			got := map[int]bool{}
			for _, r := range refused.Rejected {
				if got[r.Index] {
					t.Errorf("record %d was refused twice", r.Index)
				}
				got[r.Index] = true
				if !strings.Contains(r.Reason, c.says) {
					t.Errorf("record %d was refused with %q, want %q", r.Index, r.Reason, c.says)
				}
			}
			for n := range c.want {
				if !got[n] && !strings.Contains(name, "not clear") {
					t.Errorf("record %d was not refused, and is not stored", n)
				}
			}
			for n := range got {
				if !c.want[n] {
					t.Errorf("record %d was refused, although it is stored", n)
				}
			}
			if strings.Contains(name, "not clear") {
				for _, n := range []int{90, 91} {
					if !got[n] {
						t.Errorf("record %d was not refused, and is not stored", n)
					}
				}
			}
			if letters := readLetters(t, filepath.Join(dir, "loki.jsonl")); len(letters) != len(got) {
				t.Errorf("%d dead letters, want %d", len(letters), len(got))
			}
		})
	}
}

type deadLetter struct {
	Time   time.Time
	Status int
	Error  string
	Labels string
	Entry  struct {
		Timestamp time.Time
		Line      string
		Metadata  map[string]string `json:"structured_metadata"`
	}
}

func readLetters(t *testing.T, path string) (all []deadLetter) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(data)) {
		var l deadLetter
		if err := json.Unmarshal([]byte(line), &l); err != nil {
			t.Fatalf("dead letter %q: %v", line, err)
		}
		all = append(all, l)
	}
	return all
}

func FuzzRefusal(f *testing.F) {
	f.Add("2 errors like: entry for stream '"+stream+"' has timestamp too old: 2019-07-19T11:00:00Z, oldest acceptable timestamp is: 2019-07-19T11:00:00Z; 1 errors like: entry for stream '"+stream+"' has timestamp too new: 2019-07-19T11:00:01Z", 3, false)
	f.Add("max entry size '100' bytes exceeded for stream '"+stream+"' while adding an entry with length '144' bytes\n", 3, false)
	f.Add("stream '"+stream+"' has structured metadata too large: '70000' bytes, limit: '65536' bytes. Please see", 1, false)
	f.Add("stream '"+stream+"' has too many structured metadata labels: '200', limit: '128'. Please see", 1, false)
	f.Add("entry with timestamp 2019-07-19 11:00:00.000001 +0000 UTC ignored, reason: 'entry too far behind, entry timestamp is: 2019-07-19T11:00:00Z, oldest acceptable timestamp is: 2019-07-19T12:00:00Z',\nuser 'fake', total ignored: 3 out of 9 for stream: "+stream, 9, false)
	f.Add("", 2, true)
	f.Fuzz(func(t *testing.T, body string, n int, busy bool) {
		n = min(max(n, 1), 50)
		loki.CheckRefusal(t, body, sinktest.Records(0, n), busy)
	})
}
