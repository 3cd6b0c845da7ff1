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
	step     string // what is searched, if not the Events asked for
}

// NewProgress returns the progress of a query, for a terminal.
func NewProgress(w io.Writer, from, to time.Time) *Progress {
	return &Progress{w: w, from: from, to: to, began: time.Now()}
}

// Step begins another reading of the query: what names the Events that it searches.
func (p *Progress) Step(what string, from, to time.Time) {
	if p != nil {
		p.step, p.from, p.to = " "+what, from, to
	}
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
	fmt.Fprintf(p.w, "%ssearching%s: %s, %.0f%%, %d entries", clearLine, p.step, at.Local().Format("2006-01-02 15:04"), min(max(done, 0), 100), entries)
}

// Clear removes the line.
func (p *Progress) Clear() {
	if p == nil || !p.shown {
		return
	}
	p.shown = false
	fmt.Fprint(p.w, clearLine)
}
