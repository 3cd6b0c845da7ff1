package watch

import (
	"context"
	"net"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// readsOf is a connection whose reads return so many bytes each, at once.
type readsOf struct {
	net.Conn
	sizes []int
}

func (c *readsOf) Read([]byte) (int, error) {
	n := c.sizes[0]
	c.sizes = c.sizes[1:]
	return n, nil
}

// While a watch is open, a connection that brings little is read at intervals.
func TestReadsArePaced(t *testing.T) {
	const buffer, ms = 4096, time.Millisecond
	full := slices.Repeat([]int{buffer}, littleBytes/buffer)
	for name, test := range map[string]struct {
		watches int32
		reads   []int
		pause   time.Duration   // between the reads
		want    []time.Duration // when reads return
	}{
		"no watch":                         {0, []int{1, 1, 1}, 0, []time.Duration{0, 0, 0}},
		"little":                           {1, []int{1, 1, 1}, 0, []time.Duration{0, 200 * ms, 400 * ms}},
		"little, now and then":             {1, []int{1, 1, 1}, 300 * ms, []time.Duration{0, 300 * ms, 600 * ms}},
		"the rest of a message":            {1, []int{buffer, 1, 1}, 0, []time.Duration{0, 0, 200 * ms}},
		"much":                             {1, slices.Concat(full, []int{1, 1, 1}), 0, make([]time.Duration, len(full)+3)},
		"little, in the interval after it": {1, slices.Concat(full, slices.Repeat([]int{1}, 6)), 3 * ms, times(len(full)+6, 3*ms)},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := &pacing{dial: func(context.Context, string, string) (net.Conn, error) { return &readsOf{sizes: test.reads}, nil }}
				p.watches.Store(test.watches)
				conn, err := p.dialContext(t.Context(), "tcp", "api")
				if err != nil {
					t.Fatal(err)
				}
				began := time.Now()
				var at []time.Duration
				for range len(test.reads) {
					if _, err := conn.Read(make([]byte, buffer)); err != nil {
						t.Fatal(err)
					}
					at = append(at, time.Since(began))
					time.Sleep(test.pause)
				}
				if !slices.Equal(at, test.want) {
					t.Errorf("reads return after %v, want %v", at, test.want)
				}
			})
		})
	}
}

// times returns the first n multiples of a duration.
func times(n int, d time.Duration) (all []time.Duration) {
	for i := range n {
		all = append(all, time.Duration(i)*d)
	}
	return all
}
