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
	"github.com/hindsight-events/hindsight/test/fakeloki"
)

// rejecter rejects single records like Loki: the distributor those that are old, future or long,
// the ingester those that are behind or rate limited.
type rejecter struct {
	old, future, long, behind map[int]bool

	rateLimited map[int]bool // rejected once
	names       int          // bound of the entries that the ingester names; 10 in Loki
}

const stream = `{cluster="prod", job="hindsight", namespace="team-a", reason="Pulled", service_name="hindsight"}`

func (r *rejecter) script(t *testing.T) fakeloki.Script {
	return func(p *fakeloki.Push) fakeloki.Response {
		groups := map[string]int{}
		var received []fakeloki.Entry // by the ingester
		for _, e := range p.Entries() {
			n := number(t, e.Line)
			at := e.Time.UTC().Format(time.RFC3339)
			switch {
			case r.old[n]:
				groups["entry for stream '"+stream+"' has timestamp too old: "+at+", oldest acceptable timestamp is: 2019-07-19T13:00:00+02:00"]++
			case r.future[n]:
				groups["entry for stream '"+stream+"' has timestamp too new: "+at]++
			case r.long[n]:
				groups[fmt.Sprintf("max entry size '100' bytes exceeded for stream '%s' while adding an entry with length '%d' bytes", stream, len(e.Line))]++
			default:
				received = append(received, e)
			}
		}
		var named []string
		total, status := 0, http.StatusBadRequest
		for _, e := range received {
			n := number(t, e.Line)
			reason := ""
			switch {
			case r.behind[n]:
				reason = "entry too far behind, entry timestamp is: " + e.Time.UTC().Format(time.RFC3339) + ", oldest acceptable timestamp is: 2019-07-19T11:00:00Z"
				status = http.StatusBadRequest
			case r.rateLimited[n]:
				delete(r.rateLimited, n)
				reason = "Per stream rate limit exceeded (limit: 3MB/sec) while attempting to ingest for stream '" + stream + "' totaling 135B, consider splitting a stream via additional labels or contact your Loki administrator to see if the limit can be increased"
				status = http.StatusTooManyRequests
			default:
				continue
			}
			if total++; total <= r.names {
				named = append(named, fmt.Sprintf("entry with timestamp %s ignored, reason: '%s',\n", e.Time.UTC(), reason))
			}
		}
		if total > 0 { // hides the rejections of the distributor
			return fakeloki.Response{Status: status, Body: strings.Join(named, "") +
				fmt.Sprintf("user 'fake', total ignored: %d out of %d for stream: %s\n", total, len(received), stream)}
		}
		var parts []string
		for message, n := range groups {
			if len(groups) > 1 || n > 1 {
				message = fmt.Sprintf("%d errors like: %s", n, message)
			}
			parts = append(parts, message)
		}
		if len(parts) > 0 {
			return fakeloki.Response{Status: http.StatusBadRequest, Body: strings.Join(parts, "; ") + "\n"}
		}
		return accept(p)
	}
}

// set returns a set of numbers, each from the first up to before the second of a range.
func set(ranges ...[2]int) map[int]bool {
	s := map[int]bool{}
	for _, r := range ranges {
		for n := r[0]; n < r[1]; n++ {
			s[n] = true
		}
	}
	return s
}

func TestPartlyRejectedPush(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		loki    rejecter
		pushes  int // until the batch is complete
		errors  int // failed attempts
		want    map[int]bool
		message string
	}{
		"a record is too old": {
			rejecter{old: set([2]int{0, 1})}, 1, 0, set([2]int{0, 1}), "has timestamp too old",
		},
		"the oldest of a second are too old": {
			rejecter{old: set([2]int{0, 7})}, 1, 0, set([2]int{0, 7}), "has timestamp too old",
		},
		"too old, too new and too long at once": {
			rejecter{old: set([2]int{0, 9}), future: set([2]int{93, 100}), long: set([2]int{50, 51})},
			1, 0, set([2]int{0, 9}, [2]int{50, 51}, [2]int{93, 100}), "",
		},
		"all of them": {
			rejecter{old: set([2]int{0, 100})}, 1, 0, set([2]int{0, 100}), "has timestamp too old",
		},
		"some are too far behind": {
			rejecter{behind: set([2]int{0, 2}, [2]int{5, 9}), names: 10}, 1, 0, set([2]int{0, 2}, [2]int{5, 9}), "entry too far behind",
		},
		"more are too far behind than are named, and the rest can be inferred": {
			rejecter{behind: set([2]int{0, 40}), names: 10}, 1, 0, set([2]int{0, 40}), "entry too far behind",
		},
		"more are too far behind than are named, and the rest is unknown": {
			rejecter{behind: set([2]int{0, 10}, [2]int{90, 92}), names: 10}, 1, 0, set([2]int{0, 100}), "",
		},
		"some are too far behind, which hides others that are too old": {
			rejecter{old: set([2]int{0, 3}), behind: set([2]int{3, 5}), names: 10}, 2, 0, set([2]int{0, 5}), "",
		},
		"some are too far behind and others are rate limited": {
			rejecter{rateLimited: set([2]int{10, 20}), behind: set([2]int{0, 5}), names: 15}, 2, 1, set([2]int{0, 5}), "",
		},
		"some are rate limited, which hides others that are too far behind": {
			rejecter{rateLimited: set([2]int{0, 30}), behind: set([2]int{90, 92}), names: 10}, 2, 1, set([2]int{90, 92}), "",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			unknown := strings.HasSuffix(name, "unknown")
			l := startLoki(t)
			dir := t.TempDir()
			s := newSink(t, l.URL, func(_ *loki.Config, o *loki.Options) { o.DeadLetterDir = dir })
			records := sinktest.Records(0, 100)
			start := time.Date(2019, 7, 19, 10, 59, 54, 0, time.UTC) // 40 records are before 11:00
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
			l.ScriptPushes(c.loki.script(t))
			failed, rejected := send(t, s, sinktest.Batch(s, records), 5)
			if rejected == nil {
				t.Fatal("nothing was rejected")
			}
			pushes := len(l.Pushes())
			if len(failed) != c.errors || pushes < c.pushes {
				t.Errorf("%d attempts failed, with %d pushes; want %d and at least %d: %v", len(failed), pushes, c.errors, c.pushes, failed)
			}
			if c.errors == 0 && pushes != c.pushes {
				t.Errorf("%d pushes, want %d", pushes, c.pushes)
			}
			got := map[int]bool{}
			for _, r := range rejected.Rejected {
				if got[r.Index] {
					t.Errorf("record %d was rejected twice", r.Index)
				}
				got[r.Index] = true
				if !strings.Contains(r.Reason, c.message) {
					t.Errorf("record %d was rejected with %q, want %q", r.Index, r.Reason, c.message)
				}
			}
			required := c.want
			if unknown {
				required = c.loki.behind
			}
			for n := range required {
				if !got[n] {
					t.Errorf("record %d is neither rejected nor stored", n)
				}
			}
			for n := range got {
				if !c.want[n] {
					t.Errorf("record %d was rejected although it is stored", n)
				}
			}
			if letters := readDeadLetters(t, filepath.Join(dir, "loki.jsonl")); len(letters) != len(got) {
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

func readDeadLetters(t *testing.T, path string) (all []deadLetter) {
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

func FuzzRejection(f *testing.F) {
	f.Add("2 errors like: entry for stream '"+stream+"' has timestamp too old: 2019-07-19T11:00:00Z, oldest acceptable timestamp is: 2019-07-19T11:00:00Z; 1 errors like: entry for stream '"+stream+"' has timestamp too new: 2019-07-19T11:00:01Z", 3, false)
	f.Add("max entry size '100' bytes exceeded for stream '"+stream+"' while adding an entry with length '144' bytes\n", 3, false)
	f.Add("stream '"+stream+"' has structured metadata too large: '70000' bytes, limit: '65536' bytes. Please see", 1, false)
	f.Add("stream '"+stream+"' has too many structured metadata labels: '200', limit: '128'. Please see", 1, false)
	f.Add("entry with timestamp 2019-07-19 11:00:00.000001 +0000 UTC ignored, reason: 'entry too far behind, entry timestamp is: 2019-07-19T11:00:00Z, oldest acceptable timestamp is: 2019-07-19T12:00:00Z',\nuser 'fake', total ignored: 3 out of 9 for stream: "+stream, 9, false)
	f.Add("", 2, true)
	f.Fuzz(func(t *testing.T, body string, n int, busy bool) {
		n = min(max(n, 1), 50)
		loki.CheckRejection(t, body, sinktest.Records(0, n), busy)
	})
}
