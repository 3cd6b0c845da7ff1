package lease

import (
	"reflect"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func wantHeld(t *testing.T, got, want Checkpoint) {
	t.Helper()
	if !reflect.DeepEqual(got, want) {
		t.Errorf("held %+v, want %+v", got, want)
	}
}

func wantLed(t *testing.T, r *replica, want bool) {
	t.Helper()
	if r.leads() != want {
		t.Fatalf("%s has led: %v, want %v; its log:\n%s", r.Identity, r.leads(), want, r.log)
	}
}

func TestTheFirstLeadsAndHandsOverInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &api{}
		first, second := a.replica(t, "first"), a.replica(t, "second")
		first.drains = 25 * time.Second
		var version atomic.Uint64
		version.Store(100)
		first.keeps = func() Checkpoint { return at(version.Load()) }

		first.start(t)
		synctest.Wait()
		wantLed(t, first, true)
		wantHeld(t, first.given(), Checkpoint{})
		second.start(t)
		time.Sleep(time.Minute)
		wantLed(t, second, false)
		wantHeld(t, a.says(t), at(100))

		// It ends for longer than a Lease lasts, and holds it all the while.
		first.stop()
		time.Sleep(24 * time.Second)
		version.Store(200)
		if !first.Leading() {
			t.Error("while it drains, the first does not hold the Lease any more")
		}
		wantLed(t, second, false)
		time.Sleep(1*time.Second + first.RetryPeriod*12/10)
		synctest.Wait()
		<-first.done
		if first.error != nil || first.Leading() {
			t.Errorf("Run returned %v, leading %v", first.error, first.Leading())
		}
		wantLed(t, second, true)
		wantHeld(t, second.given(), at(200))
		if log := second.log.String(); !strings.Contains(log, "took over the lease") || !strings.Contains(log, "loki/*=uid-a/0@200") {
			t.Errorf("the log of the second does not say what it took over:\n%s", log)
		}
		if log := first.log.String(); !strings.Contains(log, "released the lease") {
			t.Errorf("the log of the first does not say that it released:\n%s", log)
		}
	})
}

func TestPositionsCostNoRequestsOfTheirOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &api{}
		r := a.replica(t, "first")
		r.keeps = always(at(100))
		r.start(t)
		time.Sleep(time.Minute + time.Second)
		r.wire.mu.Lock()
		defer r.wire.mu.Unlock()
		// One get and one create at the start, and a renewal each two seconds.
		if n := len(r.wire.requests); n != 2+30 {
			t.Errorf("%d requests in a minute, want 32: %q", n, r.wire.requests)
		}
	})
}

// Two processes of one name are two candidates all the same.
func TestTheSameIdentityTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &api{}
		first := a.replica(t, "twin").start(t)
		time.Sleep(time.Minute)
		second := a.replica(t, "twin").start(t)
		time.Sleep(time.Minute)
		wantLed(t, second, false)
		first.wire.breakWith(hang)
		<-first.done
		time.Sleep(time.Minute)
		wantLed(t, second, true)
	})
}

func TestOtherWritersOfTheLeaseDoNotMatter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &api{}
		first := a.replica(t, "first")
		first.keeps = always(at(100))
		first.start(t)
		time.Sleep(time.Minute)
		second := a.replica(t, "second").start(t)
		label := func() {
			a.change(func(l *coordinationv1.Lease) { l.Labels = map[string]string{"touched": time.Now().String()} })
		}
		for range 60 {
			label()
			time.Sleep(time.Second)
		}
		if !first.Leading() {
			t.Fatalf("does not lead any more: %s", first.log)
		}
		// Nor do they make a dead leader look alive.
		first.wire.breakWith(hang)
		for range 20 {
			label()
			time.Sleep(time.Second)
		}
		wantLed(t, second, true)
		a.mu.Lock()
		defer a.mu.Unlock()
		if a.lease.Labels["touched"] == "" {
			t.Error("a label of somebody else is gone")
		}
	})
}

func TestCandidatesAtTheSameInstant(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &api{}
		replicas := []*replica{a.replica(t, "a"), a.replica(t, "b"), a.replica(t, "c")}
		for _, r := range replicas {
			r.start(t)
		}
		leading := func() (n int) {
			for _, r := range replicas {
				if r.Leading() {
					n++
				}
			}
			return n
		}
		for range 20 {
			time.Sleep(3 * time.Second)
			if n := leading(); n != 1 {
				t.Fatalf("%d replicas lead, want 1", n)
			}
		}
	})
}

// Clocks of machines need not agree: what counts is for how long a candidate
// itself has seen no renewal.
func TestAStrangersLeaseIsTakenAfterWatchingItForItsDuration(t *testing.T) {
	for name, skew := range map[string]time.Duration{
		"its clock is an hour behind": -time.Hour,
		"its clock is an hour ahead":  time.Hour,
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := &api{lease: strangersLease(skew)}
				r := a.replica(t, "first").start(t)
				time.Sleep(40*time.Second - time.Millisecond)
				wantLed(t, r, false)
				time.Sleep(2 * time.Millisecond)
				wantLed(t, r, true)
				if log := r.log.String(); !strings.Contains(log, "from=stranger not_renewed_for=40s") {
					t.Errorf("the log does not say from whom and after how long:\n%s", log)
				}
			})
		})
	}
}

// strangersLease lasts 40 s.
func strangersLease(skew time.Duration) *coordinationv1.Lease {
	who, seconds, when, transitions := "stranger", int32(40), metav1.NewMicroTime(time.Now().Add(skew)), int32(7)
	return &coordinationv1.Lease{
		ObjectMeta: metav1.ObjectMeta{Namespace: "monitoring", Name: "hindsight", UID: "uid-0", ResourceVersion: "1"},
		Spec: coordinationv1.LeaseSpec{
			HolderIdentity: &who, LeaseDurationSeconds: &seconds, AcquireTime: &when, RenewTime: &when, LeaseTransitions: &transitions,
		},
	}
}

func TestPositionsThatCannotBeReadAreNotUsedInPart(t *testing.T) {
	for name, said := range map[string]string{
		"of a newer version": `{"v":2,"sinks":{"loki":{"*":{"epoch":"a/0","version":7}}}}`,
		"no JSON":            `so far`,
		"one is damaged":     `{"v":1,"epoch":"a/0","sinks":{"loki":{"*":{"version":7}},"file":{"*":{"epoch":"b","version":7}}}}`,
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := strangersLease(0)
				l.Annotations = map[string]string{annotation: said}
				a := &api{lease: l}
				r := a.replica(t, "first").start(t)
				time.Sleep(time.Minute)
				wantLed(t, r, true)
				wantHeld(t, r.given(), Checkpoint{})
				if log := r.log.String(); strings.Count(log, "cannot use the positions in it") != 1 {
					t.Errorf("the log does not say so:\n%s", log)
				}
				a.mu.Lock()
				now := a.lease.Annotations[annotation]
				a.mu.Unlock()
				if now != said {
					t.Errorf("the annotation was overwritten before anything else was known: %q", now)
				}
				r.SetCheckpoint(always(at(9)))
				time.Sleep(r.RetryPeriod + time.Millisecond)
				wantHeld(t, a.says(t), at(9))
			})
		})
	}
}

// Positions that do not fit cost neither the Lease nor silence.
func TestPositionsThatDoNotFit(t *testing.T) {
	others := func(size int) func(*api) {
		return func(a *api) {
			a.change(func(l *coordinationv1.Lease) {
				metav1.SetMetaDataAnnotation(&l.ObjectMeta, "example.com/note", strings.Repeat("x", size))
			})
		}
	}
	for name, test := range map[string]struct {
		held       Checkpoint
		spoil      func(*api)
		mend       func(*api)
		bytes, why string
	}{
		"too many": {
			held: large(5, 1000), spoil: func(*api) {}, mend: func(*api) {}, bytes: "369571",
			why: "annotation hindsight/positions would have 369571 bytes, more than the 196608 that are safe in a Lease: list fewer namespaces (or none, for all), or have fewer sinks",
		},
		"beside others' annotations": {
			held: large(5, 500), spoil: others(100 << 10), mend: others(10), bytes: "184571",
			why: "annotation hindsight/positions would have 184571 bytes, and all annotations of the Lease may have 262144 together, of which others take 102416: remove those",
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a, reg := &api{}, prometheus.NewRegistry()
				r := a.replica(t, "first", func(o *Options) { o.Registerer = reg })
				wantMetrics := func(bytes, unsaved string) {
					t.Helper()
					if err := testutil.GatherAndCompare(reg, strings.NewReader(`
						# HELP hindsight_lease_positions_bytes Size of the positions as last written into the Lease, or as they would be if they fitted; 192 KiB fit.
						# TYPE hindsight_lease_positions_bytes gauge
						hindsight_lease_positions_bytes `+bytes+`
						# HELP hindsight_lease_positions_unsaved Whether the Lease keeps former positions because the present ones do not fit (1) or not (0).
						# TYPE hindsight_lease_positions_unsaved gauge
						hindsight_lease_positions_unsaved `+unsaved+`
					`), "hindsight_lease_positions_bytes", "hindsight_lease_positions_unsaved"); err != nil {
						t.Error(err)
					}
				}
				r.keeps = always(at(100))
				r.start(t)
				time.Sleep(time.Minute + time.Millisecond) // not at the instant of a renewal
				wantMetrics("94", "0")
				test.spoil(a)
				r.SetCheckpoint(always(test.held))
				time.Sleep(time.Minute)
				if !r.Leading() {
					t.Fatalf("does not lead any more: %s", r.log)
				}
				wantHeld(t, a.says(t), at(100))
				if err := r.Ready(); err == nil || err.Error() != "positions are not saved since 2000-01-01T00:01:02Z: "+test.why {
					t.Errorf("ready: %v", err)
				}
				wantMetrics(test.bytes, "1")

				test.mend(a)
				r.SetCheckpoint(always(at(300)))
				time.Sleep(r.RetryPeriod + time.Millisecond)
				wantHeld(t, a.says(t), at(300))
				if err := r.Ready(); err != nil {
					t.Errorf("ready: %v", err)
				}
				wantMetrics("94", "0")
				if log := r.log.String(); strings.Count(log, "positions do not fit into the lease") != 1 || strings.Count(log, "fit into the lease again") != 1 {
					t.Errorf("want one line about it and one about its end:\n%s", log)
				}
			})
		})
	}
}

func TestMetrics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, reg := &api{}, prometheus.NewRegistry()
		r := a.replica(t, "first", func(o *Options) { o.Registerer = reg })
		want := func(leader, renewed string) {
			t.Helper()
			if err := testutil.GatherAndCompare(reg, strings.NewReader(`
				# HELP hindsight_lease_last_renewal_timestamp_seconds When the last successful renewal by this replica was begun; 0 while it waits.
				# TYPE hindsight_lease_last_renewal_timestamp_seconds gauge
				hindsight_lease_last_renewal_timestamp_seconds `+renewed+`
				# HELP hindsight_lease_leader Whether this replica leads (1) or waits (0).
				# TYPE hindsight_lease_leader gauge
				hindsight_lease_leader `+leader+`
			`), "hindsight_lease_leader", "hindsight_lease_last_renewal_timestamp_seconds"); err != nil {
				t.Error(err)
			}
		}
		want("0", "0")
		r.start(t)
		time.Sleep(time.Minute + time.Second)
		want("1", "9.4668486e+08") // a bubble begins at 2000-01-01
		r.wire.breakWith(hang)
		<-r.done
		want("0", "0")
	})
}

func TestOptionsAreChecked(t *testing.T) {
	for name, test := range map[string]struct {
		change func(*Options)
		want   string
	}{
		"no namespace":             {func(o *Options) { o.Namespace = "" }, "lease: the namespace is missing"},
		"no identity":              {func(o *Options) { o.Identity = "" }, "lease: the identity is missing"},
		"a deadline too short":     {func(o *Options) { o.RenewDeadline = 3 * time.Second }, "lease: the renew deadline 3s is shorter than two retry periods of 2s"},
		"a duration too short":     {func(o *Options) { o.Duration = 10 * time.Second }, "lease: the duration 10s is not longer than the renew deadline 10s"},
		"a part of a second":       {func(o *Options) { o.Duration = 15500 * time.Millisecond }, "lease: the duration 15.5s is not in whole seconds"},
		"a retry period of nought": {func(o *Options) { o.RetryPeriod = 0 }, "lease: the retry period 0s is not positive"},
	} {
		t.Run(name, func(t *testing.T) {
			o := (&api{}).replica(t, "first").Options
			test.change(&o)
			if _, err := New(o); err == nil || err.Error() != test.want {
				t.Errorf("got %v, want %s", err, test.want)
			}
		})
	}
}
