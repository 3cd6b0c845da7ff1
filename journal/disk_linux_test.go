package journal

import (
	"context"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/hindsight-events/hindsight/event"
	"github.com/hindsight-events/hindsight/test/wait"
)

func TestDirectoryNotWritable(t *testing.T) {
	dir := t.TempDir()
	must(t, os.Chmod(filepath.Dir(dir), 0o755))
	must(t, os.Chmod(dir, 0o555))
	if os.Geteuid() == 0 {
		// Root can write anywhere: use another user for file access on this thread.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		must(t, syscall.Setfsuid(65534))
		defer syscall.Setfsuid(0)
	}
	_, err := Open(dir, Options{})
	if want := "open journal: directory " + dir + " is not writable: "; err == nil || !strings.HasPrefix(err.Error(), want) {
		t.Errorf("got error %v, want %s", err, want)
	}
	if _, err := Open(filepath.Join(dir, "sub"), Options{}); err == nil || !strings.Contains(err.Error(), dir) {
		t.Errorf("error %v does not name %s", err, dir)
	}
}

func TestFullVolume(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=256k"); err != nil {
		t.Skipf("a small volume cannot be mounted here: %v", err)
	}
	t.Cleanup(func() { syscall.Unmount(dir, syscall.MNT_DETACH) })
	var log logBuffer
	j := openDir(t, dir, Options{MaxBytes: 1 << 20, Consumers: consumers("a"), Logger: log.logger()})
	done := make(chan error, 1)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		var err error
		for v := uint64(1); v <= 500 && err == nil; v++ {
			err = j.Append(ctx, []event.Record{record(v, smallRecord)})
		}
		done <- err
	}()
	wait.Until(t, "blocked by the full volume", func() bool {
		return strings.Contains(j.Stats().BlockedReason, "no space left on device")
	})
	c := mustConsumer(t, j, "a")
	var got []Entry
	for len(got) < 500 {
		entries := read(t, c, 1)
		got = append(got, entries...)
		ackAll(t, c, entries)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	wantEntries(t, got, "1-500")
	if log.count("cannot save the cursor") != 0 || log.count("journal is blocked") == 0 {
		t.Errorf("log:\n%s", log.String())
	}
}
