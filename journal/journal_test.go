package journal

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/hindsight-events/hindsight/event"
	"github.com/hindsight-events/hindsight/test/wait"
)

func TestClose(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, open func(Options) *Journal) {
		j := open(Options{MaxBytes: smallCapacity, Consumers: consumers("a", "idle")})
		idle := mustConsumer(t, j, "idle")
		waiting := make(chan error, 1)
		go func() {
			for {
				if _, err := nextEntries(testContext(t), idle, 100); err != nil {
					waiting <- err
					return
				}
			}
		}()
		blocked := make(chan error, 1)
		go func() {
			var err error
			for v := uint64(1); err == nil; v++ {
				err = j.Append(testContext(t), []event.Record{record(v, smallRecord)})
			}
			blocked <- err
		}()
		<-waitBlocked(j, blocked)
		if err := j.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
		if err := j.Close(); err != nil {
			t.Errorf("close again: %v", err)
		}
		for call, err := range map[string]error{
			"blocked append":          <-blocked,
			"waiting next":            <-waiting,
			"append after close":      j.Append(testContext(t), records(1, 1, 1)),
			"acknowledge after close": idle.Ack(1),
			"set consumers":           j.SetConsumers(nil),
		} {
			if !errors.Is(err, ErrClosed) {
				t.Errorf("%s: %v, want %v", call, err, ErrClosed)
			}
		}
	})
}

func TestManyAppendersAndConsumers(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, open func(Options) *Journal) {
		const appenders, each = 8, 200
		names := []string{"a", "b", "c"}
		j := open(Options{MaxBytes: smallCapacity, Consumers: consumers(names...)})
		ctx := testContext(t)
		var wg sync.WaitGroup
		for i := range appenders {
			wg.Go(func() {
				for v := uint64(1); v <= each; v++ {
					r := record(v, 100)
					r.Source = fmt.Sprint(i)
					if err := j.Append(ctx, []event.Record{r, positionOnly(r.Source, v)}); err != nil {
						t.Errorf("append: %v", err)
						return
					}
				}
			})
		}
		for _, name := range names {
			c := mustConsumer(t, j, name)
			wg.Go(func() {
				last := map[string]uint64{}
				for n := 0; n < appenders*each; {
					entries, err := nextEntries(ctx, c, 17)
					if err != nil {
						t.Errorf("next: %v", err)
						return
					}
					for _, e := range entries {
						if v := version(e); v != last[e.Record.Source]+1 {
							t.Errorf("%d of source %s after %d", v, e.Record.Source, last[e.Record.Source])
						}
						last[e.Record.Source] = version(e)
					}
					n += len(entries)
					if err := c.Ack(entries[len(entries)-1].Offset); err != nil {
						t.Errorf("acknowledge: %v", err)
					}
				}
			})
		}
		wg.Wait()
		if s := j.Stats(); s.Records != 0 {
			wait.Until(t, "nothing is kept", func() bool { return j.Stats().Records == 0 })
		}
	})
}

func TestRestart(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	j := openDir(t, dir, Options{Consumers: consumers("a", "b", "unread")})
	mustAppend(t, j, records(1, 10, 10)...)
	mustAppend(t, j, positionOnly("", 11))
	a, b := mustConsumer(t, j, "a"), mustConsumer(t, j, "b")
	entries := read(t, a, 10)
	mustAck(t, a, entries[3].Offset)
	ackAll(t, b, read(t, b, 10))
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}

	j = openDir(t, dir, Options{Consumers: consumers("a", "b", "unread")})
	if got := j.Tail(""); got != positionAt(11) {
		t.Errorf("tail is %v, want %v", got, positionAt(11))
	}
	again := read(t, mustConsumer(t, j, "a"), 6)
	wantEntries(t, again, "5-10")
	for i, e := range again {
		before, _ := entries[4+i].Record.AppendBinary(nil)
		after, _ := e.Record.AppendBinary(nil)
		if e.Offset != entries[4+i].Offset || string(before) != string(after) {
			t.Errorf("record %d is another one after the restart", version(e))
		}
	}
	wantEntries(t, readAll(t, mustConsumer(t, j, "b")), "")
	wantEntries(t, readAll(t, mustConsumer(t, j, "unread")), "1-10")
	if got := j.Positions("a")[""].Version; got != 4 {
		t.Errorf("the cursor of a is at %d, want 4", got)
	}
	mustAppend(t, j, record(12, 10))
	wantEntries(t, readAll(t, mustConsumer(t, j, "b")), "12")
}

func TestDirectoryInUse(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	j := openDir(t, dir, Options{})
	_, err := Open(dir, Options{})
	if want := "open journal: directory " + dir + " is in use by another process"; err == nil || err.Error() != want {
		t.Errorf("got error %v, want %s", err, want)
	}
	j.Close()
	openDir(t, dir, Options{})
}

func TestDirectoryIsAFile(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(path, Options{}); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("error %v does not name %s", err, path)
	}
}
