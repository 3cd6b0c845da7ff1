package loki_test

import (
	"bytes"
	"encoding/json"
	"math"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	corev1 "k8s.io/api/core/v1"

	"github.com/hindsight-events/hindsight/event"
	"github.com/hindsight-events/hindsight/event/format"
	"github.com/hindsight-events/hindsight/sink/loki"
	"github.com/hindsight-events/hindsight/sink/sinktest"
	"github.com/hindsight-events/hindsight/test/fakeloki"
)

// encodeAndDecode returns the entries of a push as Loki decodes them.
func encodeAndDecode(t *testing.T, s *loki.Sink, records []event.Record) []fakeloki.Entry {
	t.Helper()
	b := sinktest.Batch(s, records)
	streams, _, err := fakeloki.DecodePush(loki.Encode(b.Stream, b.Data))
	if err != nil {
		t.Fatal(err)
	}
	if len(streams) != 1 || len(streams[0].Entries) != len(records) {
		t.Fatalf("got the streams %v, want one of %d entries", streams, len(records))
	}
	return streams[0].Entries
}

func TestLongFieldsAreTruncated(t *testing.T) {
	t.Parallel()
	const lineLimit, metadataLimit = 256 << 10, 64 << 10
	long := strings.Repeat("0123456789 \"quoted\" 漢字\n\x1b[2J", 10_000)
	for name, change := range map[string]func(*corev1.Event){
		"a message":                  func(e *corev1.Event) { e.Message = long },
		"a message just too long":    func(e *corev1.Event) { e.Message = strings.Repeat("é", lineLimit/2) },
		"a message that is not text": func(e *corev1.Event) { e.Message = strings.Repeat("\xff", lineLimit) },
		"an annotation":              func(e *corev1.Event) { e.Annotations = map[string]string{"a": long} },
		"the involved object": func(e *corev1.Event) {
			e.InvolvedObject.Name, e.InvolvedObject.Kind, e.InvolvedObject.FieldPath = long, long, long
			e.Source.Component, e.Source.Host, e.ReportingController = long, long, long
		},
	} {
		t.Run(name, func(t *testing.T) {
			for _, encoding := range []format.Format{format.Logfmt, format.JSON, format.Text, format.EventRouter} {
				s := newSink(t, "http://loki", func(c *loki.Config, _ *loki.Options) { c.Format = encoding })
				records := sinktest.Records(0, 1)
				change(records[0].Event)
				before := records[0].Event.Message
				whole := string(format.Encoder{Format: encoding}.Append(nil, &records[0]))
				got := encodeAndDecode(t, s, records)[0]
				if records[0].Event.Message != before {
					t.Fatal("the record was changed")
				}
				if len(got.Line) > lineLimit || !utf8.ValidString(got.Line) {
					t.Errorf("%s: a line of %d bytes, valid: %v", encoding, len(got.Line), utf8.ValidString(got.Line))
				}
				if len(whole) <= lineLimit {
					if got.Line != whole {
						t.Errorf("%s: truncated although it is short enough", encoding)
					}
				} else if !strings.Contains(got.Line, "bytes cut)") || len(got.Line) < lineLimit/4 {
					t.Errorf("%s: a line of %d bytes without a mark that it was truncated", encoding, len(got.Line))
				}
				if strings.HasPrefix(name, "a message") && (encoding == format.JSON || encoding == format.EventRouter) && !json.Valid([]byte(got.Line)) {
					t.Errorf("%s: it is not valid JSON", encoding)
				}
				size := 0
				for name, value := range got.Metadata {
					size += len(name) + len(value)
					if !utf8.ValidString(value) {
						t.Errorf("metadata %s is not valid UTF-8", name)
					}
				}
				if size > metadataLimit {
					t.Errorf("%s: %d bytes of metadata", encoding, size)
				}
				if again := encodeAndDecode(t, s, records)[0]; again.Line != got.Line {
					t.Error("the same record gives another line")
				}
			}
		})
	}
}

func TestTimes(t *testing.T) {
	t.Parallel()
	s := newSink(t, "http://loki", nil)
	last := time.Unix(0, math.MaxInt64)
	for name, c := range map[string]struct{ at, want time.Time }{
		"with nanoseconds":                      {time.Unix(1563534000, 123456789), time.Unix(1563534000, 123456789)},
		"a whole second":                        {time.Unix(1563534000, 0), time.Unix(1563534000, 0)},
		"none":                                  {time.Time{}, time.Unix(0, 0)},
		"before 1970":                           {time.Date(1905, 1, 1, 0, 0, 0, 0, time.UTC), time.Unix(0, 0)},
		"too far in the future for nanoseconds": {time.Date(2554, 11, 21, 0, 0, 0, 0, time.UTC), last},
		"the end of time":                       {time.Date(9999, 12, 31, 23, 59, 59, 999999999, time.UTC), last},
	} {
		t.Run(name, func(t *testing.T) {
			records := sinktest.Records(0, 1)
			records[0].Time = c.at
			if got := encodeAndDecode(t, s, records)[0].Time; !got.Equal(c.want) {
				t.Errorf("got %v, want %v", got.UTC(), c.want.UTC())
			}
			b := sinktest.Batch(s, records)
			if err := loki.Decode(b.Data); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestWithoutStructuredMetadataTheLineHasAllFields(t *testing.T) {
	t.Parallel()
	s := newSink(t, "http://loki", func(c *loki.Config, _ *loki.Options) { c.StructuredMetadata = false })
	got := encodeAndDecode(t, s, sinktest.Records(7, 1))[0]
	if len(got.Metadata) > 0 {
		t.Errorf("metadata is %v, want none", got.Metadata)
	}
	for _, want := range []string{"namespace=team-a", "event_uid=00000000-0000-0000-0000-000000000007"} {
		if !strings.Contains(got.Line, want) {
			t.Errorf("%s is not in the line %q", want, got.Line)
		}
	}
}

func TestAppendRecordAppends(t *testing.T) {
	t.Parallel()
	s := newSink(t, "http://loki", nil)
	records := sinktest.Records(0, 2)
	records[1].Event.Message = strings.Repeat("x", 300<<10)
	for i := range records {
		alone := s.AppendRecord(nil, &records[i])
		after := s.AppendRecord([]byte("before"), &records[i])
		preallocated := s.AppendRecord(append(make([]byte, 0, 1<<20), "before"...), &records[i])
		if want := "before" + string(alone); string(after) != want || !bytes.Equal(after, preallocated) {
			t.Error("the encoding of a record depends on the bytes before it")
		}
	}
}

func TestSizeIsCountedLikeLoki(t *testing.T) {
	t.Parallel()
	s := newSink(t, "http://loki", nil)
	records := sinktest.Records(0, 100)
	b := sinktest.Batch(s, records)
	want := 0
	for _, e := range encodeAndDecode(t, s, records) {
		want += len(e.Line)
		for name, value := range e.Metadata {
			want += len(name) + len(value)
		}
	}
	if got := s.Size(b); got != want {
		t.Errorf("got %d of %d bytes, want %d", got, len(b.Data), want)
	}
}

func FuzzDecode(f *testing.F) {
	s, err := loki.New(loki.Config{URL: "http://loki", Job: "a", Timeout: 1, StructuredMetadata: true}, loki.Options{})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(sinktest.Batch(s, sinktest.Records(0, 1)).Data)
	f.Fuzz(func(_ *testing.T, data []byte) { loki.Decode(data) })
}

func BenchmarkAppendRecord(b *testing.B) {
	s, err := loki.New(loki.Config{URL: "http://loki", Job: "hindsight", Timeout: 1, StructuredMetadata: true}, loki.Options{})
	if err != nil {
		b.Fatal(err)
	}
	r := &sinktest.Records(7, 1)[0]
	buffer := make([]byte, 0, 64<<10)
	b.ReportAllocs()
	for b.Loop() {
		buffer = s.AppendRecord(buffer[:0], r)
	}
	b.ReportMetric(float64(len(buffer)), "bytes/record")
}

func BenchmarkEncode(b *testing.B) {
	s, err := loki.New(loki.Config{URL: "http://loki", Job: "hindsight", Timeout: 1, StructuredMetadata: true}, loki.Options{})
	if err != nil {
		b.Fatal(err)
	}
	batch := sinktest.Batch(s, sinktest.Records(0, 1000))
	b.ReportAllocs()
	b.SetBytes(int64(len(batch.Data)))
	for b.Loop() {
		loki.Encode(batch.Stream, batch.Data)
	}
}

func TestAppendRecordDoesNotAllocate(t *testing.T) {
	s := newSink(t, "http://loki", nil)
	r := &sinktest.Records(7, 1)[0]
	buffer := make([]byte, 0, 64<<10)
	if n := testing.AllocsPerRun(100, func() { buffer = s.AppendRecord(buffer[:0], r) }); n > 0 {
		t.Errorf("%v allocations a record, want none", n)
	}
	batch := sinktest.Batch(s, sinktest.Records(0, 10))
	if n := testing.AllocsPerRun(100, func() { s.Size(batch) }); n > 0 {
		t.Errorf("%v allocations to measure a batch, want none", n)
	}
}

func BenchmarkSize(b *testing.B) {
	s, err := loki.New(loki.Config{URL: "http://loki", Job: "hindsight", Timeout: 1, StructuredMetadata: true}, loki.Options{})
	if err != nil {
		b.Fatal(err)
	}
	batch := sinktest.Batch(s, sinktest.Records(0, 1000))
	b.ReportAllocs()
	for b.Loop() {
		s.Size(batch)
	}
	b.ReportMetric(float64(s.Size(batch))/float64(len(batch.Data)), "counted/sent")
}
