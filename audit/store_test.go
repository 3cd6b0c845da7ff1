package audit

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/common/config"
	corev1 "k8s.io/api/core/v1"

	"github.com/hindsight-events/hindsight/event/format"
	"github.com/hindsight-events/hindsight/query"
	"github.com/hindsight-events/hindsight/query/loki"
	"github.com/hindsight-events/hindsight/test/fakeloki"
)

// storeOf returns a Store that reads a fake Loki.
func storeOf(t *testing.T, l *fakeloki.Server) *Loki {
	t.Helper()
	u, err := url.Parse(l.URL)
	if err != nil {
		t.Fatal(err)
	}
	c, err := loki.New(loki.Config{URL: u, HTTP: config.DefaultHTTPClientConfig})
	if err != nil {
		t.Fatal(err)
	}
	return &Loki{Client: c, Layout: query.DefaultLayout(), Cluster: "test"}
}

func TestLoki(t *testing.T) {
	t.Parallel()
	const n = 2500 // more than two pages
	start := begun()
	var events []*corev1.Event
	l := fakeloki.Start(t, fakeloki.Options{})
	var mu sync.Mutex
	var queries []string
	l.Intercept(func(_ http.ResponseWriter, r *http.Request) bool {
		mu.Lock()
		defer mu.Unlock()
		queries = append(queries, r.URL.Query().Get("query"))
		return false
	})
	var missing format.Entry
	for i := range n {
		e := podEvent(i, start.Add(time.Duration(i)*time.Millisecond).Truncate(time.Second))
		events = append(events, e)
		if i == n/2 {
			missing = entryOf(e)
			continue
		}
		entry := entryOf(e)
		l.Store(fakeloki.Entry{Time: entry.Time, Line: entry.Line, Labels: entry.Labels, Metadata: entry.Metadata})
	}
	r, err := Run(t.Context(), Options{Client: clientOf(t, serve(t, events...)), Store: storeOf(t, l), Namespace: "team-a"})
	if err != nil {
		t.Fatal(err)
	}
	if r.Found != n-1 || r.Missing != 1 || r.Findings[0].UID != missing.Metadata["event_uid"] {
		t.Errorf("%s: %v", r.Summary(), r.Findings)
	}
	slices.Sort(queries)
	want := []string{
		`{job="hindsight", cluster="test", namespace="team-a"}`,
		`{job="hindsight", cluster="test", namespace="team-a"} | event_uid="` + missing.Metadata["event_uid"] + `"`,
		`{job="hindsight", cluster="test", reason=~"HindsightGap|other"} | reason="HindsightGap" or full_reason="HindsightGap"`,
		`{job="hindsight", cluster="test"}`,
	}
	got := slices.Compact(queries)
	for i := range got { // a regular expression with one alternative equals the value
		got[i] = strings.Replace(got[i], "event_uid=~", "event_uid=", 1)
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("queries\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestLokiErrors(t *testing.T) {
	t.Parallel()
	l := fakeloki.Start(t, fakeloki.Options{Auth: true})
	client := clientOf(t, serve(t))
	_, err := Run(t.Context(), Options{Client: client, Store: storeOf(t, l)})
	if err == nil || !strings.HasPrefix(err.Error(), "read the stored entries: loki at http://127.0.0.1:") || !strings.Contains(err.Error(), "401") {
		t.Errorf("error %v", err)
	}
	l.Close()
	_, err = Run(t.Context(), Options{Client: client, Store: storeOf(t, l)})
	if err == nil || !strings.Contains(err.Error(), "connection refused") {
		t.Errorf("error %v", err)
	}
}

func TestFiles(t *testing.T) {
	t.Parallel()
	start := begun()
	var events []*corev1.Event
	var lines []string
	for i := range 6 {
		e := podEvent(i, start.Add(time.Duration(i)*time.Second))
		events = append(events, e)
		b, err := json.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		lines = append(lines, fmt.Sprintf(`{"verb":"ADDED","event":%s}`, b))
	}
	// 2 is missing, 3 is stored twice, 4 has another message, 5 another time
	lines[4] = strings.ReplaceAll(lines[4], "Back-off", "Front-off")
	lines[5] = strings.TrimSuffix(lines[5], "}") + `,"time":"` + start.Format(time.RFC3339) + `"}`
	client := clientOf(t, serve(t, events...))
	dir := t.TempDir()
	path := filepath.Join(dir, "events.jsonl")
	var old bytes.Buffer
	z := gzip.NewWriter(&old)
	fmt.Fprintf(z, "%s\n%s\n", lines[0], lines[1])
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	write := func(path string, b []byte) {
		t.Helper()
		if err := os.WriteFile(path, b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write(filepath.Join(dir, "events-"+time.Now().UTC().Format("20060102T150405.000Z")+".jsonl.gz"), old.Bytes())
	write(path, []byte(lines[3]+"\n"+lines[3]+"\n"+lines[4]+"\n"+lines[5]+"\n"))
	r, err := Run(t.Context(), Options{Client: client, Store: Files{Path: path}})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := r.Summary(), "6 Events compared, 5 found, 1 missing, 1 repeated, 1 mistimed, 1 altered, 0 explained"; got != want {
		t.Errorf("summary %q, want %q", got, want)
	}
	var text strings.Builder
	if err := r.WriteText(&text); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"missing    team-a/web-2.17a", "repeated   team-a/web-3.17a", "2 times: they do not differ",
		"altered    team-a/web-4.17a", "mistimed   team-a/web-5.17a",
	} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("want %q in\n%s", want, text.String())
		}
	}

	page := filepath.Join(dir, "page.jsonl")
	write(page, []byte("<html>\n"+strings.Repeat("</p>\n", 9)))
	_, err = Run(t.Context(), Options{Client: client, Store: Files{Path: page}})
	if err == nil || !strings.HasSuffix(err.Error(), page+`: line 1: looks like an HTML page, such as a login or error page: "<html>" (and 9 more)`) {
		t.Errorf("error %v", err)
	}
	list := filepath.Join(dir, "list.json")
	write(list, []byte(`{"kind":"List","items":[`+strings.Join([]string{itemOf(lines[0]), itemOf(lines[4])}, ",")+`]}`))
	r, err = Run(t.Context(), Options{Client: client, Store: Files{Path: list}})
	if want := "6 Events compared, 2 found, 4 missing, 0 repeated, 0 mistimed, 1 altered, 0 explained"; err != nil || r.Summary() != want {
		t.Errorf("a list: %v, %v, want %q", r, err, want)
	}
	var warnings []string
	write(path, []byte("hello\n"+lines[3]+"\n"))
	files := Files{Path: path, Warn: func(s string) { warnings = append(warnings, s) }}
	if _, err := Run(t.Context(), Options{Client: client, Store: files}); err != nil {
		t.Error(err)
	}
	if want := path + `: line 1: looks like text: "hello"`; len(warnings) == 0 || warnings[0] != want {
		t.Errorf("warnings %q, want %s", warnings, want)
	}

	_, err = Run(t.Context(), Options{Client: client, Store: Files{Path: filepath.Join(dir, "other.jsonl")}})
	if err == nil || !strings.Contains(err.Error(), "other.jsonl: no such file or directory") {
		t.Errorf("error %v", err)
	}
}

// itemOf returns the Event of a line as an item of a list.
func itemOf(line string) string {
	_, e, _ := strings.Cut(line, `"event":{`)
	return `{"kind":"Event","apiVersion":"v1",` + strings.TrimSuffix(e, "}")
}

// TestIsIndependent checks that an audit uses no code that exports Events. Reading files is shared
// with replay, and sorting with the watch.
func TestIsIndependent(t *testing.T) {
	t.Parallel()
	out, err := exec.CommandContext(t.Context(), "go", "list", "-deps", ".").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	const module = "github.com/hindsight-events/hindsight/"
	for pkg := range strings.FieldsSeq(string(out)) {
		name, ours := strings.CutPrefix(pkg, module)
		switch folder, _, _ := strings.Cut(name, "/"); {
		case !ours:
		case slices.Contains([]string{"watch", "router", "journal", "delivery", "sink", "lease"}, folder), name == "internal/app", name == "internal/canary":
			t.Errorf("audit depends on %s", name)
		}
	}
	if !strings.Contains(string(out), module+"event/format") {
		t.Errorf("go list did not list the packages:\n%s", out)
	}
}
