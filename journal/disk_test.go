package journal

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/hindsight-events/hindsight/event"
	"github.com/hindsight-events/hindsight/test/wait"
)

func openDir(t testing.TB, dir string, o Options) *Journal {
	t.Helper()
	j, err := Open(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { j.Close() })
	return j
}

func TestRestart(t *testing.T) {
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
	wantStory(t, again, "5-10")
	for i, e := range again {
		before, _ := entries[4+i].Record.AppendBinary(nil)
		after, _ := e.Record.AppendBinary(nil)
		if e.Offset != entries[4+i].Offset || string(before) != string(after) {
			t.Errorf("record %d is not the same when it comes again", version(e))
		}
	}
	wantStory(t, readAll(t, mustConsumer(t, j, "b")), "")
	wantStory(t, readAll(t, mustConsumer(t, j, "unread")), "1-10")
	if got := j.Positions("a")[""].Version; got != 4 {
		t.Errorf("the cursor of a stands for %d, want 4", got)
	}
	mustAppend(t, j, record(12, 10))
	wantStory(t, readAll(t, mustConsumer(t, j, "b")), "12")
}

func TestConsumersDeclaredAtARestart(t *testing.T) {
	dir := t.TempDir()
	j := openDir(t, dir, Options{Consumers: consumers("kept", "removed/with ünusual name")})
	kept := mustConsumer(t, j, "kept")
	mustAppend(t, j, records(1, 3, 10)...)
	ackAll(t, kept, read(t, kept, 1))
	j.Close()

	dropped, log := map[string]int{}, &logBuffer{}
	j = openDir(t, dir, Options{
		Consumers: []ConsumerOptions{{Name: "kept"}, {Name: "new"}, {Name: "oldest", Start: StartOldest}},
		Logger:    log.logger(),
		OnDrop:    func(consumer string, cause event.Cause, n int) { dropped[consumer+" "+string(cause)] += n },
	})
	if len(dropped) != 1 || dropped["removed/with ünusual name removed"] != 3 {
		t.Errorf("counted as dropped: %v, want the 3 records of the consumer that was removed", dropped)
	}
	if n := log.count("sink removed before it accepted all records"); n != 1 {
		t.Errorf("the log says %d times that records are dropped, want once", n)
	}
	wantStory(t, readAll(t, mustConsumer(t, j, "kept")), "2-3")
	wantStory(t, readAll(t, mustConsumer(t, j, "new")), "")
	wantStory(t, readAll(t, mustConsumer(t, j, "oldest")), "1-3")
	if got := j.Positions("new")[""].Version; got != 3 {
		t.Errorf("the new consumer stands at %d, want at the tail, 3", got)
	}
	var cursors []string
	for _, name := range files(t, dir) {
		if strings.HasSuffix(name, ".cursor") {
			cursors = append(cursors, name)
		}
	}
	if want := []string{"kept.cursor", "new.cursor", "oldest.cursor"}; !slices.Equal(cursors, want) {
		t.Errorf("cursors: %v, want %v", cursors, want)
	}
}

func TestWhatWasAcknowledgedIsRemoved(t *testing.T) {
	dir := t.TempDir()
	j := openDir(t, dir, Options{MaxBytes: smallBound, Consumers: consumers("a")})
	c := mustConsumer(t, j, "a")
	for v := uint64(1); v <= 200; v++ {
		mustAppend(t, j, record(v, smallRecord))
		ackAll(t, c, read(t, c, 1))
	}
	wait.Until(t, "one segment is left", func() bool { return len(segmentFiles(t, dir)) == 1 })
}

func TestADroppedStretchIsToldAfterARestart(t *testing.T) {
	dir := t.TempDir()
	o := Options{MaxBytes: smallBound, Consumers: []ConsumerOptions{{Name: "lazy", WhenFull: DropOldest}}}
	j := openDir(t, dir, o)
	lazy := mustConsumer(t, j, "lazy")
	mustAppend(t, j, records(1, 10, smallRecord)...)
	mustAck(t, lazy, read(t, lazy, 10)[3].Offset) // 5-10 were in flight, and are gone with the process
	for v := uint64(11); v <= 300; v++ {
		mustAppend(t, j, record(v, smallRecord))
	}
	j.Close()
	j = openDir(t, dir, o)
	lazy = mustConsumer(t, j, "lazy")
	entries := readAll(t, lazy)
	first := version(entries[1])
	want := fmt.Sprintf("overflow(4..%d missed %d) %d-300", first-1, first-11, first) // at least
	wantStory(t, entries, want)
	j.Close()
	j = openDir(t, dir, o)
	again := readAll(t, mustConsumer(t, j, "lazy"))
	wantStory(t, again, want)
	if again[0].Record.Event.String() != entries[0].Record.Event.String() {
		t.Error("the gap record is not the same when it comes again")
	}
}

func TestADirectoryInUse(t *testing.T) {
	dir := t.TempDir()
	j := openDir(t, dir, Options{})
	_, err := Open(dir, Options{})
	if want := "open journal: directory " + dir + " is in use by another process"; err == nil || err.Error() != want {
		t.Errorf("got error %v, want %s", err, want)
	}
	j.Close()
	openDir(t, dir, Options{})
}

func TestADirectoryThatIsAFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(path, Options{}); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("got error %v, want one that names %s", err, path)
	}
}

func files(t testing.TB, dir string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func segmentFiles(t testing.TB, dir string) (paths []string) {
	for _, name := range files(t, dir) {
		if strings.HasSuffix(name, ".log") {
			paths = append(paths, filepath.Join(dir, name))
		}
	}
	return paths
}
