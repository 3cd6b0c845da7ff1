package watch

import (
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/hindsight-events/hindsight/event"
)

// forge writes two states of an Event, the second one with a time of 2099 in managedFields.
func (a *api) forge(name string) uint64 {
	a.write(name)
	e := a.newEvent(name)
	future := metav1.NewTime(time.Date(2099, 1, 1, 0, 0, 0, 0, time.UTC))
	e.ManagedFields = append(e.ManagedFields, metav1.ManagedFieldsEntry{Manager: "forger", Time: &future})
	e.Annotations = map[string]string{"hindsight/cause": "too_old", "other": "kept"}
	e.Labels = map[string]string{"hindsight/cause": "too_old"}
	return a.put(e)
}

// A time of 2099 in managedFields affects neither the record nor the position nor a later gap, both
// in a list and on a watch.
func TestForgedTimes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := newAPI(t)
		a.forge("a")
		first := run(a, event.Position{})
		synctest.Wait()
		time.Sleep(time.Minute)
		a.forge("b")
		synctest.Wait()
		_ = first.stop()
		for _, r := range first.journal.all() {
			if r.PositionOnly() {
				continue
			}
			if age := time.Since(r.Time); age < -time.Second || age > 2*time.Minute || !r.ObservedTime.IsZero() {
				t.Errorf("%s has the time %s", r.Event.Name, r.Time)
			}
			if len(r.Event.Labels) != 0 || len(r.Event.Annotations) > 1 || r.Event.ResourceVersion != "101" && r.Event.ResourceVersion != "103" && r.Event.Annotations["other"] != "kept" {
				t.Errorf("%s has annotations %v and labels %v", r.Event.Name, r.Event.Annotations, r.Event.Labels)
			}
		}
		if p := first.position(); p.Time.After(time.Now()) {
			t.Errorf("the position's time is %s", p.Time)
		}

		a.forge("c")
		a.compact()
		second := run(a, first.position())
		synctest.Wait()
		gaps := gapRecords(second)
		if len(gaps) != 1 || gaps[0].Time.IsZero() || gaps[0].Time.After(time.Now()) {
			t.Errorf("want a gap that is not in the future: %+v", gaps)
		}
	})
}

// An earlier process has stored a time of 2099.
func TestForgedTimesOfAnEarlierProcess(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := newAPI(t)
		a.write("a")
		start := at(101)
		start.Time = time.Date(2099, 1, 1, 0, 0, 0, 0, time.UTC)
		time.Sleep(time.Minute)
		a.write("b")
		a.compact()
		known := event.Gap{From: start, To: event.Position{Epoch: start.Epoch, Version: 102, Time: start.Time}, Cause: event.CauseTooOld, Namespace: "hindsight"}
		r := run(a, start, func(o *Options) { o.KnownGaps = []event.Gap{known} })
		synctest.Wait()
		gaps := gapRecords(r)
		if len(gaps) != 1 || gaps[0].Time.After(time.Now()) {
			t.Errorf("want a gap that is not in the future: %+v", gaps)
		}
		if p := r.position(); p.Time.After(time.Now()) {
			t.Errorf("the position's time is %s", p.Time)
		}
	})
}

// The API server's clock takes precedence over the local one.
func TestServerClockWins(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := newAPI(t)
		ahead := 3 * time.Hour
		a.Intercept(func(w http.ResponseWriter, r *http.Request) bool {
			w.Header().Set("Date", time.Now().Add(ahead).UTC().Format(http.TimeFormat))
			return false
		})
		a.write("a")
		r := run(a, at(101))
		synctest.Wait()
		time.Sleep(30 * time.Second)
		a.write("b")
		written := metav1.NewTime(time.Now().Add(ahead).Truncate(time.Second))
		e := a.newEvent("b")
		e.ManagedFields[0].Time, e.LastTimestamp, e.CreationTimestamp = &written, written, written
		a.put(e)
		synctest.Wait()
		records := r.journal.all()
		last := records[len(records)-1]
		if want := time.Now().Add(ahead); want.Sub(last.Time).Abs() > time.Second || want.Sub(last.Position.Time).Abs() > time.Second {
			t.Errorf("record at %s, position at %s, want %s", last.Time, last.Position.Time, want)
		}
	})
}
