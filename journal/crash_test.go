package journal

import (
	"bufio"
	"context"
	"fmt"
	"hash/crc32"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hindsight-events/hindsight/test/nightly"
)

// Environment variables of the process that is killed.
const (
	crashDir   = "HINDSIGHT_TEST_CRASH_DIR"
	crashDrain = "HINDSIGHT_TEST_CRASH_DRAIN" // deliver the backlog and end
)

var crashSinks = []string{"steady", "flaky"}

// TestKilledProcess kills a process under load at random moments. Appended records are
// delivered, in order; acknowledged records are not delivered again; records that are delivered
// again have the same bytes. It is not parallel: until its exec, a forked process holds the locks of
// the directories of other tests.
func TestKilledProcess(t *testing.T) {
	kills := nightly.Size(10, 50)
	dir := t.TempDir()
	rng := rand.New(rand.NewPCG(7, 7))
	h := history{
		t: t, sums: map[uint64]string{},
		delivered: map[string]uint64{}, acknowledged: map[string]uint64{},
	}
	for i := range kills {
		// Every third process may still be opening the journal.
		h.life(dir, time.Duration(1+rng.IntN(120))*time.Millisecond, i%3 == 0)
	}
	h.life(dir, 0, false)
	for _, sink := range crashSinks {
		if h.delivered[sink] < h.appended {
			t.Errorf("%s got records up to %d, but %d were appended", sink, h.delivered[sink], h.appended)
		}
	}
	t.Logf("%d records appended, %d delivered again", h.appended, h.repeated)
	if h.appended == 0 {
		t.Error("no records appended")
	}
}

// history is collected from the output of the processes.
type history struct {
	t            *testing.T
	appended     uint64            // the last record, once its append returned
	sums         map[uint64]string // checksums of records delivered
	delivered    map[string]uint64 // by sink: the newest record
	acknowledged map[string]uint64 // by sink: the newest record, once its Ack returned
	repeated     int
}

// life runs a process and kills it some time after its start, or after it opened the journal. If that
// time is 0, the process runs to its end.
func (h *history) life(dir string, killed time.Duration, early bool) {
	cmd := exec.Command(os.Args[0], "-test.run=^TestCrashedProcess$")
	cmd.Env = append(os.Environ(), crashDir+"="+dir)
	if killed == 0 {
		cmd.Env = append(cmd.Env, crashDrain+"=1")
	}
	var stderr strings.Builder
	cmd.Stderr = &stderr
	stdout, err := cmd.StdoutPipe()
	must(h.t, err)
	must(h.t, cmd.Start())
	output := bufio.NewReader(stdout)
	opened := false
	kill := func() { time.AfterFunc(killed, func() { cmd.Process.Kill() }) }
	if early {
		kill()
	}
	for {
		line, err := output.ReadString('\n')
		if err != nil {
			break // a partial line is not reported
		}
		if !opened && strings.HasPrefix(line, "opened") {
			opened = true
			if killed > 0 && !early {
				kill()
			}
			continue
		}
		if opened {
			h.line(strings.Fields(line))
		}
	}
	io.Copy(io.Discard, stdout)
	err = cmd.Wait()
	if !opened && !early || killed == 0 && err != nil || stderr.Len() > 0 {
		h.t.Fatalf("process ended with %v: %s", err, stderr.String())
	}
}

func (h *history) line(words []string) {
	var v uint64
	if len(words) < 2 || words[0] == "ok" {
		return // by package testing
	}
	fmt.Sscan(words[len(words)-1], &v)
	switch sink := words[1]; words[0] {
	case "appended":
		h.appended = v
	case "delivers":
		sum := words[2]
		if last := h.delivered[sink]; v > last+1 {
			h.t.Errorf("%s got record %d after %d", sink, v, last)
		}
		if v <= h.delivered[sink] {
			h.repeated++
		}
		if v <= h.acknowledged[sink] {
			h.t.Errorf("%s got record %d again, which it had acknowledged", sink, v)
		}
		if before, ok := h.sums[v]; ok && before != sum {
			h.t.Errorf("record %d has changed", v)
		}
		h.sums[v] = sum
		h.delivered[sink] = max(h.delivered[sink], v)
	case "acknowledged":
		h.acknowledged[sink] = v
	default:
		h.t.Errorf("unexpected line %q", words)
	}
}

// TestCrashedProcess is the process that TestKilledProcess starts.
func TestCrashedProcess(t *testing.T) {
	dir := os.Getenv(crashDir)
	if dir == "" {
		t.Skip("only started by TestKilledProcess")
	}
	// Log lines go to stderr, where they fail the test.
	quiet := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError}))
	j, err := Open(dir, Options{MaxBytes: 1 << 20, Consumers: consumers(crashSinks...), Logger: quiet})
	must(t, err)
	fmt.Println("opened")
	drain := os.Getenv(crashDrain) != ""
	ctx := context.Background()
	if drain {
		ctx = cancelled()
	}
	var sinks sync.WaitGroup
	for i, sink := range crashSinks {
		c := mustConsumer(t, j, sink)
		sinks.Go(func() { crashSink(ctx, t, j, c, sink, i > 0 && !drain) })
	}
	if !drain {
		for v := j.Tail("").Version + 1; ; {
			n := uint64(1 + rand.IntN(64))
			if err := j.Append(ctx, records(v, v+n-1, rand.IntN(600))); err != nil {
				t.Fatal(err)
			}
			v += n
			fmt.Println("appended", "up to", v-1)
		}
	}
	sinks.Wait()
	must(t, j.Close())
	os.Exit(0) // before package testing prints
}

// crashSink delivers until ctx ends. A flaky one delays half of its batches.
func crashSink(ctx context.Context, t *testing.T, j *Journal, c *Consumer, sink string, flaky bool) {
	for {
		entries, err := nextEntries(ctx, c, 1+rand.IntN(100))
		if err != nil {
			return
		}
		for _, e := range entries {
			b, _ := e.Record.AppendBinary(nil)
			if e.Record.Gap {
				t.Errorf("gap record: %s", e.Record.Event.Message)
			}
			fmt.Println("delivers", sink, fmt.Sprintf("%x", crc32.ChecksumIEEE(b)), version(e))
		}
		if flaky && rand.IntN(2) == 0 {
			time.Sleep(time.Duration(rand.IntN(20)) * time.Millisecond)
		}
		last := entries[len(entries)-1]
		if err := c.Ack(last.Offset); err != nil {
			return
		}
		fmt.Println("acknowledged", sink, version(last))
	}
}
