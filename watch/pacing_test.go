package watch

import (
	"context"
	"net"
	"testing"
	"testing/synctest"
	"time"
)

// peer is a connection whose other end writes at a rate, as long as the receive buffer has space.
type peer struct {
	net.Conn
	rate, window int // bytes a second, bytes
	last         time.Time
}

func (c *peer) Read(b []byte) (int, error) {
	const event = 1000 // bytes, which are written together
	if n := int(time.Since(c.last).Seconds() * float64(c.rate)); n >= event {
		c.last = time.Now()
		return min(n, c.window, len(b)), nil
	}
	time.Sleep(event * time.Second / time.Duration(c.rate))
	c.last = time.Now()
	return min(event, len(b)), nil
}

// While a watch is open, reads of a connection wait for as long as readBytes take to arrive, and
// not at all if as much arrives as the receive buffer holds.
func TestReadsArePaced(t *testing.T) {
	const small = 64 << 10 // receive buffer
	for name, test := range map[string]struct {
		watches, rate int
		want          func(gap time.Duration) bool // between two reads
	}{
		"no watch": {0, 20_000, func(gap time.Duration) bool { return gap == 50*time.Millisecond }},
		"little":   {1, 20_000, func(gap time.Duration) bool { return gap == maxReadInterval }},
		"500 Events a second": {1, 600_000, func(gap time.Duration) bool {
			return gap > 50*time.Millisecond && gap < 60*time.Millisecond // 32 KiB
		}},
		"much": {1, 10_000_000, func(gap time.Duration) bool { return gap < minReadInterval }},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := &pacing{dial: func(context.Context, string, string) (net.Conn, error) {
					return &peer{rate: test.rate, window: small, last: time.Now()}, nil
				}}
				p.watches.Store(int32(test.watches))
				conn, err := p.dialContext(t.Context(), "tcp", "api")
				if err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Minute) // quiet
				began, last, b := time.Now(), time.Now(), make([]byte, 2*small)
				for time.Since(began) < 4*time.Second {
					if _, err := conn.Read(b); err != nil {
						t.Fatal(err)
					}
					if gap := time.Since(last); time.Since(began) > 2*time.Second && !test.want(gap) {
						t.Fatalf("a read returns %v after the one before", gap)
					}
					last = time.Now()
				}
			})
		})
	}
}

// The rest of what has arrived is read at once.
func TestAMessageIsReadAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &pacing{dial: func(context.Context, string, string) (net.Conn, error) {
			return &peer{rate: 1 << 20, window: 1 << 10, last: time.Now()}, nil
		}}
		p.watches.Store(1)
		conn, err := p.dialContext(t.Context(), "tcp", "api")
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		began := time.Now()
		for range 4 {
			if _, err := conn.Read(make([]byte, 10)); err != nil {
				t.Fatal(err)
			}
		}
		if d := time.Since(began); d >= minReadInterval {
			t.Errorf("a message took %v", d)
		}
	})
}
