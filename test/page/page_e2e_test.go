//go:build e2e

package page

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/input"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"github.com/hindsight-events/hindsight/query/timeline"
)

// span returns the range in view in seconds, and its beginning; 0 for the whole range.
func (v *view) span() (from time.Time, seconds float64) {
	v.t.Helper()
	m := regexp.MustCompile(`from=([^&]*)&to=([^&]*)`).FindStringSubmatch(v.hash())
	if m == nil {
		return time.Time{}, 0
	}
	from, err := time.Parse(time.RFC3339, m[1])
	if err != nil {
		v.t.Fatal(err)
	}
	to, err := time.Parse(time.RFC3339, m[2])
	if err != nil {
		v.t.Fatal(err)
	}
	return from, to.Sub(from).Seconds()
}

// shown returns the numbers of Events and rows that are shown.
func (v *view) shown() (events, rows int) {
	v.t.Helper()
	text := v.text("#shown")
	m := regexp.MustCompile(`^([0-9,]+).*?(?:, | in )([0-9,]+)`).FindStringSubmatch(text)
	if m == nil {
		v.t.Fatalf("shown: %q", text)
	}
	n := func(s string) int { i, _ := strconv.Atoi(strings.ReplaceAll(s, ",", "")); return i }
	return n(m[1]), n(m[2])
}

// mouse sends a mouse event at a place of the lanes' drawing area: x from 0 to 1.
func (v *view) mouse(kind input.DispatchMouseEventType, x, y float64, options ...chromedp.MouseOption) {
	v.t.Helper()
	box := value[[]float64](v, `(() => { const b = document.querySelector('.drawing').getBoundingClientRect(); return [b.left, b.top, b.width] })()`)
	v.run(chromedp.MouseEvent(kind, box[0]+x*box[2], box[1]+y, options...))
	v.do(``)
}

func wheel(delta float64, modifiers int64) chromedp.MouseOption {
	return func(p *input.DispatchMouseEventParams) { p.DeltaX, p.DeltaY, p.Modifiers = 0.01, delta, modifiers } // 0 would be omitted
}

const ctrl = 2

func shifted(p *input.DispatchMouseEventParams) { p.Modifiers = 8 }

func TestZoom(t *testing.T) {
	v := openPage(t, outage(t), 1280, 800, "")
	whole := func(after string) {
		t.Helper()
		if _, s := v.span(); s != 0 {
			t.Errorf("%s: %.1f s are in view, not the whole range", after, s)
		}
	}
	whole("at the start")
	last := 61.0
	narrower := func(after string) time.Time {
		t.Helper()
		from, s := v.span()
		if s == 0 || s >= last {
			t.Errorf("%s: %.1f s are in view, before %.1f s", after, s, last)
		}
		last = s
		return from
	}
	v.do(`document.querySelector('[aria-label="Zoom in"]').click()`)
	narrower("the button")
	if events, _ := v.shown(); events == 725 {
		t.Error("the story does not follow the lanes")
	}
	v.mouse(input.DispatchMouseEventTypeMouseWheel, 0.5, 20, wheel(-120, ctrl))
	narrower("the wheel with Ctrl")
	v.mouse(input.DispatchMouseEventTypeMouseWheel, 0.5, 20, wheel(-120, 0))
	if _, s := v.span(); s != last {
		t.Error("the wheel alone zooms, so the lanes cannot be scrolled")
	}
	v.mouse(input.DispatchMouseEventTypeMousePressed, 0.3, 20, chromedp.ButtonLeft)
	v.mouse(input.DispatchMouseEventTypeMouseMoved, 0.5, 20, chromedp.ButtonLeft)
	v.mouse(input.DispatchMouseEventTypeMouseMoved, 0.6, 20, chromedp.ButtonLeft)
	before, width := v.span()
	v.mouse(input.DispatchMouseEventTypeMouseReleased, 0.6, 20, chromedp.ButtonLeft)
	from := narrower("dragging")
	if want := before.Add(time.Duration(0.3 * width * float64(time.Second))); from.Sub(want).Abs() > 200*time.Millisecond {
		t.Errorf("dragging from %s zooms to %s", want, from)
	}
	v.mouse(input.DispatchMouseEventTypeMousePressed, 0.2, 20, chromedp.ButtonLeft, shifted)
	v.mouse(input.DispatchMouseEventTypeMouseMoved, 0.4, 20, chromedp.ButtonLeft, shifted)
	v.mouse(input.DispatchMouseEventTypeMouseReleased, 0.4, 20, chromedp.ButtonLeft, shifted)
	if after, s := v.span(); s < last*0.99 || s > last*1.01 || !after.Before(from) {
		t.Errorf("dragging with Shift: from %s, %.2f s to %s, %.2f s", from, last, after, s)
	}
	v.do(`document.querySelector('.mark, .lane-name').focus()`)
	v.run(chromedp.KeyEvent("+"))
	v.do(``)
	narrower("the key +")
	v.run(chromedp.KeyEvent("0"))
	v.do(``)
	whole("the key 0")
	v.do(`document.querySelector('[aria-label="Zoom in"]').click()`)
	v.do(`document.getElementById('whole').click()`)
	whole("the button Whole range")
}

// search types into the text filter.
func (v *view) search(text string) {
	v.t.Helper()
	v.do(`document.getElementById('text').focus()`)
	v.run(chromedp.KeyEvent(text))
	v.do(``)
}

// Two fingers zoom, one moves the range.
func TestTouch(t *testing.T) {
	v := openPage(t, outage(t), 1280, 800, "")
	box := value[[]float64](v, `(() => { const b = document.querySelector('.drawing').getBoundingClientRect(); return [b.left, b.top, b.width] })()`)
	touch := func(kind input.DispatchTouchEventType, places ...float64) {
		t.Helper()
		points := []*input.TouchPoint{}
		for i, x := range places {
			id := float64(i)
			points = append(points, &input.TouchPoint{X: box[0] + x*box[2], Y: box[1] + 20, ID: &id})
		}
		call(v, input.DispatchTouchEvent, input.DispatchTouchEventParams{Type: kind, TouchPoints: points})
		v.do(``)
	}
	touch(input.DispatchTouchEventTypeTouchStart, 0.4, 0.6)
	touch(input.DispatchTouchEventTypeTouchMove, 0.3, 0.7)
	touch(input.DispatchTouchEventTypeTouchMove, 0.2, 0.8)
	touch(input.DispatchTouchEventTypeTouchEnd)
	from, width := v.span()
	if width == 0 || width > 30 {
		t.Fatalf("a pinch shows %.1f s of 61 s", width)
	}
	touch(input.DispatchTouchEventTypeTouchStart, 0.3)
	touch(input.DispatchTouchEventTypeTouchMove, 0.5)
	touch(input.DispatchTouchEventTypeTouchMove, 0.6)
	touch(input.DispatchTouchEventTypeTouchEnd)
	if after, same := v.span(); !after.Before(from) || same < width*0.99 || same > width*1.01 {
		t.Errorf("a finger moves %s, %.1f s to %s, %.1f s", from, width, after, same)
	}
}

func TestFilters(t *testing.T) {
	tl := outage(t)
	v := openPage(t, tl, 1280, 800, "")
	expect := func(filter string, want func(*timeline.Event) bool) {
		t.Helper()
		n := 0
		for i := range tl.Events {
			if want(&tl.Events[i]) {
				n++
			}
		}
		events, rows := v.shown()
		if events != n || n == 0 {
			t.Errorf("%s: %d Events are shown, want %d", filter, events, n)
		}
		v.openLines()
		if drawn := value[int](v, `document.querySelectorAll('#story tbody tr[data-row]').length`); drawn != rows {
			t.Errorf("%s: %d rows are in the story, %d are counted", filter, drawn, rows)
		}
	}
	expect("no filter", func(*timeline.Event) bool { return true })
	v.do(`document.querySelector('[data-type=Warning]').click()`)
	expect("Warnings", func(e *timeline.Event) bool { return e.Type == "Warning" })
	v.do(`document.querySelector('[data-type=Warning]').click(); document.querySelector('[data-reason=Preempted]').click()`)
	expect("reason", func(e *timeline.Event) bool { return e.Reason == "Preempted" })
	v.do(`document.querySelector('[data-reason=FailedScheduling]').click()`)
	expect("reasons", func(e *timeline.Event) bool {
		return e.Reason == "Preempted" || e.Reason == "FailedScheduling"
	})
	v.do(`document.getElementById('clear').click(); document.getElementById('tab-reasons').click(); [...document.querySelectorAll('#panel-reasons .link')].find((b) => b.textContent === 'Scheduled').click()`)
	expect("a step of a routine", func(e *timeline.Event) bool { return e.Reason == "Scheduled" })
	v.do(`document.getElementById('clear').click(); document.getElementById('routine').click()`)
	expect("no routine", func(e *timeline.Event) bool { return tl.Rows[e.Row].Routine == "" })
	v.do(`document.getElementById('clear').click()`)
	v.search("Insufficient CPU")
	expect("text", func(e *timeline.Event) bool { return strings.Contains(strings.ToLower(e.Message), "insufficient cpu") })
	v.do(`document.getElementById('clear').click()`)
	v.search("pool-1-node-3")
	expect("the name of a node", func(e *timeline.Event) bool {
		return strings.Contains(e.Message, "pool-1-node-3") || tl.Objects[e.Object].Name == "pool-1-node-3" || e.Node >= 0 && tl.Objects[e.Node].Name == "pool-1-node-3"
	})
	v.do(`document.getElementById('clear').click()`)
	for _, lane := range tl.Lanes {
		if lane.Kind == timeline.LaneNode {
			v.do(fmt.Sprintf(`document.getElementById('tab-nodes').click(); [...document.querySelectorAll('#panel-nodes .link')].find((b) => b.textContent === 'node/%s').click()`, tl.Objects[lane.Object].Name))
			expect("a node", func(e *timeline.Event) bool { return e.Node == lane.Object || e.Object == lane.Object })
			break
		}
	}
	v.search("no Event has this")
	if text := v.text("#story-nothing") + v.text(".plot .nothing"); !strings.Contains(text, "No row passes") || !strings.Contains(text, "No Event passes") {
		t.Errorf("nothing passes: %q", text)
	}
	v.do(`document.getElementById('clear').click()`)
	expect("reset", func(*timeline.Event) bool { return true })
}

// A mark opens its Events with all fields, and the row's place in the story.
func TestMarkOpensEvents(t *testing.T) {
	tl := outage(t)
	v := openPage(t, tl, 1280, 800, "")
	v.do(`document.querySelector('[data-reason=Preempted]').click()`)
	v.do(`document.querySelector('.mark.caused').dispatchEvent(new MouseEvent('click', {bubbles: true}))`)
	if v.text("#details-title") == "no element" {
		t.Fatal("a mark opens nothing")
	}
	v.do(`document.querySelector('#details-title + .tools, .row-item'); document.querySelector('.row-item')?.click()`)
	v.do(`document.querySelector('.event summary').click()`)
	details := v.text("#pane-panel")
	for _, want := range []string{"Preempted", "Preempted by pod ", "As stored", "Event uid", "default-scheduler", "Owner", "replicaset/", "deployment/"} {
		if !strings.Contains(details, want) {
			t.Errorf("the details lack %q:\n%s", want, details)
		}
	}
	if n := value[int](v, `document.querySelectorAll('#story tr.chosen').length`); n != 1 {
		t.Errorf("%d rows of the story are marked", n)
	}
	v.run(chromedp.KeyEvent(kb.Escape))
	v.do(``)
	if text := v.text("#pane-overview[aria-selected=true]"); text != "Overview" {
		t.Error("Escape does not close the details")
	}
}

func TestRowWithManyEventsIsPaged(t *testing.T) {
	tl := outage(t)
	most := 0
	for i := range tl.Rows {
		if len(tl.Rows[i].Events) > len(tl.Rows[most].Events) {
			most = i
		}
	}
	n := len(tl.Rows[most].Events)
	v := openPage(t, tl, 1280, 800, fmt.Sprintf("row=%d", most))
	if got := value[int](v, `document.querySelectorAll('.event').length`); got != 50 {
		t.Errorf("%d Events are listed", got)
	}
	v.do(`[...document.querySelectorAll('.pages button')].find((b) => b.textContent === 'Next').click()`)
	if text := v.text(".pages"); !strings.Contains(text, fmt.Sprintf("51–100 of %d", n)) {
		t.Errorf("page 2: %q", text)
	}
}

// The arrow keys reach every mark. Enter opens one, and Escape returns to it.
func TestKeyboard(t *testing.T) {
	v := openPage(t, outage(t), 1280, 800, "")
	for i := 0; ; i++ {
		v.run(chromedp.KeyEvent(kb.Tab))
		if value[bool](v, `document.activeElement.classList.contains('mark')`) {
			break
		}
		if i == 60 {
			t.Fatal("Tab does not reach a mark")
		}
	}
	if value[string](v, `getComputedStyle(document.activeElement.querySelector('.hit')).stroke`) == "none" {
		t.Error("the focus is not visible")
	}
	v.do(`globalThis.reached = new Set(); document.addEventListener('focusin', () => reached.add(document.activeElement.getAttribute('aria-label')));
		reached.add(document.activeElement.getAttribute('aria-label'))`)
	all := value[int](v, `new Set([...document.querySelectorAll('.mark')].map((m) => m.getAttribute('aria-label'))).size`)
	lanes := value[int](v, `document.querySelectorAll('.lane').length`)
	for range lanes {
		v.run(chromedp.KeyEvent(kb.Home))
		for range 60 {
			before := value[string](v, `document.activeElement.getAttribute('aria-label') + document.activeElement.getAttribute('transform')`)
			v.run(chromedp.KeyEvent(kb.ArrowRight))
			if before == value[string](v, `document.activeElement.getAttribute('aria-label') + document.activeElement.getAttribute('transform')`) {
				break
			}
		}
		v.run(chromedp.KeyEvent(kb.ArrowDown))
	}
	if got := value[int](v, `reached.size`); got != all || all < 30 {
		t.Errorf("the keyboard reaches %d marks of %d", got, all)
	}
	label := value[string](v, `document.activeElement.getAttribute('aria-label')`)
	v.run(chromedp.KeyEvent(kb.Enter))
	v.do(``)
	if id := value[string](v, `document.activeElement.id`); id != "details-title" {
		t.Errorf("Enter leaves the focus at %q", id)
	}
	v.run(chromedp.KeyEvent(kb.Escape))
	v.do(``)
	if back := value[string](v, `document.activeElement.getAttribute('aria-label')`); back != label {
		t.Errorf("Escape returns to %q, not to %q", back, label)
	}
	v.do(`document.querySelector('.row-button').focus()`)
	v.run(chromedp.KeyEvent(kb.End))
	v.do(``)
	if last := value[bool](v, `document.activeElement === [...document.querySelectorAll('.row-button')].at(-1)`); !last {
		t.Error("End does not go to the last row of the story")
	}
}

// Whatever an Event contains stays text: no script, no request, no element of its own, and nothing
// that hides or reorders text. openPage checks for requests, exceptions and violations of the policy.
func TestHostileEvents(t *testing.T) {
	tl := hostile()
	v := openPage(t, tl, 1280, 800, "")
	check := func(place string) {
		t.Helper()
		if found := value[[]string](v, `[...document.querySelectorAll('script,img,iframe,object,embed,a,link,base,form,audio,video,image,use,foreignObject,animate,set')].map((e) => e.outerHTML.slice(0, 60)).filter((s) => !s.startsWith('<script type="application/json" id="data">') && !s.startsWith('<script>(() => {'))`); len(found) > 0 {
			t.Errorf("%s: elements of an Event: %q", place, found)
		}
		if found := value[[]string](v, `[...document.querySelectorAll('*')].flatMap((e) => [...e.attributes]).map((a) => a.name).filter((n) => n.startsWith('on') || ['href', 'src', 'srcdoc', 'action', 'xlink:href'].includes(n))`); len(found) > 0 {
			t.Errorf("%s: attributes %q", place, found)
		}
		if found := value[[]string](v, `[...document.querySelectorAll('[style]')].map((e) => e.getAttribute('style')).filter((s) => !/^((top|left|width|height): [0-9.]+px; ?)*$/.test(s))`); len(found) > 0 {
			t.Errorf("%s: styles %q", place, found)
		}
		if found := value[[]string](v, `(document.body.innerText.match(/[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u061c\u200b-\u200f\u2028-\u202e\u2066-\u2069]/g) ?? [])`); len(found) > 0 {
			t.Errorf("%s: characters that are not shown: %q", place, found)
		}
		if value[bool](v, `'hacked' in window`) {
			t.Fatalf("%s: a script of an Event ran", place)
		}
	}
	check("at the start")
	for _, tab := range []string{"preemptions", "workloads", "nodes", "reasons", "omissions", "story"} {
		v.do(fmt.Sprintf(`document.getElementById('tab-%s').click(); document.querySelectorAll('#panel-%s details').forEach((d) => { d.open = true })`, tab, tab))
		check(tab)
	}
	for i := range tl.Rows {
		v.do(fmt.Sprintf(`location.hash = 'row=%d'; await frames(); document.querySelectorAll('.event').forEach((d) => { d.open = true })`, i))
		check(fmt.Sprintf("row %d", i))
		if !strings.Contains(v.hash(), fmt.Sprintf("row=%d", i)) {
			t.Errorf("row %d is not selected: %s", i, v.hash())
		}
	}
	v.openLines()
	check("opened lines")
	for _, text := range hostileTexts[:6] { // as text, whole
		if found := value[bool](v, fmt.Sprintf(`document.getElementById('text').value = '', [...document.querySelectorAll('#story .said')].some((td) => td.textContent === %q)`, text)); !found {
			t.Errorf("no row shows %q", text)
		}
	}
	v.do(`document.querySelectorAll('.mark').forEach((m) => m.dispatchEvent(new PointerEvent('pointerover', {bubbles: true})))`)
	check("tips")
	v.do(`location.hash = 'row=__proto__&lane=constructor&type=<img src=x onerror=hacked=1>&text=%3Cscript%3E&tab=x&theme="><script>&from=a&to=b&event=-1'`)
	check("a hostile address")
	if blocked := value[string](v, `fetch('http://127.0.0.1:9/').then(() => 'allowed', () => 'blocked')`); blocked != "blocked" {
		t.Error("the policy allows a request")
	}
	v.do(``)
	v.mu.Lock()
	defer v.mu.Unlock()
	if len(v.violations) == 0 {
		t.Error("a violation of the policy is not noticed, so the test would miss others")
	}
	v.violations, v.requests, v.exceptions = nil, nil, nil
}

// The page prints without scroll boxes: the story, all lanes and all tables.
func TestPrint(t *testing.T) {
	tl := outage(t)
	v := openPage(t, tl, 1280, 800, "theme=dark")
	v.do(`addEventListener('beforeprint', () => setTimeout(() => {})); globalThis.printed = null;
		addEventListener('beforeprint', () => { printed = {lines: document.querySelectorAll('#story tr[data-line]').length, rows: document.querySelectorAll('#story tbody tr[data-row]:not([data-line])').length, lanes: document.querySelectorAll('.lane').length, preemptions: document.querySelectorAll('#panel-preemptions tbody tr').length, nodes: document.querySelectorAll('#panel-nodes tbody tr').length} })`)
	pdf, err := chromedp.Run(v.Context, chromedp.PrintToPDF(chromedp.PDFPreferCSSPageSize(), chromedp.PDFPrintBackground()))
	if err != nil {
		t.Fatal(err)
	}
	if pages := bytes.Count(pdf, []byte("/Type /Page\n")); pages < 2 {
		t.Errorf("%d pages", pages)
	}
	printed := value[map[string]int](v, `printed`)
	nodes := 0
	for _, l := range tl.Lanes {
		if l.Kind == timeline.LaneNode {
			nodes++
		}
	}
	for what, want := range map[string]int{"lines": len(tl.Story), "rows": len(tl.Rows), "lanes": len(tl.Lanes), "preemptions": len(tl.Preemptions), "nodes": nodes} {
		if printed[what] != want {
			t.Errorf("%d %s are printed, want %d", printed[what], what, want)
		}
	}
	if path, err := exec.LookPath("pdftotext"); err == nil {
		file := filepath.Join(t.TempDir(), "page.pdf")
		if err := os.WriteFile(file, pdf, 0o600); err != nil {
			t.Fatal(err)
		}
		text, err := exec.Command(path, "-layout", file, "-").Output()
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{"NodeNotReady", "Preempted", "Who preempted whom", "At a glance", "pool-1-node-8"} {
			if !bytes.Contains(text, []byte(want)) {
				t.Errorf("the printed text lacks %q", want)
			}
		}
	}
	if keep := os.Getenv("HINDSIGHT_TEST_KEEP"); keep != "" {
		if err := os.WriteFile(filepath.Join(keep, "page.pdf"), pdf, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	v.do(``)
	if value[bool](v, `document.documentElement.dataset.theme !== 'dark' || document.querySelector('#panel-nodes').classList.contains('current')`) {
		t.Error("printing changes the page")
	}
}

func TestSizes(t *testing.T) {
	for name, tl := range map[string]*timeline.Timeline{"outage": outage(t), "hostile": hostile()} {
		path := write(t, tl)
		for _, size := range [][2]int64{{800, 700}, {1280, 800}, {1920, 1080}} {
			v := openFile(t, path, size[0], size[1], "row=1")
			if over := value[int](v, `document.documentElement.scrollWidth - innerWidth`); over > 0 {
				t.Errorf("%s at %d: %d px too wide", name, size[0], over)
			}
			if size[0] > 1100 {
				if over := value[int](v, `document.documentElement.scrollHeight - innerHeight`); over > 0 {
					t.Errorf("%s at %d: %d px too high", name, size[0], over)
				}
			}
			if outside := value[[]string](v, `[...document.querySelectorAll('button, select, input, .lane')].filter((e) => { const b = e.getBoundingClientRect(); return b.width && (b.left < -0.5 || b.right > innerWidth + 0.5) && !e.closest('.tabs, .tables') }).map((e) => e.outerHTML.slice(0, 80))`); len(outside) > 0 {
				t.Errorf("%s at %d: outside of the window: %q", name, size[0], outside)
			}
		}
	}
}

// The address keeps the state; times are in the zone of the query, or UTC.
func TestAddressKeepsState(t *testing.T) {
	path := write(t, outage(t))
	v := openFile(t, path, 1280, 800, "")
	if text := v.text("#range"); !strings.Contains(text, "10:59:0") || !strings.Contains(text, "Europe/Berlin") {
		t.Errorf("range: %q", text)
	}
	v.do(`document.getElementById('zone').click(); document.querySelector('[data-type=Warning]').click(); document.querySelector('[aria-label="Zoom in"]').click();
		document.getElementById('tab-nodes').click(); document.querySelector('tr[data-row] .row-button').click()`)
	v.openLines()
	v.do(`const s = document.getElementById('theme'); s.value = 'dark'; s.dispatchEvent(new Event('change'))`)
	if text := v.text("#range"); !strings.Contains(text, "09:59:0") || !strings.Contains(text, "UTC") {
		t.Errorf("range in UTC: %q", text)
	}
	state := func(v *view) string {
		return v.text("#shown") + v.text("#range") + v.text("#details-title") + v.text("[role=tab][aria-selected=true]") + v.text("#story tbody") + value[string](v, `getComputedStyle(document.body).backgroundColor`)
	}
	again := openFile(t, path, 1280, 800, value[string](v, `location.hash.slice(1)`))
	if a, b := state(v), state(again); a != b {
		t.Errorf("the address gives\n%s\nnot\n%s", b, a)
	}
}
