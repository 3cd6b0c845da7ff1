package cluster

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
)

// victoriaLogsStopTimeout bounds how long VictoriaLogs may take to end.
const victoriaLogsStopTimeout = 30 * time.Second

// VictoriaLogs is a real VictoriaLogs: one process that accepts Loki's push API on a
// loopback port. Pushed entries can be queried at once.
type VictoriaLogs struct {
	url     string
	process *component
	broken  error // the reason why accepted entries may be lost
}

// NewVictoriaLogs builds VictoriaLogs if that has not been done yet (see Build)
// and prepares one with its data and log in a directory. It is not started: its
// address is known, and nothing answers there.
func NewVictoriaLogs(ctx context.Context, dir string) (*VictoriaLogs, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	bin, err := Build(ctx, "victorialogs")
	if err != nil {
		return nil, err
	}
	port, err := FreePort()
	if err != nil {
		return nil, err
	}
	address := fmt.Sprintf("127.0.0.1:%d", port)
	v := &VictoriaLogs{url: "http://" + address}
	v.process = &component{
		name:    "victoria-logs",
		binary:  filepath.Join(bin, "victoria-logs"),
		logPath: filepath.Join(dir, "victoria-logs.log"),
		args: []string{
			"-httpListenAddr=" + address,
			"-storageDataPath=" + filepath.Join(dir, "data"),
			"-retentionPeriod=365d",
			"-loki.disableMessageParsing", // a JSON line stays a line
			"-loggerLevel=WARN",
		},
		ready: func(ctx context.Context) error { return isReady(ctx, v.url+"/health") },
	}
	return v, nil
}

// StoppedVictoriaLogsForTest prepares a VictoriaLogs that ends with the test. An
// empty dir is a folder that the test removes. If the test fails, it logs how
// the output of VictoriaLogs ends.
func StoppedVictoriaLogsForTest(t testing.TB, dir string) *VictoriaLogs {
	t.Helper()
	if dir == "" {
		dir = tempDir(t, "victorialogs-*")
	}
	v, err := NewVictoriaLogs(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	v.process.endWith(t)
	return v
}

// Name is "VictoriaLogs".
func (v *VictoriaLogs) Name() string { return "VictoriaLogs" }

// SinkURL is the url of a loki sink.
func (v *VictoriaLogs) SinkURL() string { return v.url + "/insert/loki/api/v1/push" }

// Start starts VictoriaLogs, at the same address with its data.
func (v *VictoriaLogs) Start(ctx context.Context) error {
	if v.broken != nil {
		return v.broken
	}
	return v.process.start(ctx)
}

// Kill ends VictoriaLogs with SIGTERM, paused or not. It accepts a push some
// seconds before the entries are on disk, so SIGKILL would lose them. If it has
// to be killed nevertheless, the next Start fails.
func (v *VictoriaLogs) Kill() {
	if !v.process.alive() {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), victoriaLogsStopTimeout)
	defer cancel()
	process := v.process.process
	v.process.process = nil
	v.broken = errors.Join(process.Resume(), process.Terminate(ctx))
}

// Pause stops VictoriaLogs with SIGSTOP.
func (v *VictoriaLogs) Pause() error { return v.process.pause() }

// Resume ends a pause.
func (v *VictoriaLogs) Resume() error { return v.process.resume() }

// Answer is Entries.
func (v *VictoriaLogs) Answer(ctx context.Context, selector string, start, end time.Time) ([]LokiEntry, error) {
	return v.Entries(ctx, selector, start, end)
}

// Entries returns the entries of the streams that match a selector, from start
// to before end, oldest first. VictoriaLogs keeps each repeat of an entry; those
// that are equal in every byte are returned once, as Loki does.
func (v *VictoriaLogs) Entries(ctx context.Context, selector string, start, end time.Time) ([]LokiEntry, error) {
	// Its filter of streams is written like LogQL's.
	query := fmt.Sprintf("%s _time:[%s, %s)", selector, start.UTC().Format(time.RFC3339Nano), end.UTC().Format(time.RFC3339Nano))
	// It shows accepted entries after a second, or after this request.
	_, err := v.post(ctx, "/internal/force_flush", nil)
	var answer []byte
	if err == nil {
		answer, err = v.post(ctx, "/select/logsql/query", url.Values{"query": {query}})
	}
	if err != nil {
		return nil, fmt.Errorf("query VictoriaLogs for %s: %w", query, err)
	}
	var entries []LokiEntry
	seen := map[string]bool{}
	for line := range bytes.Lines(answer) {
		e, err := parseVictoriaLogsEntry(line)
		if err != nil {
			return nil, fmt.Errorf("query VictoriaLogs for %s: decode %s: %w", query, line, err)
		}
		if key := e.key(); !seen[key] {
			seen[key] = true
			entries = append(entries, e)
		}
	}
	slices.SortStableFunc(entries, func(a, b LokiEntry) int { return a.Time.Compare(b.Time) })
	return entries, nil
}

func (v *VictoriaLogs) post(ctx context.Context, path string, form url.Values) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, v.url+path, strings.NewReader(form.Encode()))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	resp, err := storeHTTP.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s answers %s: %s", path, resp.Status, bytes.TrimSpace(answer))
	}
	return answer, nil
}

var streamParser = parser.NewParser(parser.Options{})

// parseVictoriaLogsEntry parses a line of an answer: an object with the fields of
// an entry. _stream has the labels, which are fields as well; the other fields
// are structured metadata.
func parseVictoriaLogsEntry(line []byte) (LokiEntry, error) {
	var fields map[string]string
	if err := json.Unmarshal(line, &fields); err != nil {
		return LokiEntry{}, err
	}
	at, err := time.Parse(time.RFC3339Nano, fields["_time"])
	if err != nil {
		return LokiEntry{}, err
	}
	stream, err := streamParser.ParseMetric(fields["_stream"])
	if err != nil {
		return LokiEntry{}, err
	}
	e := LokiEntry{Time: at.UTC(), Line: fields["_msg"], Labels: map[string]string{}}
	stream.Range(func(l labels.Label) { e.Labels[l.Name] = l.Value })
	maps.DeleteFunc(fields, func(name, _ string) bool {
		return strings.HasPrefix(name, "_") || stream.Has(name)
	})
	e.Metadata = fields
	return e, nil
}
