package journal

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hindsight-events/hindsight/event"
)

// benchRecord makes records of about 1,150 bytes, as real Events have.
const benchRecord = 880

var benchStorages = []struct {
	name string
	open func(b *testing.B, o Options) *Journal
}{
	{"memory", func(b *testing.B, o Options) *Journal {
		j, err := NewMemory(o)
		must(b, err)
		b.Cleanup(func() { j.Close() })
		return j
	}},
	{"disk", func(b *testing.B, o Options) *Journal { return openDir(b, b.TempDir(), o) }},
}

func encodedSize(b *testing.B) int {
	r := record(1, benchRecord)
	encoded, err := r.AppendBinary(nil)
	must(b, err)
	return len(encoded)
}

func perSecond(b *testing.B, records int) {
	b.ReportMetric(float64(records)/b.Elapsed().Seconds(), "records/s")
	b.ReportMetric(float64(records)*float64(encodedSize(b))/1e6/b.Elapsed().Seconds(), "MB/s")
	b.ReportMetric(0, "ns/op")
}

// BenchmarkAppend appends groups without a pause and without consumers.
func BenchmarkAppend(b *testing.B) {
	for _, s := range benchStorages {
		for _, group := range []int{1, 512} {
			b.Run(fmt.Sprintf("%s/group=%d", s.name, group), func(b *testing.B) {
				j := s.open(b, Options{MaxBytes: 256 << 20})
				rs := records(1, uint64(group), benchRecord)
				n := 0
				for b.Loop() {
					must(b, j.Append(context.Background(), rs))
					n += group
				}
				perSecond(b, n)
			})
		}
	}
}

// BenchmarkAppendConcurrently appends single records from many goroutines, as
// the watches of many namespaces do.
func BenchmarkAppendConcurrently(b *testing.B) {
	j := openDir(b, b.TempDir(), Options{MaxBytes: 256 << 20})
	b.SetParallelism(32)
	b.RunParallel(func(pb *testing.PB) {
		rs := records(1, 1, benchRecord)
		for pb.Next() {
			if err := j.Append(context.Background(), rs); err != nil {
				b.Error(err)
				return
			}
		}
	})
	perSecond(b, b.N)
}

// BenchmarkWriteAndSync writes and syncs as many bytes, which is the limit of the disk.
func BenchmarkWriteAndSync(b *testing.B) {
	for _, group := range []int{1, 512} {
		b.Run(fmt.Sprintf("group=%d", group), func(b *testing.B) {
			f, err := os.Create(filepath.Join(b.TempDir(), "file"))
			must(b, err)
			defer f.Close()
			p := make([]byte, group*encodedSize(b))
			n, at := 0, int64(0)
			for b.Loop() {
				if at > 256<<20 {
					b.StopTimer()
					must(b, f.Truncate(0))
					at = 0
					b.StartTimer()
				}
				_, err := f.WriteAt(p, at)
				must(b, err)
				must(b, f.Sync())
				at += int64(len(p))
				n += group
			}
			perSecond(b, n)
		})
	}
}

// BenchmarkTimeToDurable measures one append at a low and at a high rate: median and 99th percentile.
func BenchmarkTimeToDurable(b *testing.B) {
	for _, bm := range []struct {
		name  string
		pause time.Duration
		group int
	}{
		{"20 records a second", 50 * time.Millisecond, 1},
		{"50,000 records a second", 10 * time.Millisecond, 500},
	} {
		b.Run(bm.name, func(b *testing.B) {
			j := openDir(b, b.TempDir(), Options{MaxBytes: 256 << 20})
			rs := records(1, uint64(bm.group), benchRecord)
			var took []time.Duration
			tick := time.NewTicker(bm.pause)
			defer tick.Stop()
			for b.Loop() {
				<-tick.C
				start := time.Now()
				must(b, j.Append(context.Background(), rs))
				took = append(took, time.Since(start))
			}
			slices.Sort(took)
			b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "p50-ms")
			b.ReportMetric(float64(took[len(took)*99/100].Microseconds())/1000, "p99-ms")
			b.ReportMetric(0, "ns/op")
		})
	}
}

// BenchmarkReadBack reads a backlog, 512 records at a time.
func BenchmarkReadBack(b *testing.B) {
	for _, s := range benchStorages {
		b.Run(s.name, func(b *testing.B) {
			const backlog = 100 * 512
			j := s.open(b, Options{MaxBytes: 256 << 20, Consumers: consumers("a")})
			rs := records(1, 512, benchRecord)
			for range backlog / 512 {
				must(b, j.Append(context.Background(), rs))
			}
			c := mustConsumer(b, j, "a")
			b.ReportAllocs()
			n, left := 0, backlog
			for b.Loop() {
				if left == 0 { // start again
					b.StopTimer()
					j.mu.Lock()
					first := j.committed.First().Base
					c.cursor.Offset = first
					j.mu.Unlock()
					c.rewind()
					left = int(j.nextOffset() - first)
					b.StartTimer()
				}
				got, err := c.Next(context.Background(), 512, func(Entry) {})
				must(b, err)
				n += got
				left -= got
			}
			perSecond(b, n)
			b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(n), "µs/record")
		})
	}
}

// BenchmarkReadAgain reads records that are far apart, as the records of one stream among many are.
func BenchmarkReadAgain(b *testing.B) {
	for _, s := range benchStorages {
		b.Run(s.name, func(b *testing.B) {
			const backlog, apart = 100 * 512, 1000
			j := s.open(b, Options{MaxBytes: 256 << 20, Consumers: consumers("a")})
			rs := records(1, 512, benchRecord)
			for range backlog / 512 {
				must(b, j.Append(context.Background(), rs))
			}
			c := mustConsumer(b, j, "a")
			var found []Location
			for len(found) < backlog {
				_, err := c.Next(context.Background(), 512, func(e Entry) { found = append(found, e.Location) })
				must(b, err)
			}
			b.ReportAllocs()
			n := 0
			var batch []Location
			for b.Loop() {
				batch = batch[:0]
				for i := n % apart; i < backlog; i += apart {
					batch = append(batch, found[i])
				}
				must(b, c.Read(batch, func(*event.Record) {}))
				n += len(batch)
			}
			b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(n), "µs/record")
		})
	}
}

// BenchmarkAck acknowledges one record after the other: the cursor is written
// each time, and synced each second.
func BenchmarkAck(b *testing.B) {
	for _, s := range benchStorages {
		b.Run(s.name, func(b *testing.B) {
			j := s.open(b, Options{MaxBytes: 256 << 20, Consumers: consumers("a")})
			c := mustConsumer(b, j, "a")
			var entries []Entry
			for b.Loop() {
				if len(entries) == 0 {
					b.StopTimer()
					mustAppend(b, j, records(1, 5000, 1)...)
					entries = read(b, c, 5000)
					b.StartTimer()
				}
				must(b, c.Ack(entries[0].Offset))
				entries = entries[1:]
			}
		})
	}
}

// BenchmarkBacklog appends a million records, then reads them, and measures memory.
func BenchmarkBacklog(b *testing.B) {
	const n = 1_000_000
	for b.Loop() {
		j := openDir(b, b.TempDir(), Options{MaxBytes: 4 << 30, Consumers: consumers("a")})
		rs := records(1, 500, 200)
		var most uint64
		look := func() {
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			most = max(most, m.HeapInuse)
		}
		start := time.Now()
		for i := range n / len(rs) {
			must(b, j.Append(context.Background(), rs))
			if i%100 == 0 {
				look()
			}
		}
		appended := time.Since(start)
		b.ReportMetric(float64(most)/1e6, "MB-heap-appending")
		most = 0
		start = time.Now()
		c := mustConsumer(b, j, "a")
		for i := 0; i < n; {
			var last uint64
			got, err := c.Next(context.Background(), 512, func(e Entry) { last = e.Offset })
			must(b, err)
			i += got
			must(b, c.Ack(last))
			if i%51200 < 512 {
				look()
			}
		}
		b.ReportMetric(float64(most)/1e6, "MB-heap-reading")
		b.ReportMetric(n/appended.Seconds(), "appended/s")
		b.ReportMetric(n/time.Since(start).Seconds(), "read/s")
		b.ReportMetric(peakRSS(b), "MB-peak-rss")
		must(b, j.Close())
	}
}

// peakRSS is the peak memory of the process in MB; 0 if it is unknown.
func peakRSS(b *testing.B) float64 {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(status)) {
		var kib float64
		if _, err := fmt.Sscanf(line, "VmHWM: %f kB", &kib); err == nil {
			return kib * 1024 / 1e6
		}
	}
	return 0
}
