package lease

import "time"

// clockReading is a point in time by two clocks.
type clockReading struct {
	wall time.Time     // with Go's monotonic reading, as time.Now returns it
	mono time.Duration // since the start of the process; stands still while the machine is suspended
}

var processStart = time.Now()

func now() clockReading {
	t := time.Now()
	return clockReading{wall: t, mono: t.Sub(processStart)}
}

// since returns how much time has passed since an earlier instant: the most that
// any clock says. A holder that counts too much stops early, which is safe.
func (i clockReading) since(earlier clockReading) time.Duration {
	// Without Round both would be compared by the monotonic clock.
	return max(i.mono-earlier.mono, i.wall.Round(0).Sub(earlier.wall.Round(0)))
}
