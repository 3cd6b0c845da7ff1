//go:build e2e

package page

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/network"
	devtools "github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/performance"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"

	"github.com/hindsight-events/hindsight/query/timeline"
	"github.com/hindsight-events/hindsight/test/cluster"
)

// pageTimeout bounds what a test does in one page.
const pageTimeout = 2 * time.Minute

// browserNames are the names of the browser in the PATH.
var browserNames = []string{"chromium", "chromium-browser", "google-chrome"}

var errNoBrowser = errors.New("HINDSIGHT_TEST_CHROMIUM is not set and there is no chromium in PATH")

// chromium returns a context of one browser for all tests, and its version.
var chromium = sync.OnceValues(func() (context.Context, error) {
	path := os.Getenv("HINDSIGHT_TEST_CHROMIUM")
	for _, name := range browserNames {
		if found, err := exec.LookPath(name); err == nil && path == "" {
			path = found
		}
	}
	if path == "" {
		return nil, errNoBrowser
	}
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(path), chromedp.DisableGPU)
	if os.Geteuid() == 0 {
		options = append(options, chromedp.NoSandbox) // Chromium's sandbox refuses root
	}
	ctx, cancel := chromedp.NewExecAllocator(context.Background(), options...)
	stops = append(stops, cancel)
	ctx, cancel = chromedp.NewContext(ctx)
	stops = append(stops, cancel)
	_, err := chromedp.Run(ctx, chromedp.Location()) // starts it
	return ctx, err
})

var stops []context.CancelFunc

func TestMain(m *testing.M) {
	code := m.Run()
	for _, stop := range stops {
		stop()
	}
	os.Exit(code)
}

var versionOf = regexp.MustCompile(`[0-9]+(\.[0-9]+)+`)

// view is a page in the browser.
type view struct {
	context.Context
	t testing.TB

	mu         sync.Mutex
	requests   []string // URLs other than the page's own
	exceptions []string
	violations []string // of the Content-Security-Policy
}

// openPage writes a Timeline as a page and opens it from disk.
func openPage(t testing.TB, tl *timeline.Timeline, width, height int64, hash string) *view {
	t.Helper()
	return openFile(t, write(t, tl), width, height, hash)
}

func openFile(t testing.TB, path string, width, height int64, hash string) *view {
	t.Helper()
	root, err := chromium()
	if errors.Is(err, errNoBrowser) {
		cluster.SkipWithout(t, "chromium", "chromium is not installed, so the page is not tested in a browser: "+err.Error())
	}
	if err != nil {
		t.Fatal("start chromium: ", err)
	}
	url := "file://" + path
	v := &view{t: t}
	ctx, cancel := chromedp.NewContext(root, chromedp.WithListener(func(e any) { v.listen(e, url) }))
	t.Cleanup(cancel)
	if _, err := chromedp.Run(ctx, chromedp.EmulateViewport(width, height)); err != nil { // without a limit, as it opens the tab
		t.Fatal(err)
	}
	v.Context, cancel = context.WithTimeout(ctx, pageTimeout)
	t.Cleanup(cancel)
	call(v, network.Enable, network.EnableParams{})
	call(v, performance.Enable, performance.EnableParams{TimeDomain: performance.EnableTimeDomainThreadTicks})
	call(v, runtime.AddBinding, runtime.AddBindingParams{Name: "violated"})
	call(v, devtools.AddScriptToEvaluateOnNewDocument, devtools.AddScriptToEvaluateOnNewDocumentParams{Source: prelude})
	t.Cleanup(v.checkQuiet)
	v.run(chromedp.Navigate(url + "#" + hash))
	if !value[bool](v, `document.documentElement.dataset.ready === 'true'`) { // the script has run when the page is loaded
		t.Fatal("the page's script did not run to its end")
	}
	version := value[string](v, `navigator.userAgent`)
	cluster.CountRan(t, "chromium", versionOf.FindString(version[strings.Index(version, "Chrome/"):]))
	return v
}

// prelude runs in the page before its own script.
const prelude = `
addEventListener('securitypolicyviolation', (e) => violated(e.violatedDirective + ' ' + e.blockedURI + ' ' + e.sample));
globalThis.frames = async () => { // what an event changes is drawn in the next frame, and then written into the address
	const frame = () => new Promise((r) => requestAnimationFrame(r));
	await frame();
	await frame();
	while (document.documentElement.dataset.rest === 'false') await frame();
};
`

// listen notes what a page must not do.
func (v *view) listen(e any, url string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	switch e := e.(type) {
	case *network.EventRequestWillBeSent:
		if !strings.HasPrefix(e.Request.URL, url) {
			v.requests = append(v.requests, e.Request.URL)
		}
	case *runtime.EventExceptionThrown:
		v.exceptions = append(v.exceptions, fmt.Sprintf("%s, line %d: %v", e.ExceptionDetails.Text, e.ExceptionDetails.LineNumber, e.ExceptionDetails.Exception))
	case *runtime.EventConsoleAPICalled:
		v.exceptions = append(v.exceptions, fmt.Sprintf("console: %v", e.Args))
	case *runtime.EventBindingCalled:
		v.violations = append(v.violations, e.Payload)
	}
}

// checkQuiet reports requests, exceptions and violations.
func (v *view) checkQuiet() {
	v.mu.Lock()
	defer v.mu.Unlock()
	for what, found := range map[string][]string{"requests": v.requests, "exceptions": v.exceptions, "violations of the policy": v.violations} {
		if len(found) > 0 {
			v.t.Errorf("%s: %q", what, found)
		}
	}
}

func (v *view) run(actions ...chromedp.Action[chromedp.Void]) {
	v.t.Helper()
	if err := chromedp.Do(v.Context, actions...); err != nil {
		v.t.Fatal(err)
	}
}

// call sends a command of the DevTools protocol.
func call[P, R any](v *view, command cdp.Command[P, R], params P) R {
	v.t.Helper()
	result, err := chromedp.Call(v.Context, command, params)
	if err != nil {
		v.t.Fatal(err)
	}
	return result
}

// value evaluates an expression in the page, and waits if it is a promise.
func value[T any](v *view, expression string) T {
	v.t.Helper()
	result, err := chromedp.Run(v.Context, chromedp.Evaluate[T](expression, chromedp.EvalAwaitPromise))
	if err != nil {
		v.t.Fatalf("%s: %v", expression[:min(len(expression), 300)], err)
	}
	return result
}

// do executes statements in the page, and waits until it has drawn.
func (v *view) do(statements string) {
	v.t.Helper()
	value[bool](v, `(async () => {`+statements+`; await frames(); return true})()`)
}

// text returns the text of the first element of a selector.
func (v *view) text(selector string) string {
	v.t.Helper()
	return value[string](v, fmt.Sprintf(`document.querySelector(%q)?.textContent ?? 'no element'`, selector))
}

// hash returns the state in the address.
func (v *view) hash() string {
	v.t.Helper()
	return value[string](v, `decodeURIComponent(location.hash)`)
}
