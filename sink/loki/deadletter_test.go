package loki_test

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hindsight-events/hindsight/sink/loki"
	"github.com/hindsight-events/hindsight/sink/sinktest"
)

func TestDeadLettersWithoutADirectoryAreLogged(t *testing.T) {
	t.Parallel()
	l := startLoki(t)
	var log strings.Builder
	s := newSink(t, l.URL, func(_ *loki.Config, o *loki.Options) { o.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
	records := sinktest.Records(0, 2)
	records[0].Event.Message = "record-0. " + strings.Repeat("long\n", 100_000)
	l.ScriptPushes((&rejecter{old: set([2]int{0, 1})}).script(t))
	send(t, s, sinktest.Batch(s, records), 1)
	if got := log.String(); strings.Count(got, "\n") != 1 || !strings.Contains(got, "record-0.") || len(got) > 5000 ||
		!strings.Contains(got, "has timestamp too old") || !strings.Contains(got, "event_version:1000") {
		t.Errorf("log of %d bytes is %.1000q, want one bounded line with the record", len(got), got)
	}
}

func TestDeadLetterFile(t *testing.T) {
	t.Parallel()
	l := startLoki(t)
	dir := filepath.Join(t.TempDir(), "dead-letters")
	path := filepath.Join(dir, "loki.jsonl")
	var log strings.Builder
	s := newSink(t, l.URL, func(_ *loki.Config, o *loki.Options) {
		o.DeadLetterDir, o.Logger = dir, slog.New(slog.NewTextHandler(&log, nil))
	})
	l.ScriptPushes((&rejecter{old: set([2]int{0, 1000})}).script(t))

	// A crash has torn the last line of an earlier run.
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("{\"time\":"), 0o644); err != nil {
		t.Fatal(err)
	}
	send(t, s, sinktest.Batch(s, sinktest.Records(0, 3)), 1)
	data, err := os.ReadFile(path)
	if err != nil || strings.Count(string(data), "\n") != 4 || !strings.HasPrefix(string(data), "{\"time\":\n{") {
		t.Fatalf("got %q, %v; want 3 lines after the torn one", data, err)
	}

	// The file is rotated before it exceeds its bound.
	const bound = 32 << 20
	if err := os.Truncate(path, bound-10); err != nil {
		t.Fatal(err)
	}
	send(t, s, sinktest.Batch(s, sinktest.Records(3, 3)), 1)
	if letters := readDeadLetters(t, path); len(letters) != 3 {
		t.Errorf("%d dead letters in the new file, want 3", len(letters))
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm()&0o007 != 0 {
		t.Errorf("the new file: %v, %v; want one that others cannot read", info, err)
	}
	if info, err := os.Stat(path + ".1"); err != nil || info.Size() != bound-10 {
		t.Errorf("the old file: %v, %v", info, err)
	}

	// Dead letters that cannot be written are logged.
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(dir, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	send(t, s, sinktest.Batch(s, sinktest.Records(6, 1)), 1)
	if !strings.Contains(log.String(), "record-6.") || !strings.Contains(log.String(), "dead_letter_err") {
		t.Errorf("log is %q, want the record and dead_letter_err", log.String())
	}
}
