package format

import (
	"testing"

	"github.com/hindsight-events/hindsight/event"
)

func benchRecord(tb testing.TB) *event.Record {
	r := event.New(readEvent(tb, testdata+"/core-recorder-counted"))
	return &r
}

func TestEncoderDoesNotAllocate(t *testing.T) {
	r := benchRecord(t)
	buf := make([]byte, 0, 4096)
	for _, f := range []Format{EventRouter, JSON, Logfmt} {
		for _, standalone := range []bool{false, true} {
			enc := Encoder{Format: f, Standalone: standalone}
			if n := testing.AllocsPerRun(100, func() { buf = enc.Append(buf[:0], r) }); n != 0 {
				t.Errorf("%s, standalone %v, allocates %v times", f, standalone, n)
			}
		}
	}
}

func BenchmarkEncode(b *testing.B) {
	r := benchRecord(b)
	for _, f := range formats {
		for _, standalone := range []bool{false, true} {
			name := f.String()
			enc := Encoder{Format: f, Standalone: standalone}
			if standalone {
				name += "-standalone"
			}
			b.Run(name, func(b *testing.B) {
				b.ReportAllocs()
				var buf []byte
				for b.Loop() {
					buf = enc.Append(buf[:0], r)
				}
				b.SetBytes(int64(len(buf)))
			})
		}
	}
}
