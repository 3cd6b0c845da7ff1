package lease

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/hindsight-events/hindsight/event"
)

var (
	epoch  = event.Epoch{Cluster: "5a3c0d7e-9a53-4a8e-8b50-6d4f1f6f2c11"}
	second = time.Date(2019, 7, 19, 11, 0, 0, 0, time.UTC)
)

func position(version uint64) event.Position {
	return event.Position{Epoch: epoch, Version: version, Time: second.Add(time.Duration(version) * time.Second)}
}

// Another release may read the annotation. If this test changes, the version changes.
func TestAnnotationFormat(t *testing.T) {
	listing := position(700)
	listing.ListVersion = 900
	restored := position(20)
	restored.Epoch.Restores = 1
	h := Checkpoint{
		Sinks: map[string]map[string]event.Position{
			"loki":     {"": position(812), "kube-system": restored},
			"stdout":   {"": listing},
			"new":      {},
			"starting": {"": {}},
		},
		Gaps: []event.Gap{{
			Source: "kube-system", Namespace: "monitoring", Sink: "loki",
			From: position(100), To: position(200), Cause: event.CauseTooOld, MissedAtLeast: 3,
		}},
	}
	got, err := encode(h)
	if err != nil {
		t.Fatal(err)
	}
	golden := filepath.Join("testdata", "annotation.golden")
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if got+"\n" != string(want) {
		t.Errorf("got\n%s\nwant (%s)\n%s", got, golden, want)
	}
	back, err := decode(got)
	if err != nil || !reflect.DeepEqual(back, h) {
		t.Errorf("decoded %+v (error %v), want %+v", back, err, h)
	}
}

func TestInvalidAnnotations(t *testing.T) {
	for text, want := range map[string]string{
		`{"v":3}`:          "decode annotation hindsight/positions: unknown version 3, want 1",
		`{"v":2}`:          "decode annotation hindsight/positions: EOF",
		gzipped(`{"v":2}`): "decode annotation hindsight/positions: unknown version 2, want 1",
		gzipped(strings.Repeat(" ", maxDocument)): "decode annotation hindsight/positions: it is too large",
		`{}`: "decode annotation hindsight/positions: unknown version 0, want 1",
		`x`:  "decode annotation hindsight/positions: invalid character 'x' looking for beginning of value",
		`{"v":1,"sinks":{"loki":{"*":{"version":1}}}}`:                                          `decode annotation hindsight/positions: sink loki: parse epoch "": want <uid or ->/<number of restores>`,
		`{"v":1,"epoch":"-/0","sinks":{"loki":{"*":{"version":-1}}}}`:                           "decode annotation hindsight/positions: json: cannot unmarshal number -1 into Go struct field",
		`{"v":1,"epoch":"-/0","gaps":[{"from":{"version":1},"to":{"time":"today"},"sink":""}]}`: `decode annotation hindsight/positions: parse time: parsing time "today"`,
	} {
		c, err := decode(text)
		if err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%s: got %v, want %s", text, err, want)
		}
		if !reflect.DeepEqual(c, Checkpoint{}) {
			t.Errorf("%s: got %+v with an error", text, c)
		}
	}
}

func gzipped(text string) string {
	return fmt.Sprintf(`{"v":2,"gzip":%q}`, base64.StdEncoding.EncodeToString(compress([]byte(text))))
}

// A large document is compressed. One that is not, of an earlier release, is read too.
func TestCompressedAnnotation(t *testing.T) {
	want := large(2, 100)
	compressed, err := encode(want)
	if err != nil || !strings.HasPrefix(compressed, `{"v":2,"gzip":"`) {
		t.Fatalf("got %.40s (error %v), want it compressed", compressed, err)
	}
	var d document
	if err := json.Unmarshal([]byte(compressed), &d); err != nil {
		t.Fatal(err)
	}
	if d, err = decompress(d.Gzip); err != nil {
		t.Fatal(err)
	}
	plain, err := json.Marshal(d)
	if err != nil || len(plain) < 3*len(compressed) {
		t.Errorf("%d bytes, and %d bytes compressed (error %v)", len(plain), len(compressed), err)
	}
	for _, text := range []string{compressed, string(plain)} {
		if got, err := decode(text); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("decoded %v (error %v), want %v, from %.40s", got, err, want, text)
		}
	}
}

func TestRemovedSources(t *testing.T) {
	h := Checkpoint{
		Sinks:          map[string]map[string]event.Position{"loki": {"": position(1), "team-a": position(2), "team-b": position(3)}},
		RemovedSources: map[string]time.Time{"": second, "team-a": second.Add(time.Hour)},
	}
	text, err := encode(h)
	if err != nil {
		t.Fatal(err)
	}
	if want := `"unlisted":{"*":"2019-07-19T11:00:00Z","team-a":"2019-07-19T12:00:00Z"}`; !strings.Contains(text, want) {
		t.Errorf("got %s, want it to contain %s", text, want)
	}
	if back, err := decode(text); err != nil || !reflect.DeepEqual(back, h) {
		t.Errorf("decoded %+v (error %v), want %+v", back, err, h)
	}
}

func TestAnnotationSize(t *testing.T) {
	for _, test := range []struct{ sinks, namespaces, most int }{
		{2, 1, 300}, // as most are
		{5, 10, plainBytes},
		{5, 50, 6 << 10},
		{5, 500, maxBytes},
	} {
		s, err := encode(large(test.sinks, test.namespaces))
		if err != nil {
			t.Fatal(err)
		}
		if len(s) > test.most {
			t.Errorf("%d sinks and %d namespaces need %d bytes, want at most %d", test.sinks, test.namespaces, len(s), test.most)
		}
	}
	if _, err := encode(large(5, 1000)); err == nil {
		t.Error("no error for a checkpoint that is too large")
	}
}

// large is a checkpoint of namespaces with arbitrary positions of the last minutes.
func large(sinks, namespaces int) Checkpoint {
	random := rand.New(rand.NewPCG(1, 2))
	names := make([]string, namespaces)
	for j := range names {
		names[j] = fmt.Sprintf("team-%08x-prod", random.Uint32())
	}
	h := Checkpoint{Sinks: make(map[string]map[string]event.Position)}
	for i := range sinks {
		positions := make(map[string]event.Position)
		for _, name := range names {
			positions[name] = event.Position{
				Epoch: epoch, Version: 1_000_000_000 + random.Uint64N(400_000),
				Time: second.Add(-time.Duration(random.IntN(120)) * time.Second),
			}
		}
		h.Sinks[fmt.Sprintf("sink-%d", i)] = positions
	}
	return h
}

func TestCheckpointString(t *testing.T) {
	for _, test := range []struct {
		checkpoint Checkpoint
		want       string
	}{
		{Checkpoint{}, "none"},
		{Checkpoint{Sinks: map[string]map[string]event.Position{"b": {"": position(2)}, "a": {"x": {}}}}, "a/x=none b/*=" + epoch.String() + "@2"},
	} {
		if got := test.checkpoint.String(); got != test.want {
			t.Errorf("got %q, want %q", got, test.want)
		}
	}
	if got := large(2, 10).String(); !strings.HasSuffix(got, " and 10 more") {
		t.Errorf("got %q, want it shortened", got)
	}
}

// A decoded checkpoint is encoded to an annotation with the same meaning, and always to the same
// bytes.
func FuzzAnnotation(f *testing.F) {
	golden, err := os.ReadFile(filepath.Join("testdata", "annotation.golden"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(string(golden))
	f.Add(gzipped(string(golden)))
	f.Add(`{"v":1,"epoch":"-/0","sinks":{"":{"":{},"*":{"time":"0000-01-01T00:00:00+14:00"}}}}`)
	f.Add(`{"v":1,"unlisted":{"*":"2019-07-19T11:00:00Z","":"2019-07-19T13:00:00.5+02:00"}}`)
	f.Add(`{"v":1,"gaps":[{"from":{"epoch":"-/0"},"to":{"epoch":"-/0"}}]}`)
	f.Fuzz(func(t *testing.T, s string) {
		h, err := decode(s)
		if err != nil {
			return
		}
		h.Gaps = h.Gaps.Merge()
		again, err := encode(h)
		if err != nil {
			return // too large
		}
		back, err := decode(again)
		if err != nil {
			t.Fatalf("cannot decode %s: %v", again, err)
		}
		if !reflect.DeepEqual(back, h) {
			t.Fatalf("decoded %+v, want %+v, from %s", back, h, again)
		}
		if third, err := encode(back); err != nil || third != again {
			t.Fatalf("encoded %s (error %v), want %s", third, err, again)
		}
	})
}
