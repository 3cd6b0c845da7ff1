package journal

import (
	"context"
	"slices"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

func TestTransientReadErrors(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var log logBuffer
		disk := newSimDisk()
		j := mustOpen(t, disk, Options{Consumers: consumers("a"), Logger: log.logger()})
		defer j.Close()
		mustAppend(t, j, records(1, 10, 10)...)
		failures := 0
		disk.mu.Lock()
		disk.failRead = func(string, int64) error {
			if failures++; failures < 5 {
				return syscall.EIO
			}
			return nil
		}
		disk.mu.Unlock()
		wantEntries(t, read(t, mustConsumer(t, j, "a"), 10), "1-10")
		if log.count("cannot read the journal, retrying") != 1 || log.count("journal is readable again") != 1 {
			t.Errorf("log:\n%s", log.String())
		}
	})
}

func TestUnreadableBlockIsAGap(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		disk := newSimDisk()
		j := mustOpen(t, disk, Options{Consumers: consumers("a")})
		defer j.Close()
		mustAppend(t, j, records(1, 1000, smallRecord)...)
		disk.mu.Lock()
		disk.failRead = func(_ string, at int64) error {
			if at <= 300_000 && 300_000 < at+128<<10 {
				return syscall.EIO
			}
			return nil
		}
		disk.mu.Unlock()
		var got []Entry
		for len(got) == 0 || version(got[len(got)-1]) < 1000 {
			entries, err := mustNext(t, j, got)
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, entries...)
		}
		gaps := slices.DeleteFunc(slices.Clone(got), func(e Entry) bool { return !e.Record.Gap })
		if len(gaps) == 0 {
			t.Errorf("no gap record in %s", summary(got))
		}
	})
}

func mustNext(t *testing.T, j *Journal, before []Entry) ([]Entry, error) {
	j.mu.Lock()
	c := j.consumers["a"]
	j.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
	defer cancel()
	return nextEntries(ctx, c, 100)
}
