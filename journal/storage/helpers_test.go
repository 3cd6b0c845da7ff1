package storage

import (
	"errors"
	"io"
	"log/slog"
	"strconv"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/hindsight-events/hindsight/event"
)

var testEpoch = event.Epoch{Cluster: "5a0e7e1c-66cf-4a9f-8bd2-6d1f7e6a36a5"}

func positionAt(version uint64) event.Position {
	return event.Position{Epoch: testEpoch, Version: version, Time: time.Unix(1563534000+int64(version), 0).UTC()}
}

// record returns a record of version v with a message of size bytes.
func record(v uint64, size int) event.Record {
	return event.Record{
		Position: positionAt(v),
		Event: &corev1.Event{
			ObjectMeta: metav1.ObjectMeta{Name: "ingester-0", Namespace: "loki", ResourceVersion: strconv.FormatUint(v, 10)},
			Message:    strings.Repeat("m", size),
		},
	}
}

func records(from, to uint64, size int) []event.Record {
	var rs []event.Record
	for v := from; v <= to; v++ {
		rs = append(rs, record(v, size))
	}
	return rs
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func mustRecover(t testing.TB, fs FS) *Recovered {
	t.Helper()
	r, err := Recover(fs, slog.New(slog.DiscardHandler))
	must(t, err)
	t.Cleanup(func() { r.Writer.Close() })
	return r
}

// write appends records as one group.
func (r *Recovered) write(t testing.TB, records ...event.Record) {
	t.Helper()
	var frames []byte
	for i := range records {
		var err error
		frames, err = AppendFrame(frames, &records[i])
		must(t, err)
	}
	r.Next, _ = StampFrames(frames, r.Next, 0, 1)
	must(t, r.Writer.Write([][]byte{frames}))
	r.Log.Size = r.Writer.Size()
	for i := range records {
		r.Positions[records[i].Source] = records[i].Position
	}
}

// startSegment starts a segment for the next record.
func (r *Recovered) startSegment(t testing.TB) {
	t.Helper()
	header, err := EncodeHeader(r.Next, r.Positions)
	must(t, err)
	must(t, r.Writer.StartSegment(r.Next, header))
	r.Log = r.Writer.Extend(r.Log)
}

// found is a record that was read.
type found struct {
	offset   uint64
	version  uint64
	message  int // bytes
	location Location
}

// readAll reads all records of a log; blocks that cannot be read are skipped.
func readAll(t testing.TB, fs FS, log Log) (all []found) {
	t.Helper()
	reader := NewReader(fs)
	defer reader.Reset()
	for failures := 0; failures < 100; {
		f, err := reader.Peek(log, log.First().Base)
		if errors.Is(err, io.EOF) {
			if reader.memory != nil && len(reader.buf) == 0 {
				t.Errorf("a reader at the end of the log holds %d bytes", len(reader.memory))
			}
			return all
		}
		if err != nil {
			failures++
			continue
		}
		var r event.Record
		must(t, r.UnmarshalBinary(f.Payload))
		if !f.PositionOnly {
			all = append(all, found{f.Offset, r.Position.Version, len(r.Event.Message), reader.Location()})
		}
		reader.Advance()
	}
	t.Fatal("the log does not end")
	return nil
}

func content(t testing.TB, fs FS, name string) []byte {
	t.Helper()
	f, err := fs.Open(name)
	must(t, err)
	defer f.Close()
	size, err := f.Size()
	must(t, err)
	b := make([]byte, size)
	_, err = f.ReadAt(b, 0)
	must(t, err)
	return b
}

func put(t testing.TB, fs FS, name string, content []byte) {
	t.Helper()
	f, err := fs.Create(name)
	must(t, err)
	defer f.Close()
	_, err = f.WriteAt(content, 0)
	must(t, err)
}

func clone(t testing.TB, m *Memory) *Memory {
	t.Helper()
	c := NewMemory()
	for name := range m.files {
		put(t, c, name, content(t, m, name))
	}
	return c
}
