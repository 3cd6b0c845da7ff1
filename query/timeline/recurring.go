package timeline

import (
	"cmp"
	"slices"
	"strconv"
	"time"
)

const (
	// slots is the number of parts of the range in which recurring Events are looked for.
	slots = 40

	// minRecurring is the shortest range in which something recurs throughout.
	minRecurring = 10 * time.Minute

	// edge is the number of slots at the begin and the end that have such an Event if it recurs
	// throughout.
	edge = slots / 6

	// minSporadic is the number of lines and slots of what recurs now and then.
	minSporadic = 6

	// maxUsual is the number of lines about what recurs.
	maxUsual = 10

	// atOnce is how far apart rows of several workloads are that one line may be about.
	atOnce = 2 * time.Minute

	// maxAtOnce is the length of rows that can be part of such a line.
	maxAtOnce = 30 * time.Minute
)

// histogram counts the occurrences of lines over the range.
type histogram [slots]float64

// recurring takes the lines apart that recur throughout the range, before and after any trouble alike:
// the Events of a reason and the routines, then the Events of a workload. What is in a peak of them is
// not usual.
func (t *Timeline) recurring(lines []line) (usual, others []line) {
	from, to := t.Query.From, t.Query.To
	// What is stored may begin later and end earlier than the range.
	if stored := t.Last.Sub(t.First); from.IsZero() || 2*stored >= to.Sub(from) {
		if t.First.After(from) {
			from = t.First
		}
		to = t.Last
	}
	if to.Sub(from) < minRecurring {
		return nil, lines
	}
	slot := func(at time.Time) int {
		return int(min(max(at.Sub(from), 0)*slots/max(to.Sub(from), 1), slots-1))
	}
	histograms := make([]histogram, len(t.Rows))
	for i := range t.Rows {
		histograms[i] = t.histogramOf(&t.Rows[i], slot)
	}
	worst := t.worst(histograms)
	others = lines
	for _, step := range []struct {
		key   func(*line) lineKey
		which func(*line) bool
	}{
		{t.everywhere, func(l *line) bool { return !l.Gap && !alarming[l.Reason] && l.Routine != RoutineNode }},
		{t.lineKey, func(l *line) bool { return l.Routine == "" && !l.Gap && !alarming[l.Reason] }},
	} {
		var found []line
		found, others = t.recurringBy(others, step.which, step.key, histograms, worst, slot)
		usual = append(usual, found...)
	}
	slices.SortStableFunc(usual, func(a, b line) int { return cmp.Compare(b.Occurrences, a.Occurrences) })
	return usual, others
}

func (t *Timeline) recurringBy(lines []line, which func(*line) bool, key func(*line) lineKey, histograms []histogram, worst int, slot func(time.Time) int) (usual, others []line) {
	of := map[lineKey][]int{}
	var keys []lineKey
	for i := range lines {
		if which(&lines[i]) {
			k := key(&lines[i])
			if of[k] == nil {
				keys = append(keys, k)
			}
			of[k] = append(of[k], i)
		}
	}
	taken := make([]bool, len(lines))
	for _, k := range keys {
		sum := sumOf(lines, of[k], histograms)
		peaks, ok := sum.usual(len(of[k]), worst)
		if !ok {
			continue
		}
		var same []int
		for _, i := range of[k] {
			first, last := slot(lines[i].First), slot(lines[i].Last)
			if last-first > 2 || !slices.Contains(peaks[first:last+1], true) {
				same = append(same, i)
			}
		}
		rest := sumOf(lines, same, histograms)
		if _, ok := rest.usual(len(same), worst); !ok { // it was the peaks alone
			continue
		}
		usual = append(usual, t.joinOf(lines, same))
		for _, i := range same {
			taken[i] = true
		}
	}
	for i := range lines {
		if !taken[i] {
			others = append(others, lines[i])
		}
	}
	return usual, others
}

// sumOf adds the histograms of lines.
func sumOf(lines []line, which []int, histograms []histogram) (sum histogram) {
	for _, i := range which {
		for _, row := range lines[i].rows {
			for n, count := range histograms[row] {
				sum[n] += count
			}
		}
	}
	return sum
}

// histogramOf spreads the occurrences of a row over the slots, from its kept Events.
func (t *Timeline) histogramOf(r *Row, slot func(time.Time) int) (h histogram) {
	for _, i := range r.Events {
		e := &t.Events[i]
		weight := float64(r.EventCount) / float64(len(r.Events))
		first, last := slot(e.Time), slot(e.Time)
		if !e.First.IsZero() && r.Routine == "" {
			first = slot(e.First)
			weight *= float64(max(e.Count, 1))
		}
		for n := first; n <= last; n++ {
			h[n] += weight / float64(last-first+1)
		}
	}
	return h
}

// worst returns the slot with most alarming Events, None if there are none.
func (t *Timeline) worst(histograms []histogram) int {
	var sum histogram
	for i := range t.Rows {
		if r := &t.Rows[i]; r.Routine == "" && alarming[r.Reason] {
			for n, count := range histograms[i] {
				sum[n] += count
			}
		}
	}
	worst := None
	for n, count := range sum {
		if count > 0 && (worst == None || count > sum[worst]) {
			worst = n
		}
	}
	return worst
}

// usual reports whether there is something in most slots, from the first to the last, or at least now
// and then in many lines, before the worst slot and after it; and in which slots there is much more
// than usual.
func (h *histogram) usual(lines, worst int) (peaks [slots]bool, ok bool) {
	filled, first, last := 0, -1, 0
	for n, count := range h {
		if count > 0 {
			filled++
			last = n
			if first < 0 {
				first = n
			}
		}
	}
	throughout := filled >= slots/2 && first <= edge && last >= slots-1-edge
	sporadic := filled >= minSporadic && lines >= minSporadic && last-first >= slots/2
	if !throughout && !sporadic || worst != None && (first >= worst || last <= worst) {
		return peaks, false
	}
	sorted := *h
	slices.Sort(sorted[:])
	for n := range h {
		peaks[n] = h[n] > 4*sorted[slots/2]+4
	}
	return peaks, true
}

// joinAtOnce joins lines of the same reason that concern several workloads at the same time. A rollout
// stays apart: somebody started it.
func (t *Timeline) joinAtOnce(lines []line) []line {
	type group struct {
		lines   []int
		last    time.Time
		message string
	}
	of := map[lineKey]*group{}
	var groups []*group
	for i := range lines {
		l := &lines[i]
		if l.Gap || l.Last.Sub(l.First) > maxAtOnce || slices.ContainsFunc(l.Steps, func(s Step) bool { return s.Reason == "ScalingReplicaSet" }) {
			groups = append(groups, &group{lines: []int{i}})
			continue
		}
		k, pause := t.everywhere(l), atOnce
		if l.Routine != "" {
			pause = quietPause
		}
		g := of[k]
		if g == nil || l.First.Sub(g.last) > pause || !similar(g.message, l.Message) {
			g = &group{message: l.Message}
			of[k] = g
			groups = append(groups, g)
		}
		g.lines = append(g.lines, i)
		if l.Last.After(g.last) {
			g.last = l.Last
		}
	}
	joined := make([]line, 0, len(groups))
	for _, g := range groups {
		if len(g.lines) == 1 {
			joined = append(joined, lines[g.lines[0]])
		} else {
			joined = append(joined, t.joinOf(lines, g.lines))
		}
	}
	return joined
}

// rate returns how often something recurs, as in "every 50m".
func (l *line) rate() string {
	if l.Occurrences < 2 {
		return ""
	}
	return "every " + roughly(l.Last.Sub(l.First)/time.Duration(l.Occurrences-1))
}

// roughly is a duration in its largest unit.
func roughly(d time.Duration) string {
	switch {
	case d < time.Second:
		return "second or less"
	case d < 2*time.Minute:
		return strconv.Itoa(int(d/time.Second)) + "s"
	case d < 2*time.Hour:
		return strconv.Itoa(int(d/time.Minute)) + "m"
	case d < 48*time.Hour:
		return strconv.Itoa(int(d/time.Hour)) + "h"
	}
	return strconv.Itoa(int(d/(24*time.Hour))) + "d"
}
