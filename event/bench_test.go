package event

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
)

func benchRecord(tb testing.TB) *Record {
	r := New(readEvent(tb, "testdata/core-recorder-counted"))
	r.Source = "team-a"
	r.Position.Epoch = Epoch{Cluster: "8d1c9c9e-7a3c-4a55-8f3e-2a1b3c4d5e6f"}
	return &r
}

// TestHotPath covers the code that runs for each record and sink.
func TestHotPathDoesNotAllocate(t *testing.T) {
	r := benchRecord(t)
	buf := make([]byte, 0, 4096)
	pairs := make([]Pair, 0, 16)
	for name, f := range map[string]func(){
		"metadata": func() { pairs = r.AppendMetadata(pairs[:0], DefaultLabels) },
		"binary":   func() { buf, _ = r.AppendBinary(buf[:0]) },
		"values": func() {
			for _, f := range Fields {
				_ = r.Value(f)
			}
		},
	} {
		if n := testing.AllocsPerRun(100, f); n != 0 {
			t.Errorf("%s allocates %v times", name, n)
		}
	}
}

// UnmarshalBinary allocates the Event and its text.
func TestUnmarshalBinaryAllocatesTwice(t *testing.T) {
	b, err := benchRecord(t).AppendBinary(nil)
	if err != nil {
		t.Fatal(err)
	}
	var r Record
	if n := testing.AllocsPerRun(100, func() {
		if err := r.UnmarshalBinary(b); err != nil {
			t.Fatal(err)
		}
	}); n > 2 {
		t.Errorf("it allocates %v times", n)
	}
}

func TestDecodeBufferDoesNotAllocate(t *testing.T) {
	b := commonEvent(t)
	var buffer DecodeBuffer
	if n := testing.AllocsPerRun(100, func() {
		if _, err := buffer.Decode(b); err != nil {
			t.Fatal(err)
		}
	}); n > 0 {
		t.Errorf("it allocates %v times", n)
	}
}

func TestReaderDoesNotAllocate(t *testing.T) {
	b, err := benchRecord(t).AppendBinary(nil)
	if err != nil {
		t.Fatal(err)
	}
	var r Reader
	if n := testing.AllocsPerRun(100, func() {
		if _, err := r.Read(b); err != nil {
			t.Fatal(err)
		}
	}); n > 0 {
		t.Errorf("it allocates %v times", n)
	}
}

func BenchmarkMetadata(b *testing.B) {
	r := benchRecord(b)
	b.ReportAllocs()
	var pairs []Pair
	for b.Loop() {
		pairs = r.AppendMetadata(pairs[:0], DefaultLabels)
	}
}

func BenchmarkNew(b *testing.B) {
	stored := readEvent(b, "testdata/core-recorder-counted")
	b.ReportAllocs()
	var e corev1.Event
	for b.Loop() {
		e = *stored
		_ = New(&e)
	}
}

func BenchmarkAppendBinary(b *testing.B) {
	r := benchRecord(b)
	b.ReportAllocs()
	var buf []byte
	for b.Loop() {
		buf, _ = r.AppendBinary(buf[:0])
	}
	b.SetBytes(int64(len(buf)))
}

func BenchmarkUnmarshalBinary(b *testing.B) {
	buf, err := benchRecord(b).AppendBinary(nil)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	b.SetBytes(int64(len(buf)))
	var r Record
	for b.Loop() {
		if err := r.UnmarshalBinary(buf); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkReader(b *testing.B) {
	buf, err := benchRecord(b).AppendBinary(nil)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	b.SetBytes(int64(len(buf)))
	var r Reader
	for b.Loop() {
		if _, err := r.Read(buf); err != nil {
			b.Fatal(err)
		}
	}
}
