package journal

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/hindsight-events/hindsight/event"
	"github.com/hindsight-events/hindsight/journal/storage"
	"github.com/hindsight-events/hindsight/test/wait"
)

// onBoth runs a test on a journal in memory and on one in a directory.
func onBoth(t *testing.T, test func(t *testing.T, open func(Options) *Journal)) {
	t.Run("memory", func(t *testing.T) {
		test(t, func(o Options) *Journal {
			j, err := NewMemory(o)
			must(t, err)
			t.Cleanup(func() { j.Close() })
			return j
		})
	})
	t.Run("disk", func(t *testing.T) {
		test(t, func(o Options) *Journal { return openDir(t, t.TempDir(), o) })
	})
}

func mustOpen(t testing.TB, fs storage.FS, o Options) *Journal {
	t.Helper()
	if o.MaxBytes == 0 {
		o.MaxBytes = 1 << 20
	}
	j, err := open(fs, o)
	if err != nil {
		t.Fatal(err)
	}
	return j
}

// A journal of smallCapacity is full after some tens of records of smallRecord.
const (
	smallCapacity = 64 << 10
	smallRecord   = 1 << 10
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

func locations(entries []Entry) []Location {
	var locations []Location
	for _, e := range entries {
		locations = append(locations, e.Location)
	}
	return locations
}

// lookUp returns the versions of the records that Read visits.
func lookUp(c *Consumer, entries ...Entry) (versions []uint64, err error) {
	err = c.Read(locations(entries), func(r *event.Record) { versions = append(versions, r.Position.Version) })
	return versions, err
}

func mustLookUp(t testing.TB, c *Consumer, entries ...Entry) {
	t.Helper()
	got, err := lookUp(c, entries...)
	if err != nil {
		t.Errorf("read %d of %d: %v", len(got), len(entries), err)
	}
	for i, v := range got {
		if v != version(entries[i]) {
			t.Errorf("record %d: version %d, want %d", i, v, version(entries[i]))
		}
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// testContext ends after wait.Timeout.
func testContext(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), wait.Timeout)
	t.Cleanup(cancel)
	return ctx
}

// cancelled is a context with which Next returns existing records only.
func cancelled() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}

var testEpoch = event.Epoch{Cluster: "5a0e7e1c-66cf-4a9f-8bd2-6d1f7e6a36a5"}

func positionAt(version uint64) event.Position {
	return event.Position{Epoch: testEpoch, Version: version, Time: time.Unix(1563534000+int64(version), 0).UTC()}
}

// record returns a record of version v with a message of size bytes.
func record(v uint64, size int) event.Record {
	at := time.Unix(1563534000+int64(v), int64(v)).UTC()
	return event.Record{
		Position: positionAt(v),
		Event: &corev1.Event{
			ObjectMeta: metav1.ObjectMeta{
				Name: "ingester-0." + strconv.FormatUint(v, 16), Namespace: "loki",
				UID: types.UID("uid-" + strconv.FormatUint(v, 10)), ResourceVersion: strconv.FormatUint(v, 10),
			},
			Reason:  "Preempted",
			Message: strings.Repeat("m", size),
			Type:    corev1.EventTypeWarning,
		},
		Time:      at,
		Decisions: event.LabelDecisions{{Set: event.DefaultLabels, Kept: event.LabelNamespace}},
	}
}

func records(from, to uint64, size int) []event.Record {
	var rs []event.Record
	for v := from; v <= to; v++ {
		rs = append(rs, record(v, size))
	}
	return rs
}

func positionOnly(source string, v uint64) event.Record {
	return event.Record{Source: source, Position: positionAt(v)}
}

func mustAppend(t testing.TB, j *Journal, rs ...event.Record) {
	t.Helper()
	if err := j.Append(testContext(t), rs); err != nil {
		t.Fatalf("append: %v", err)
	}
}

func mustConsumer(t testing.TB, j *Journal, name string) *Consumer {
	t.Helper()
	c, err := j.Consumer(name)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// nextEntries returns the entries that Next visits, and compares those of the log with Read.
func nextEntries(ctx context.Context, c *Consumer, max int) ([]Entry, error) {
	var entries []Entry
	n, err := c.Next(ctx, max, func(e Entry) {
		r := *e.Record
		r.Event = cloneEvent(r.Event)
		e.Record = &r
		entries = append(entries, e)
	})
	if n != len(entries) {
		return entries, fmt.Errorf("Next returned %d after %d entries: %w", n, len(entries), err)
	}
	var inLog []Entry
	var locations []Location
	for _, e := range entries {
		if e.Location.Bytes > 0 {
			inLog, locations = append(inLog, e), append(locations, e.Location)
		}
	}
	i := 0
	_ = c.Read(locations, func(r *event.Record) {
		if want := inLog[i].Record; !reflect.DeepEqual(r, want) {
			err = errors.Join(err, fmt.Errorf("offset %d: Read visits %+v, want %+v", inLog[i].Offset, r, want))
		}
		i++
	})
	return entries, err
}

// cloneEvent copies the strings too, which are valid until visit returns.
func cloneEvent(e *corev1.Event) *corev1.Event {
	b, err := e.Marshal()
	if err != nil {
		panic(err)
	}
	clone := &corev1.Event{}
	if err := clone.Unmarshal(b); err != nil {
		panic(err)
	}
	return clone
}

// read returns the next n entries.
func read(t testing.TB, c *Consumer, n int) []Entry {
	t.Helper()
	var entries []Entry
	for len(entries) < n {
		got, err := nextEntries(testContext(t), c, n-len(entries))
		if err != nil {
			t.Fatalf("next after %d of %d entries: %v", len(entries), n, err)
		}
		entries = append(entries, got...)
	}
	return entries
}

// readAll returns the existing entries.
func readAll(t testing.TB, c *Consumer) []Entry {
	t.Helper()
	var entries []Entry
	for {
		got, err := nextEntries(cancelled(), c, 100)
		if err != nil {
			return entries
		}
		entries = append(entries, got...)
	}
}

func mustAck(t testing.TB, c *Consumer, offset uint64) {
	t.Helper()
	if err := c.Ack(offset); err != nil {
		t.Fatalf("acknowledge %d: %v", offset, err)
	}
}

func ackAll(t testing.TB, c *Consumer, entries []Entry) {
	t.Helper()
	if len(entries) > 0 {
		mustAck(t, c, entries[len(entries)-1].Offset)
	}
}

// summary describes entries: ranges of versions, and gap records.
func summary(entries []Entry) string {
	var b strings.Builder
	for i := 0; i < len(entries); i++ {
		if b.Len() > 0 {
			b.WriteString(" ")
		}
		r := entries[i].Record
		if r.Gap {
			a := r.Event.Annotations
			fmt.Fprintf(&b, "%s(%s..%s missed %s)", a["hindsight/cause"],
				a["hindsight/from_version"], a["hindsight/to_version"], a["hindsight/missed_at_least"])
			continue
		}
		first := i
		for i+1 < len(entries) && !entries[i+1].Record.Gap && version(entries[i+1]) == version(entries[i])+1 {
			i++
		}
		fmt.Fprintf(&b, "%d", version(entries[first]))
		if i > first {
			fmt.Fprintf(&b, "-%d", version(entries[i]))
		}
	}
	return b.String()
}

func version(e Entry) uint64 { return e.Record.Position.Version }

func wantEntries(t testing.TB, entries []Entry, want string) {
	t.Helper()
	if got := summary(entries); got != want {
		t.Errorf("got %s\nwant %s", got, want)
	}
}

// logBuffer collects log lines.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func (l *logBuffer) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(l, &slog.HandlerOptions{Level: slog.LevelInfo}))
}

func (l *logBuffer) count(text string) int { return strings.Count(l.String(), text) }

func consumers(names ...string) []ConsumerOptions {
	var cs []ConsumerOptions
	for _, name := range names {
		cs = append(cs, ConsumerOptions{Name: name})
	}
	return cs
}
