package lease

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// A leader that cannot renew stops by itself before another replica leads, soon after the Lease
// expires.
func TestLeaderThatCannotRenewIsReplaced(t *testing.T) {
	for name, fault := range map[string]fault{
		"requests hang":           hang,
		"connections are refused": refuse,
		"requests are forbidden":  forbid,
		"requests fail":           fail,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				a := newAPI(t)
				first, second := a.replica(t, "first"), a.replica(t, "second")
				first.checkpoint = always(at(100))
				first.start(t)
				synctest.Wait()
				second.start(t)
				time.Sleep(time.Minute + time.Millisecond) // just after a renewal
				renewed := time.Now().Add(-time.Millisecond)
				first.wire.setFault(fault)

				time.Sleep(first.RenewDeadline - 2*time.Millisecond)
				until, ok := first.Valid()
				if want := renewed.Add(first.Duration); !ok || !until.Equal(want) {
					t.Errorf("before the renew deadline: valid %v until %v, want true until %v", ok, until, want)
				}
				time.Sleep(time.Millisecond)
				if _, ok := first.Valid(); ok {
					t.Error("still valid after the renew deadline")
				}
				<-first.done
				if !errors.Is(first.err, ErrLost) || !errors.Is(first.cause, ErrLost) {
					t.Errorf("Run returned %v, the context has the cause %v; want ErrLost", first.err, first.cause)
				}
				if late := first.stopped.Sub(renewed.Add(first.RenewDeadline)); late != 0 {
					t.Errorf("the context of lead ended %v after the renew deadline", late)
				}
				second.wantHasLed(t, false)
				time.Sleep(time.Until(renewed.Add(first.Duration + second.RetryPeriod*12/10)))
				synctest.Wait()
				second.wantHasLed(t, true)
				second.wantFound(t, at(100))
			})
		})
	}
}

func TestShortOutageOfTheAPIServer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := newAPI(t)
		r := a.replica(t, "first").start(t)
		time.Sleep(time.Minute + time.Millisecond)
		r.wire.setFault(hang)
		time.Sleep(6 * time.Second)
		r.wire.setFault(nil)
		time.Sleep(time.Minute)
		if !r.Leading() {
			t.Fatalf("is not the leader any more: %s", r.log)
		}
		if log := r.log.String(); strings.Count(log, "request for the lease failed") != 1 || strings.Count(log, "succeed again") != 1 {
			t.Errorf("want one line for the failure and one for the recovery:\n%s", log)
		}
	})
}

func TestSuspendedMachineIsNotTheLeader(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := newAPI(t)
		r := a.replica(t, "first")
		var suspended atomic.Int64 // advances the wall clock alone
		r.deadline.now = func() clockReading {
			i := readClock()
			i.wall = i.wall.Add(time.Duration(suspended.Load()))
			return i
		}
		r.start(t)
		time.Sleep(time.Minute + time.Millisecond) // just after a renewal
		suspended.Store(int64(9 * time.Second))
		if !r.Leading() {
			t.Fatal("is not the leader although no renewal is overdue")
		}
		suspended.Store(int64(11 * time.Second))
		if r.Leading() {
			t.Error("is the leader although the machine was suspended for longer than the renew deadline")
		}
		<-r.done
		if !errors.Is(r.err, ErrLost) || !strings.Contains(r.err.Error(), "suspended") {
			t.Errorf("Run returned %v", r.err)
		}
	})
}

func TestRenewalAfterTheDeadlineDoesNotCount(t *testing.T) {
	clock := clockReading{wall: time.Now()}
	d := leaseDeadline{renewDeadline: 10 * time.Second, now: func() clockReading { return clock }}
	begun := clock
	d.start(begun)
	clock.mono += 9 * time.Second
	if !d.renew(begun) {
		t.Error("a renewal before the deadline is not accepted")
	}
	clock.mono += time.Second
	if d.renew(clock) {
		t.Error("a renewal after the deadline is accepted")
	}
	clock = begun
	if _, left := d.check(); left > 0 {
		t.Error("valid again after the deadline")
	}
}

func TestDeletedLeaseIsRecreated(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := newAPI(t)
		r := a.replica(t, "first")
		r.checkpoint = always(at(100))
		r.start(t)
		time.Sleep(time.Minute)
		a.remove()
		time.Sleep(5 * time.Second)
		if a.holder() != "first" || !r.Leading() {
			t.Errorf("held by %q, leading %t", a.holder(), r.Leading())
		}
		a.wantCheckpoint(t, at(100))
	})
}

func TestCandidateKeepsTheCheckpointOfADeletedLease(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := newAPI(t)
		first := a.replica(t, "first")
		first.checkpoint = always(at(100))
		first.start(t)
		time.Sleep(time.Minute)
		second := a.replica(t, "second").start(t)
		time.Sleep(time.Minute)
		first.wire.setFault(hang)
		a.remove()
		time.Sleep(5 * time.Second)
		second.wantHasLed(t, false) // the first may still lead
		time.Sleep(15 * time.Second)
		second.wantHasLed(t, true)
		second.wantFound(t, at(100))

		// The first reconnects.
		first.wire.setFault(nil)
		<-first.done
		if !errors.Is(first.err, ErrLost) {
			t.Errorf("Run returned %v, want ErrLost", first.err)
		}
	})
}

// Changes of the Lease by other clients never cause two leaders, and another replica leads once the
// holder may not.
func TestChangesByOtherClientsCauseNoTwoLeaders(t *testing.T) {
	emptied := func(l *coordinationv1.Lease) { l.Spec.HolderIdentity = nil }
	for name, change := range map[string]func(api){
		"it is deleted": api.remove,
		"it is deleted repeatedly": func(a api) {
			go func() {
				for range 20 {
					a.remove()
					time.Sleep(700 * time.Millisecond)
				}
			}()
		},
		"it is deleted and recreated without a holder": func(a api) {
			a.remove()
			a.create(&coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: "monitoring", Name: "hindsight"}})
		},
		"its holder is removed": func(a api) { a.change(emptied) },
		"its holder and times are removed": func(a api) {
			a.change(func(l *coordinationv1.Lease) { l.Spec = coordinationv1.LeaseSpec{} })
		},
		"its holder is removed and its duration shortened": func(a api) {
			a.change(func(l *coordinationv1.Lease) {
				emptied(l)
				second := int32(1)
				l.Spec.LeaseDurationSeconds = &second
			})
		},
	} {
		for _, hangs := range []time.Duration{0, 12 * time.Second, time.Hour} { // after the change
			t.Run(fmt.Sprintf("%s, holder hangs after %v", name, hangs), func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					a := newAPI(t)
					first, second := a.replica(t, "first"), a.replica(t, "second")
					first.checkpoint = always(at(100))
					first.start(t)
					synctest.Wait()
					second.start(t)
					time.Sleep(time.Minute + 1500*time.Millisecond)
					change(a)
					for passed := time.Duration(0); passed < 45*time.Second; passed += 50 * time.Millisecond {
						if passed == hangs {
							first.wire.setFault(hang)
						}
						time.Sleep(50 * time.Millisecond)
						synctest.Wait()
						if first.Leading() && second.Leading() {
							t.Fatalf("two leaders; the log of the second:\n%s", second.log)
						}
					}
					if alive := hangs > time.Minute; first.Leading() != alive || second.Leading() == alive {
						t.Errorf("leading: first %v, second %v", first.Leading(), second.Leading())
					}
					if second.hasLed() {
						second.wantFound(t, at(100))
					}
					first.wire.setFault(nil)
				})
			})
		}
	}
}

func TestReleasedLeaseIsAcquiredAtOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := newAPI(t)
		first, second := a.replica(t, "first").start(t), a.replica(t, "second")
		synctest.Wait()
		second.start(t)
		time.Sleep(time.Minute)
		first.stop()
		<-first.done
		time.Sleep(second.RetryPeriod * 12 / 10)
		synctest.Wait()
		second.wantHasLed(t, true)
	})
}

func TestLeaderNoticesThatItWasReplaced(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := newAPI(t)
		r := a.replica(t, "first").start(t)
		time.Sleep(time.Minute)
		a.change(func(l *coordinationv1.Lease) {
			other, since := "other", metav1.NowMicro()
			l.Spec.HolderIdentity, l.Spec.AcquireTime = &other, &since
		})
		time.Sleep(r.RetryPeriod)
		<-r.done
		if !errors.Is(r.err, ErrLost) || !strings.Contains(r.err.Error(), `"other"`) {
			t.Errorf("Run returned %v, want ErrLost and the holder", r.err)
		}
		if a.holder() != "other" {
			t.Errorf("the Lease is held by %q after the first has lost it", a.holder())
		}
	})
}

// A write may succeed although its response is lost.
func TestLostResponses(t *testing.T) {
	// nth returns a function that is true for the n-th write.
	nth := func(n int32) func(*http.Request) bool {
		var writes atomic.Int32
		return func(r *http.Request) bool { return r.Method != http.MethodGet && writes.Add(1) == n }
	}
	t.Run("of the acquisition", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			a := newAPI(t)
			r := a.replica(t, "first")
			r.wire.dropResponse = nth(1)
			r.start(t)
			// The request times out and is retried.
			time.Sleep(r.RenewDeadline/2 + r.RetryPeriod*12/10)
			r.wantHasLed(t, true)
		})
	})
	t.Run("of a renewal", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			a := newAPI(t)
			r := a.replica(t, "first")
			r.wire.dropResponse = nth(3)
			r.start(t)
			time.Sleep(time.Minute)
			if !r.Leading() {
				t.Errorf("is not the leader any more: %s", r.log)
			}
		})
	})
	t.Run("of the release", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			a := newAPI(t)
			r := a.replica(t, "first").start(t)
			time.Sleep(time.Minute + time.Millisecond)
			r.wire.mu.Lock()
			r.wire.dropResponse = nth(1)
			r.wire.mu.Unlock()
			r.stop()
			<-r.done
			if r.err != nil || a.holder() != "" {
				t.Errorf("Run returned %v, the holder is %q", r.err, a.holder())
			}
		})
	})
}

func TestFailedReleaseIsReported(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := newAPI(t)
		r := a.replica(t, "first").start(t)
		time.Sleep(time.Minute + time.Millisecond)
		r.wire.setFault(refuse)
		stopped := time.Now()
		r.stop()
		<-r.done
		if !errors.Is(r.err, ErrLost) || !strings.Contains(r.err.Error(), "connection refused") {
			t.Errorf("Run returned %v", r.err)
		}
		if took := time.Since(stopped); took > r.RenewDeadline {
			t.Errorf("stopping took %v", took)
		}
	})
}

func TestMissingPermission(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := newAPI(t)
		r := a.replica(t, "first")
		r.wire.fault = forbid
		if err := r.Ready(); err != nil {
			t.Errorf("not ready before the first request: %v", err)
		}
		r.start(t)
		time.Sleep(time.Minute)
		if err := r.Ready(); err == nil || !strings.Contains(err.Error(), `cannot get resource "leases"`) {
			t.Errorf("ready: %v", err)
		}
		if log := r.log.String(); strings.Count(log, "request for the lease failed") != 1 ||
			!strings.Contains(log, "grant get, create, update and patch on leases in namespace monitoring") {
			t.Errorf("want one line with a hint:\n%s", log)
		}
		r.wire.setFault(nil)
		time.Sleep(3 * time.Second)
		r.wantHasLed(t, true)
		if err := r.Ready(); err != nil {
			t.Errorf("not ready: %v", err)
		}
	})
}

func TestUnreachableAPIServerMakesUnready(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newAPI(t).replica(t, "first")
		r.wire.fault = hang
		r.start(t)
		time.Sleep(unreachableFor)
		if err := r.Ready(); err != nil {
			t.Errorf("unready too early: %v", err)
		}
		time.Sleep(10 * time.Second)
		if err := r.Ready(); err == nil || !strings.Contains(err.Error(), "no response from the API server within 5s") {
			t.Errorf("ready: %v", err)
		}
	})
}

func TestStopDuringAcquisitionReleasesTheLease(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := newAPI(t)
		r := a.replica(t, "first")
		r.wire.fault = func(q *http.Request) (*http.Response, error) {
			if q.Method == http.MethodPost {
				time.Sleep(time.Second)
			}
			return nil, nil
		}
		r.start(t)
		time.Sleep(500 * time.Millisecond)
		r.stop()
		<-r.done
		if r.err != nil || r.hasLed() || a.holder() != "" || a.lease() == nil {
			t.Errorf("Run returned %v, has led %t, the Lease is held by %q", r.err, r.hasLed(), a.holder())
		}
	})
}
