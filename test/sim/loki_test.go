package main

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/golang/snappy"
	"google.golang.org/protobuf/encoding/protowire"
)

// request is a push with one entry in each stream.
func request(version string, labels ...string) string {
	var push []byte
	for _, l := range labels {
		metadata := appendField(appendField(nil, 1, []byte("event_version")), 2, []byte(version))
		entry := appendField(appendField(nil, 1, nil), 2, []byte("line"))
		if version != "" {
			entry = appendField(entry, 3, metadata)
		}
		push = protowire.AppendBytes(protowire.AppendTag(push, 1, protowire.BytesType),
			appendField(appendField(nil, 1, []byte(l)), 2, entry))
	}
	return string(snappy.Encode(nil, push))
}

func TestLokiCountsAndNoticesRepeats(t *testing.T) {
	url, _ := start(t, 10)
	push := func(body string) int {
		resp, err := http.Post(url+"/loki/api/v1/push", "application/x-protobuf", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		return resp.StatusCode
	}
	for _, body := range []string{
		request("1000000003", `{a="1"}`),
		request("1000000003", `{a="1"}`), // again
		request("1000000004", `{a="2"}`),
		request("", `{a="1"}`, `{a="2"}`), // not of ours
		request("", `{a="1"}`),            // again
	} {
		if got := push(body); got != http.StatusNoContent {
			t.Fatalf("a push is answered with %d", got)
		}
	}
	if got := push("no snappy"); got != http.StatusBadRequest {
		t.Errorf("an invalid push gets the status %d", got)
	}
	post(t, url+"/sim/loki?status=503")
	if got := push(request("1000000005", `{a="1"}`)); got != http.StatusServiceUnavailable {
		t.Errorf("refused pushes get the status %d", got)
	}
	resp, err := http.Get(url + "/sim/received?entries=4")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var got received
	if err := json.NewDecoder(resp.Body).Decode(&got); err != nil {
		t.Fatal(err)
	}
	if got.Entries != 4 || got.Repeated != 2 || got.Pushes != 5 || got.Refused != 1 || got.Streams != 2 {
		t.Errorf("received %+v", got)
	}
}

func TestLokiSaysHowLongStatesTook(t *testing.T) {
	e := served(t)
	synctest.Test(t, func(t *testing.T) {
		handler := newSim(2, e, time.Now())
		serve := func(method, path, body string) string {
			w := httptest.NewRecorder()
			handler.ServeHTTP(w, httptest.NewRequest(method, path, strings.NewReader(body)))
			if w.Code >= http.StatusMultipleChoices {
				t.Fatalf("%s: %d: %s", path, w.Code, w.Body)
			}
			return w.Body.String()
		}
		const push = "/loki/api/v1/push"
		began := time.Now()
		time.Sleep(3 * time.Second)
		serve("POST", push, request("1000000001", "{}"))
		serve("POST", push, request("1000000002", "{}"))
		serve("POST", "/sim/write?events=1", "")
		written := time.Now()
		time.Sleep(time.Second)
		serve("POST", push, request("1000000003", "{}"))
		serve("POST", push, request("1000000003", "{}")) // a duplicate
		for _, test := range []struct {
			name, since string
			want        []time.Duration
		}{
			{"of watched Events", "", []time.Duration{time.Since(written), time.Since(written), time.Since(written)}},
			{"of initial Events, too", "&since=" + url.QueryEscape(began.Format(time.RFC3339Nano)), []time.Duration{3 * time.Second, 3 * time.Second, 3 * time.Second}},
		} {
			var got received
			if err := json.Unmarshal([]byte(serve("GET", "/sim/received?entries=3"+test.since, "")), &got); err != nil {
				t.Fatal(err)
			}
			for i, lag := range []float64{got.LagMedian, got.LagNinetyNine, got.LagMax} {
				// The write takes one more tick, a millisecond.
				if want := test.want[i].Seconds(); lag < want-0.01 || lag > want+0.01 {
					t.Errorf("%s: lags %+v, want %v", test.name, got, test.want)
				}
			}
		}
	})
}

func TestLokiCanBeSlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLoki(newHistory(1, time.Now()), nil)
		l.behave(0, 20*time.Millisecond)
		began := time.Now()
		w := httptest.NewRecorder()
		l.push(w, httptest.NewRequest(http.MethodPost, "/", strings.NewReader(request("1000000001", "{}"))))
		if took := time.Since(began); w.Code != http.StatusNoContent || took != 20*time.Millisecond {
			t.Errorf("a push is answered with %d after %v, want 20ms", w.Code, took)
		}
	})
}

func TestWritesAtARate(t *testing.T) {
	for _, test := range []struct {
		name     string
		n        int
		rate     float64
		from, to time.Duration
	}{
		{"at once", 200_000, 0, 0, time.Millisecond},
		{"500 a second", 30_000, 500, time.Minute, time.Minute + time.Millisecond},
		{"faster than the clock ticks", 100_000, 50_000, 2 * time.Second, 2*time.Second + time.Millisecond},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHistory(0, time.Now())
				began := time.Now()
				h.write(context.Background(), test.n, test.rate)
				if took := time.Since(began); took < test.from || took > test.to {
					t.Errorf("took %v, want %v", took, test.from)
				}
				all, _ := h.now()
				if all.len() != test.n {
					t.Fatalf("%d states, want %d", all.len(), test.n)
				}
				if test.rate == 0 {
					return
				}
				for _, i := range []int{test.n / 10, test.n / 2, test.n} { // evenly
					at := time.Unix(0, all.written[i-1]).Sub(began)
					want := time.Duration(float64(i) / test.rate * float64(time.Second))
					if at < want-time.Millisecond || at > want+time.Millisecond {
						t.Errorf("state %d is written after %v, want %v", i, at, want)
					}
				}
			})
		})
	}
}
