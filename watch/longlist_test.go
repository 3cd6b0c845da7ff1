package watch

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/hindsight-events/hindsight/event"
	"github.com/hindsight-events/hindsight/test/fakeapi"
)

var listed = flag.Int("listed", 15_000, "number of Events in TestLongList; a million take minutes under the race detector")

// longList generates the pages of a list of many Events. Their versions are 101 and up, in no
// order.
type longList struct {
	n       int
	pages   int // requested
	expired int // expired tokens: the first one can be continued, the second one not
}

func (l *longList) version() uint64 { return uint64(100 + l.n) }

func (l *longList) page(from, to int) *corev1.EventList {
	list := &corev1.EventList{ListMeta: metav1.ListMeta{ResourceVersion: strconv.FormatUint(l.version(), 10)}}
	if to < l.n {
		list.Continue = strconv.Itoa(to)
	}
	written := metav1.NewTime(time.Now().Add(-time.Minute).Truncate(time.Second))
	for i := from; i < to; i++ {
		name := fmt.Sprintf("ingester-%07d.186f3c1d2e4b5a69", i)
		list.Items = append(list.Items, corev1.Event{
			ObjectMeta: metav1.ObjectMeta{
				Namespace: "default", Name: name, UID: types.UID(name), CreationTimestamp: written,
				ResourceVersion: strconv.Itoa(101 + i*7919%l.n),
			},
			InvolvedObject: corev1.ObjectReference{Kind: "Pod", Namespace: "default", Name: name},
			Reason:         "Preempted", Message: "Preempted by pod on node", Type: "Normal",
			FirstTimestamp: written, LastTimestamp: written, Count: 1,
		})
	}
	return list
}

// serve serves pages. The second one is cut off; later the token expires twice.
func (l *longList) serve(a *api, w http.ResponseWriter, r *http.Request) bool {
	q := r.URL.Query()
	if !isPage(r) {
		return false
	}
	l.pages++
	from, _ := strconv.Atoi(strings.TrimPrefix(q.Get("continue"), "again-"))
	limit, _ := strconv.Atoi(q.Get("limit"))
	last := from+limit >= l.n
	switch {
	case l.pages == 2:
		body := fakeapi.Encode(l.page(from, min(from+limit, l.n)), false)
		_, _ = w.Write(body[:len(body)*2/3])
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	case last && l.expired < 2:
		s := fakeapi.Status(http.StatusGone, "the continue token has expired")
		if l.expired++; l.expired == 1 {
			s.Continue = "again-" + strconv.Itoa(from)
		}
		fakeapi.Respond(w, r, http.StatusGone, s)
	default:
		fakeapi.Respond(w, r, http.StatusOK, l.page(from, min(from+limit, l.n)))
	}
	return true
}

// Two processes read a long list with failures; the first one ends in the middle of it. Each state
// is emitted once and in order.
func TestLongList(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := newAPI(t)
		l := &longList{n: *listed}
		for l.n%7919 == 0 {
			l.n++ // otherwise versions would repeat
		}
		a.Advance(l.version() - a.Version())
		a.Intercept(func(w http.ResponseWriter, r *http.Request) bool { return l.serve(a, w, r) })
		dir := t.TempDir()

		next, half := uint64(101), l.version()-uint64(l.n)/2
		killed := errors.New("killed")
		process := func(until uint64) func(*Options) {
			return func(o *Options) {
				o.SortDir, o.SortMaxBytes = dir, 1<<30
				o.Handle = func(_ context.Context, records []event.Record) error {
					if next > until {
						return killed
					}
					if len(records) > maxBatchRecords {
						t.Errorf("%d records in one batch", len(records))
					}
					for _, rec := range records {
						if rec.PositionOnly() {
							continue
						}
						if rec.Event.ResourceVersion != strconv.FormatUint(next, 10) {
							return fmt.Errorf("got version %s, want %d", rec.Event.ResourceVersion, next)
						}
						next++
					}
					return nil
				}
			}
		}
		first := run(a, event.Position{}, process(half))
		time.Sleep(time.Minute)
		synctest.Wait()
		if err := first.stop(); !errors.Is(err, killed) {
			t.Fatalf("the first process ends with %v at %s", err, first.Position())
		}
		pages := l.pages
		if l.expired != 2 {
			t.Errorf("%d tokens expired", l.expired)
		}
		if got, want := first.Position().Version, next-1; got != want {
			t.Errorf("the first process ends at version %d, but stored %d", got, want)
		}

		second := run(a, first.Position(), process(l.version()+1))
		time.Sleep(time.Minute)
		synctest.Wait()
		wantPosition(t, second.Position(), fmt.Sprintf("uid-a/0@%d", l.version()))
		if next != l.version()+1 {
			t.Errorf("%d states emitted, want %d", next-101, l.n)
		}
		if err := second.stop(); err != nil {
			t.Error(err)
		}
		t.Logf("%d Events, %d and %d pages", l.n, pages, l.pages-pages)
	})
}
