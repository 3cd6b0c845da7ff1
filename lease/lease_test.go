package lease

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/hindsight-events/hindsight/event"
)

func TestOrderlyFailover(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := newAPI(t)
		first, second := a.replica(t, "first"), a.replica(t, "second")
		first.drain = 25 * time.Second
		var version atomic.Uint64
		version.Store(100)
		first.checkpoint = func() Checkpoint { return at(version.Load()) }

		first.start(t)
		synctest.Wait()
		first.wantHasLed(t, true)
		first.wantFound(t, Checkpoint{})
		second.start(t)
		time.Sleep(time.Minute)
		second.wantHasLed(t, false)
		a.wantCheckpoint(t, at(100))

		// It drains for longer than the Lease lasts, and holds it until then.
		first.stop()
		time.Sleep(24 * time.Second)
		version.Store(200)
		if !first.Leading() {
			t.Error("the first is not the leader while it drains")
		}
		second.wantHasLed(t, false)
		time.Sleep(1*time.Second + first.RetryPeriod*12/10)
		synctest.Wait()
		<-first.done
		if first.err != nil || first.Leading() {
			t.Errorf("Run returned %v, leading %t", first.err, first.Leading())
		}
		second.wantHasLed(t, true)
		second.wantFound(t, at(200))
		if log := second.log.String(); !strings.Contains(log, "acquired the lease") || !strings.Contains(log, "loki/*=uid-a/0@200") {
			t.Errorf("the log of the second lacks the checkpoint:\n%s", log)
		}
		if log := first.log.String(); !strings.Contains(log, "released the lease") {
			t.Errorf("the log of the first lacks the release:\n%s", log)
		}
	})
}

func TestCheckpointNeedsNoRequests(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := newAPI(t)
		r := a.replica(t, "first")
		r.checkpoint = always(at(100))
		r.start(t)
		time.Sleep(time.Minute + time.Second)
		// One get and one create at the start, and a renewal every two seconds, the first with the
		// checkpoint.
		if got := r.wire.methods(); got != "GET POST PUT"+strings.Repeat(" PATCH", 29) {
			t.Errorf("the requests of a minute are %s", got)
		}
	})
}

// Positions that advance are stored at most every CheckpointInterval, other changes and the final
// checkpoint at once.
func TestCheckpointInterval(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := newAPI(t)
		r := a.replica(t, "first", func(o *Options) { o.CheckpointInterval = 10 * time.Second })
		var current atomic.Pointer[Checkpoint]
		set := func(c Checkpoint) { current.Store(&c) }
		set(Checkpoint{Sinks: map[string]map[string]event.Position{"loki": {}}})
		r.checkpoint = func() Checkpoint { return *current.Load() }
		r.start(t)
		second := func(from, to int, want Checkpoint) {
			t.Helper()
			for range to - from + 1 {
				time.Sleep(time.Second)
				a.wantCheckpoint(t, want)
			}
		}
		time.Sleep(time.Millisecond) // not at the instant of a renewal
		time.Sleep(2 * time.Second)
		second(3, 3, *current.Load())
		set(at(1)) // the first position
		time.Sleep(time.Second)
		second(5, 5, at(1))
		set(at(2))
		second(6, 13, at(1))
		second(14, 14, at(2))
		second(15, 30, at(2)) // unchanged
		set(at(3))
		time.Sleep(2 * time.Second)
		second(33, 33, at(3))
		withGap := at(4)
		withGap.Gaps = event.GapSet{{From: at(1).Sinks["loki"][""], To: at(2).Sinks["loki"][""], Cause: event.CauseTooOld}}
		set(withGap)
		second(34, 34, withGap)
		set(at(4)) // as if the gap were forgotten
		second(35, 35, withGap)
		second(36, 36, at(4))
		set(at(5))
		second(37, 39, at(4))
		r.stop()
		<-r.done
		a.wantCheckpoint(t, at(5))
		if got := strings.Count(r.wire.methods(), "PUT"); got != 7 {
			t.Errorf("the Lease was written as a whole %d times, want 7: %s", got, r.wire.methods())
		}
	})
}

// A renewal that only has the renew time conflicts with the writes of other clients.
func TestPartialRenewalIsACompareAndSwap(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := newAPI(t)
		r := a.replica(t, "first").start(t)
		time.Sleep(time.Minute)
		a.change(func(l *coordinationv1.Lease) {
			other, acquired := "other", metav1.NowMicro()
			l.Spec.HolderIdentity, l.Spec.AcquireTime = &other, &acquired
		})
		renewed := a.lease().Spec.RenewTime
		<-r.done
		if got := a.lease(); holderOf(got) != "other" || !got.Spec.RenewTime.Equal(renewed) {
			t.Errorf("another leader's Lease was changed to %+v", got.Spec)
		}
		if !errors.Is(r.err, ErrLost) || !strings.HasSuffix(r.wire.methods(), "PATCH PATCH GET") {
			t.Errorf("Run returned %v after %s", r.err, r.wire.methods())
		}
	})
}

// Two processes with the same identity are two candidates.
func TestEqualIdentities(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := newAPI(t)
		first := a.replica(t, "twin").start(t)
		time.Sleep(time.Minute)
		second := a.replica(t, "twin").start(t)
		time.Sleep(time.Minute)
		second.wantHasLed(t, false)
		first.wire.setFault(hang)
		<-first.done
		time.Sleep(time.Minute)
		second.wantHasLed(t, true)
	})
}

func TestLabelsByOtherClients(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := newAPI(t)
		first := a.replica(t, "first")
		first.checkpoint = always(at(100))
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
			t.Fatalf("is not the leader any more: %s", first.log)
		}
		// They do not make a dead leader look alive.
		first.wire.setFault(hang)
		for range 20 {
			label()
			time.Sleep(time.Second)
		}
		second.wantHasLed(t, true)
		if a.lease().Labels["touched"] == "" {
			t.Error("a label of another client was removed")
		}
	})
}

func TestSimultaneousCandidates(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := newAPI(t)
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

// Clocks need not agree: a candidate measures with its own clock for how long it has seen no
// renewal.
func TestExpiredLeaseIsAcquired(t *testing.T) {
	for name, skew := range map[string]time.Duration{
		"the clock of its holder is an hour behind": -time.Hour,
		"the clock of its holder is an hour ahead":  time.Hour,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				a := newAPI(t)
				a.create(otherLease(skew))
				r := a.replica(t, "first").start(t)
				time.Sleep(40*time.Second - time.Millisecond)
				r.wantHasLed(t, false)
				time.Sleep(2 * time.Millisecond)
				r.wantHasLed(t, true)
				if log := r.log.String(); !strings.Contains(log, "previous=other not_renewed_for=40s") {
					t.Errorf("the log lacks the previous holder and the time:\n%s", log)
				}
			})
		})
	}
}

// otherLease is held by another replica, for 40 s.
func otherLease(skew time.Duration) *coordinationv1.Lease {
	holder, seconds, when, transitions := "other", int32(40), metav1.NewMicroTime(time.Now().Add(skew)), int32(7)
	return &coordinationv1.Lease{
		ObjectMeta: metav1.ObjectMeta{Namespace: "monitoring", Name: "hindsight"},
		Spec: coordinationv1.LeaseSpec{
			HolderIdentity: &holder, LeaseDurationSeconds: &seconds, AcquireTime: &when, RenewTime: &when, LeaseTransitions: &transitions,
		},
	}
}

func TestUnreadableCheckpointIsNotUsedInPart(t *testing.T) {
	for name, text := range map[string]string{
		"newer version":     `{"v":2,"sinks":{"loki":{"*":{"epoch":"a/0","version":7}}}}`,
		"no JSON":           `{`,
		"one invalid epoch": `{"v":1,"epoch":"a/0","sinks":{"loki":{"*":{"version":7}},"file":{"*":{"epoch":"b","version":7}}}}`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				l := otherLease(0)
				l.Annotations = map[string]string{annotation: text}
				a := newAPI(t)
				a.create(l)
				r := a.replica(t, "first").start(t)
				time.Sleep(time.Minute)
				r.wantHasLed(t, true)
				r.wantFound(t, Checkpoint{})
				if log := r.log.String(); strings.Count(log, "cannot read its checkpoint") != 1 {
					t.Errorf("want one warning:\n%s", log)
				}
				if now := a.lease().Annotations[annotation]; now != text {
					t.Errorf("the annotation was overwritten before SetCheckpoint: %q", now)
				}
				r.SetCheckpoint(always(at(9)))
				time.Sleep(r.RetryPeriod + time.Millisecond)
				a.wantCheckpoint(t, at(9))
			})
		})
	}
}

// While a checkpoint is too large, the Lease is renewed and keeps the previous one.
func TestCheckpointThatIsTooLarge(t *testing.T) {
	others := func(size int) func(api) {
		return func(a api) {
			a.change(func(l *coordinationv1.Lease) {
				metav1.SetMetaDataAnnotation(&l.ObjectMeta, "example.com/note", strings.Repeat("x", size))
			})
		}
	}
	for name, test := range map[string]struct {
		checkpoint Checkpoint
		grow       func(api)
		shrink     func(api)
		why        string // a format of bytes
	}{
		"too many positions": {
			checkpoint: large(5, 1000), grow: func(api) {}, shrink: func(api) {},
			why: "annotation hindsight/positions is too large: it has %d bytes, and at most 65536 are stored: configure fewer namespaces (or none, for all) or fewer sinks",
		},
		"large annotations of other clients": {
			checkpoint: large(5, 500), grow: others(220 << 10), shrink: others(10),
			why: "annotation hindsight/positions is too large: it has %d bytes, other annotations of the Lease have 225296, and 262144 are allowed in total: remove other annotations",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				a, reg := newAPI(t), prometheus.NewRegistry()
				r := a.replica(t, "first", func(o *Options) { o.Registerer = reg })
				annotation, _ := encode(test.checkpoint)
				wantMetrics := func(bytes int, unsaved string) {
					t.Helper()
					if err := testutil.GatherAndCompare(reg, strings.NewReader(`
						# HELP hindsight_lease_checkpoint_bytes Size of the last checkpoint, stored or not; at most 64 KiB can be stored.
						# TYPE hindsight_lease_checkpoint_bytes gauge
						hindsight_lease_checkpoint_bytes `+strconv.Itoa(bytes)+`
						# HELP hindsight_lease_checkpoint_unsaved Whether the current checkpoint is too large for the Lease, which keeps the previous one (1), or not (0).
						# TYPE hindsight_lease_checkpoint_unsaved gauge
						hindsight_lease_checkpoint_unsaved `+unsaved+`
					`), "hindsight_lease_checkpoint_bytes", "hindsight_lease_checkpoint_unsaved"); err != nil {
						t.Error(err)
					}
				}
				r.checkpoint = always(at(100))
				r.start(t)
				time.Sleep(time.Minute + time.Millisecond) // not at the instant of a renewal
				wantMetrics(94, "0")
				test.grow(a)
				r.SetCheckpoint(always(test.checkpoint))
				time.Sleep(time.Minute)
				if !r.Leading() {
					t.Fatalf("is not the leader any more: %s", r.log)
				}
				a.wantCheckpoint(t, at(100))
				if err := r.Ready(); err == nil || err.Error() != "checkpoint not stored since 2000-01-01T00:01:02Z: "+fmt.Sprintf(test.why, len(annotation)) {
					t.Errorf("ready: %v", err)
				}
				wantMetrics(len(annotation), "1")

				test.shrink(a)
				r.SetCheckpoint(always(at(300)))
				time.Sleep(r.RetryPeriod + time.Millisecond)
				a.wantCheckpoint(t, at(300))
				if err := r.Ready(); err != nil {
					t.Errorf("ready: %v", err)
				}
				wantMetrics(94, "0")
				if log := r.log.String(); strings.Count(log, "cannot store the checkpoint") != 1 || strings.Count(log, "can be stored again") != 1 {
					t.Errorf("want one line for the failure and one for the recovery:\n%s", log)
				}
			})
		})
	}
}

func TestMetrics(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a, reg := newAPI(t), prometheus.NewRegistry()
		r := a.replica(t, "first", func(o *Options) { o.Registerer = reg })
		want := func(leader, renewed string) {
			t.Helper()
			if err := testutil.GatherAndCompare(reg, strings.NewReader(`
				# HELP hindsight_lease_last_renewal_timestamp_seconds Start time of the last successful renewal by this replica; 0 for a candidate.
				# TYPE hindsight_lease_last_renewal_timestamp_seconds gauge
				hindsight_lease_last_renewal_timestamp_seconds `+renewed+`
				# HELP hindsight_lease_leader Whether this replica is the leader (1) or a candidate (0).
				# TYPE hindsight_lease_leader gauge
				hindsight_lease_leader `+leader+`
			`), "hindsight_lease_leader", "hindsight_lease_last_renewal_timestamp_seconds"); err != nil {
				t.Error(err)
			}
		}
		want("0", "0")
		r.start(t)
		time.Sleep(time.Minute + time.Second)
		want("1", "9.4668486e+08") // synctest starts at 2000-01-01
		r.wire.setFault(hang)
		<-r.done
		want("0", "0")
	})
}

func TestOptionsAreChecked(t *testing.T) {
	for name, test := range map[string]struct {
		change func(*Options)
		want   string
	}{
		"no namespace":         {func(o *Options) { o.Namespace = "" }, "lease: the namespace is missing"},
		"no identity":          {func(o *Options) { o.Identity = "" }, "lease: the identity is missing"},
		"short deadline":       {func(o *Options) { o.RenewDeadline = 3 * time.Second }, "lease: the renew deadline 3s is shorter than two retry periods of 2s"},
		"short duration":       {func(o *Options) { o.Duration = 10 * time.Second }, "lease: the duration 10s is not longer than the renew deadline 10s"},
		"fraction of a second": {func(o *Options) { o.Duration = 15500 * time.Millisecond }, "lease: the duration 15.5s is not in whole seconds"},
		"no retry period":      {func(o *Options) { o.RetryPeriod = 0 }, "lease: the retry period 0s is not positive"},
	} {
		t.Run(name, func(t *testing.T) {
			o := newAPI(t).replica(t, "first").Options
			test.change(&o)
			if _, err := New(o); err == nil || err.Error() != test.want {
				t.Errorf("got %v, want %s", err, test.want)
			}
		})
	}
}
