//go:build e2e

package page

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/performance"
)

// maxFile is the size of a page with 20,000 Events.
const maxFile = 15 << 20

// A page with as many Events as a Timeline holds stays small, has few elements, and filters.
func TestTwentyThousandEvents(t *testing.T) {
	tl := week(20_000)
	path := write(t, tl)
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if info.Size() > maxFile {
		t.Errorf("the file has %d bytes", info.Size())
	}
	v := openFile(t, path, 1280, 800, "")
	if n := value[int](v, `document.querySelectorAll('*').length`); n > 12_000 {
		t.Errorf("%d elements", n)
	}
	v.search("worker-07")
	want := 0
	for i := range tl.Events {
		e := &tl.Events[i]
		if strings.Contains(e.Message, "worker-07") || e.Node >= 0 && tl.Objects[e.Node].Name == "worker-07" || tl.Objects[e.Object].Name == "worker-07" {
			want++
		}
	}
	if events, _ := v.shown(); events != want {
		t.Errorf("%d Events are shown, want %d", events, want)
	}
	v.do(`document.getElementById('clear').click()`)
	v.openLines()
	v.do(`document.getElementById('story').scrollTop = 1e9`)
	last := value[int](v, `Number([...document.querySelectorAll('#story tr[data-row]')].at(-1).dataset.row)`)
	if want := slices.Max(tl.Story[len(tl.Story)-1].Rows); last != want {
		t.Errorf("the end of the story is row %d, not %d", last, want)
	}
	v.do(`document.querySelector('.plot').scrollTop = 1e9`)
	if name := value[string](v, `[...document.querySelectorAll('.lane .name')].at(-1).textContent`); name == "" {
		t.Error("the last lane is not drawn")
	}
}

// The work of the page's main thread, in ms of CPU time, so that a busy machine does not count: to
// open the page until it is drawn, and to draw it anew after a key in the text filter, a chosen type,
// or a turn of the wheel.
func BenchmarkPage(b *testing.B) {
	for name, path := range map[string]func() string{
		"outage":                func() string { return write(b, outage(b)) },
		"week of 20,000 Events": func() string { return write(b, week(20_000)) },
	} {
		b.Run(name, func(b *testing.B) {
			path := path()
			for b.Loop() {
				v := openFile(b, path, 1280, 800, "")
				v.do(``)
				b.ReportMetric(v.cpu(), "ms/open")
				for what, action := range map[string]string{
					"text": `const t = document.getElementById('text'); t.value = 'unhealthy'; t.dispatchEvent(new Event('input'))`,
					"type": `document.querySelector('[data-type=Warning]').click()`,
					"zoom": `document.getElementById('axis').dispatchEvent(new WheelEvent('wheel', {deltaY: -100, clientX: 600, bubbles: true, cancelable: true}))`,
				} {
					var times []float64
					for range 7 {
						before := v.cpu()
						v.do(action)
						times = append(times, v.cpu()-before)
						v.do(`document.getElementById('clear').click()`)
					}
					slices.Sort(times)
					b.ReportMetric(times[len(times)/2], "ms/"+what)
				}
			}
		})
	}
}

// cpu returns the CPU time in ms that the page's main thread has worked.
func (v *view) cpu() float64 {
	for _, m := range call(v, performance.GetMetrics, cdp.Empty{}).Metrics {
		if m.Name == "TaskDuration" {
			return m.Value * 1000
		}
	}
	v.t.Fatal("no TaskDuration")
	return 0
}
