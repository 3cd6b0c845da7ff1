//go:build e2e

package page

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"github.com/hindsight-events/hindsight/query/timeline"
)

// openLines opens the lines of the story that are closed and drawn, the last one first.
func (v *view) openLines() {
	v.t.Helper()
	v.do(`for (let b; (b = [...document.querySelectorAll('#story [aria-expanded=false]')].at(-1));) b.click()`)
}

// told returns the lines of the story: time, to whom, and the number of Events.
func (v *view) told() [][]string {
	v.t.Helper()
	return value[[][]string](v, `[...document.querySelectorAll('#story tr[data-line]')].map((tr) => ['.c0', '.to', '.c2'].map((c) => tr.querySelector(c).textContent))`)
}

// The lines of the story are those of the text.
func TestStoryIsThatOfText(t *testing.T) {
	for name, tl := range map[string]*timeline.Timeline{"outage": outage(t), "week": week(2000)} {
		var text bytes.Buffer
		if err := timeline.WriteText(&text, tl, timeline.Style{}); err != nil {
			t.Fatal(err)
		}
		rest, usual := text.String(), 0
		lines := openPage(t, tl, 1280, 800, "").told()
		for i, l := range tl.Story {
			if lines[i][1] != l.What {
				t.Errorf("%s: line %d is %q, not %q", name, i, lines[i][1], l.What)
			}
			_, after, found := strings.Cut(rest, l.What)
			if !found {
				t.Errorf("%s: the text lacks %q", name, l.What)
			}
			rest = after
			if l.Usual {
				usual++
				if lines[i][0] != l.Every {
					t.Errorf("%s: line %d recurs %q, want %q", name, i, lines[i][0], l.Every)
				}
			}
		}
		if len(lines) != len(tl.Story) || (usual > 0) != (name == "week") {
			t.Errorf("%s: %d lines, %d of them throughout; want %d", name, len(lines), usual, len(tl.Story))
		}
	}
}

// A line opens into its rows, by click and by key, and a row opens its Events.
func TestLineOpensIntoRows(t *testing.T) {
	tl := outage(t)
	v := openPage(t, tl, 1280, 800, "")
	at := slices.IndexFunc(tl.Story, func(l timeline.Line) bool { return len(l.Rows) > 1 })
	rows := slices.Sorted(slices.Values(tl.Story[at].Rows)) // by time
	line := fmt.Sprintf(`document.querySelector('tr[data-line="%d"]')`, at)
	below := func() []int {
		t.Helper()
		return value[[]int](v, `[...document.querySelectorAll('tr.inside')].map((tr) => Number(tr.dataset.row))`)
	}
	v.do(line + `.querySelector('.c3').click()`)
	if got := below(); !slices.Equal(got, rows) {
		t.Errorf("a click shows the rows %v, want %v", got, rows)
	}
	v.do(line + `.querySelector('button').focus()`)
	v.run(chromedp.KeyEvent(kb.Enter))
	v.do(``)
	if got := below(); len(got) != 0 {
		t.Errorf("Enter leaves the rows %v open", got)
	}
	v.run(chromedp.KeyEvent(kb.ArrowRight), chromedp.KeyEvent(kb.ArrowDown))
	v.do(``)
	if row := value[int](v, `Number(document.activeElement.closest('tr').dataset.row)`); row != rows[0] {
		t.Errorf("the arrow keys go to row %d, not %d", row, rows[0])
	}
	v.run(chromedp.KeyEvent(kb.Enter))
	v.do(``)
	if id := value[string](v, `document.activeElement.id`); id != "details-title" {
		t.Errorf("Enter on a row leaves the focus at %q", id)
	}
	v.run(chromedp.KeyEvent(kb.Escape), chromedp.KeyEvent(kb.ArrowLeft))
	v.do(``)
	if !value[bool](v, `document.activeElement.closest('tr') === `+line) {
		t.Error("the left arrow does not return to the line")
	}
	v.run(chromedp.KeyEvent(kb.ArrowLeft))
	v.do(``)
	if got := below(); len(got) != 0 {
		t.Errorf("the left arrow leaves the rows %v open", got)
	}
}

// A line counts the Events that pass the filters; when few rows are left, they are shown without lines.
func TestLinesFollowFilters(t *testing.T) {
	tl := week(2000)
	v := openPage(t, tl, 1280, 800, "")
	v.do(`document.querySelector('[data-type=Warning]').click()`)
	warnings := 0
	for i := range tl.Events {
		if tl.Events[i].Type == "Warning" {
			warnings++
		}
	}
	sum, partly := 0, 0
	for _, l := range v.told() {
		var n, of int
		if k, _ := fmt.Sscanf(strings.ReplaceAll(l[2], ",", ""), "%d of %d", &n, &of); k == 2 {
			partly++
		}
		sum += n
	}
	if sum != warnings || len(v.told()) == 0 || len(v.told()) >= len(tl.Story) {
		t.Errorf("%d of %d lines count %d Warnings, want %d", len(v.told()), len(tl.Story), sum, warnings)
	}
	before := v.told()
	v.do(`document.querySelector('[aria-label="Zoom in"]').click()`)
	if slices.EqualFunc(before, v.told(), slices.Equal[[]string]) || !strings.Contains(fmt.Sprint(v.told()), " in view: ") {
		t.Errorf("a zoom leaves the counts as they are: %v", v.told())
	}
	v.do(`document.getElementById('clear').click(); document.querySelector('[data-reason=NodeNotReady]').click()`)
	if lines := v.told(); len(lines) != 0 {
		t.Errorf("few rows have lines: %v", lines)
	}
	if n := value[int](v, `document.querySelectorAll('#story tr[data-row]').length`); n != 1 {
		t.Errorf("%d rows", n)
	}
}

// The lanes take the height that they need, and leave the rest to the story.
func TestLanesHeight(t *testing.T) {
	for name, tl := range map[string]*timeline.Timeline{"hostile": hostile(), "week": week(2000)} {
		for _, height := range []int64{800, 1800} {
			v := openPage(t, tl, 1280, height, "")
			got := value[[]float64](v, `[document.querySelector('.lanes').offsetHeight, document.querySelector('.plot').scrollHeight + document.querySelector('.axis').offsetHeight]`)
			if want := min(got[1]+1, 0.5*float64(height)); got[0] < want-1 || got[0] > want+1 {
				t.Errorf("%s at %d: the lanes' box is %.0f px high, want %.0f", name, height, got[0], want)
			}
		}
	}
}

// The overview has the victims of one preemptor together.
func TestOverviewByPreemptor(t *testing.T) {
	tl := outage(t)
	var workloads []int
	for _, l := range tl.Lanes {
		if l.Kind == timeline.LaneWorkload {
			workloads = append(workloads, l.Object)
		}
	}
	tl.Preemptions = nil
	for i, victim := range workloads[1:4] {
		tl.Preemptions = append(tl.Preemptions, timeline.Preemption{Victim: victim, Preemptor: workloads[0], Pods: i + 2})
	}
	v := openPage(t, tl, 1280, 800, "")
	if text := v.text("#pane-panel"); !strings.Contains(text, "9 pods of 3 workloads in ") {
		t.Errorf("overview: %s", text)
	}
	if n := value[int](v, `document.querySelectorAll('#pane-panel details .link').length`); n != 3 {
		t.Errorf("%d workloads are listed", n)
	}
}
