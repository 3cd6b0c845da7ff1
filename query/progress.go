package query

import (
	"fmt"
	"io"
	"time"
)

// Progress is a line on a terminal that shows the progress of a long query. A nil *Progress shows
// nothing.
type Progress struct {
	w        io.Writer
	from, to time.Time
	began    time.Time
	updated  time.Time
	shown    bool
}

// NewProgress returns the progress of a query, for a terminal.
func NewProgress(w io.Writer, from, to time.Time) *Progress {
	return &Progress{w: w, from: from, to: to, began: time.Now()}
}

const (
	progressDelay    = time.Second // before the line appears
	progressInterval = 200 * time.Millisecond
	clearLine        = "\r\x1b[K"
)

// Update shows that the query has reached a time.
func (p *Progress) Update(at time.Time, entries int) {
	if p == nil || entries%64 != 0 { // time.Now is slow
		return
	}
	now := time.Now()
	if now.Sub(p.began) < progressDelay || now.Sub(p.updated) < progressInterval {
		return
	}
	p.updated, p.shown = now, true
	done := 100 * float64(at.Sub(p.from)) / float64(max(p.to.Sub(p.from), 1))
	fmt.Fprintf(p.w, "%ssearching: %s, %.0f%%, %d entries", clearLine, at.Local().Format("2006-01-02 15:04"), min(max(done, 0), 100), entries)
}

// Clear removes the line.
func (p *Progress) Clear() {
	if p == nil || !p.shown {
		return
	}
	p.shown = false
	fmt.Fprint(p.w, clearLine)
}
