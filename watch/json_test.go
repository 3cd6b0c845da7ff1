package watch

import (
	"bytes"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/hindsight-events/hindsight/event"
)

// breaking answers with a number where an Event named bad has its message.
type breaking struct{ http.ResponseWriter }

func (b breaking) Write(p []byte) (int, error) {
	_, err := b.ResponseWriter.Write(bytes.ReplaceAll(p, []byte(`"message of bad"`), []byte("7")))
	return len(p), err
}

func (b breaking) Flush() { b.ResponseWriter.(http.Flusher).Flush() }

// One Event that cannot be decoded is counted, and holds up no other, in a list and on
// a watch.
func TestUndecodableJSON(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAPI(t)
		a.json = true
		a.intercept = func(w http.ResponseWriter, r *http.Request) bool {
			switch {
			case r.URL.Query().Get("watch") != "":
				a.serveWatch(breaking{w}, r)
			case strings.HasSuffix(r.URL.Path, "/events"):
				a.serveList(breaking{w}, r)
			default:
				return false
			}
			return true
		}
		a.write("a")
		a.write("bad")
		a.write("b")
		r := run(a, event.Position{})
		synctest.Wait()
		wantStates(t, "listed", r.states(), "a@101", "b@103")
		a.write("bad")
		a.write("c")
		a.write("bad")
		synctest.Wait()
		wantStates(t, "taken", r.states(), "a@101", "b@103", "c@105")
		if n := testutil.ToFloat64(r.metrics.undecodable); n != 3 {
			t.Errorf("%v undecodable, want 3", n)
		}
		if n := a.asked("watch=true"); n != 1 {
			t.Errorf("%d watches, want 1", n)
		}
		if v := r.batcher.lastProven().Version; v != 106 {
			t.Errorf("the position is %d, want that of the last one, 106", v)
		}
		_ = r.stop()
		if !strings.Contains(r.log.String(), "decode event default/bad") {
			t.Error("the log does not name it")
		}
	})
}
