package enrich

import (
	"fmt"
	"runtime"
	"testing"
	"time"

	"github.com/google/uuid"
)

// BenchmarkStore reports the bytes of heap per pod of 150,000 pods, 10 of each ReplicaSet.
func BenchmarkStore(b *testing.B) {
	const n = 150_000
	for b.Loop() {
		before := heap()
		s := newStore(time.Minute)
		for i := range n {
			rs := i / 10
			p := properties{
				owner:  owner{uid: uuid.NewSHA1(uuid.Nil, fmt.Append(nil, rs)).String(), kind: kindReplicaSet, name: fmt.Sprintf("service-%d-79b5894fc8", rs)},
				values: fmt.Sprintf("service-%d\x00team-%d", rs, rs%50),
			}
			s.set(uidKey(uuid.NewString()), 0, 1, p)
		}
		b.ReportMetric(float64(heap()-before)/n, "B/pod")
		runtime.KeepAlive(s)
	}
}

func heap() uint64 {
	for range 5 { // the values of package unique need several
		runtime.GC()
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
