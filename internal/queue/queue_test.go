package queue

import (
	"math/rand/v2"
	"testing"
)

// A queue has the elements of a slice without its first elements.
func TestQueueIsASlice(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	var q Queue[*int]
	var want []*int
	for step := range 2_000 {
		if add := random.IntN(3 * chunkLen / 2); random.IntN(2) == 0 {
			for range add {
				v := new(int)
				q.Push(v)
				want = append(want, v)
			}
		} else {
			drop := min(add, len(want))
			q.Drop(drop)
			want = want[drop:]
		}
		if q.Len() != len(want) {
			t.Fatalf("step %d: %d elements, want %d", step, q.Len(), len(want))
		}
		for i := range want {
			if *q.At(i) != want[i] {
				t.Fatalf("step %d: element %d differs", step, i)
			}
		}
	}
}

func TestQueueInUseDoesNotAllocate(t *testing.T) {
	var q Queue[int]
	for i := range 10 * chunkLen {
		q.Push(i)
	}
	if n := testing.AllocsPerRun(10, func() {
		for i := range 3 * chunkLen {
			q.Push(i)
			q.Drop(1)
		}
	}); n > 0 {
		t.Errorf("Push and Drop allocate %v times", n)
	}
}
