package lease

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// A leader that cannot renew stops by itself before another begins, which it
// does soon after the Lease has ended.
func TestALeaderThatCannotRenewIsReplaced(t *testing.T) {
	for name, fault := range map[string]func(*http.Request) error{
		"its requests hang":         hang,
		"its requests are refused":  refuse,
		"its requests are denied":   forbid,
		"the API server has errors": func(*http.Request) error { return answer{http.StatusInternalServerError, metav1.Status{}} },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := &api{}
				first, second := a.replica(t, "first"), a.replica(t, "second")
				first.keeps = always(at(100))
				first.start(t)
				synctest.Wait()
				second.start(t)
				time.Sleep(time.Minute + time.Millisecond) // just after a renewal
				renewed := time.Now().Add(-time.Millisecond)
				first.wire.breakWith(fault)

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
				if !errors.Is(first.error, ErrLost) || !errors.Is(first.cause, ErrLost) {
					t.Errorf("Run returned %v, the context ended by %v; want ErrLost", first.error, first.cause)
				}
				if late := first.lost.Sub(renewed.Add(first.RenewDeadline)); late != 0 {
					t.Errorf("lead was told %v after the renew deadline", late)
				}
				wantLed(t, second, false)
				time.Sleep(time.Until(renewed.Add(first.Duration + second.RetryPeriod*12/10)))
				synctest.Wait()
				wantLed(t, second, true)
				wantHeld(t, second.given(), at(100))
			})
		})
	}
}

func TestAShortOutageOfTheAPIServerIsSurvived(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &api{}
		r := a.replica(t, "first").start(t)
		time.Sleep(time.Minute + time.Millisecond)
		r.wire.breakWith(hang)
		time.Sleep(6 * time.Second)
		r.wire.breakWith(nil)
		time.Sleep(time.Minute)
		if !r.Leading() {
			t.Fatalf("does not lead any more: %s", r.log)
		}
		if log := r.log.String(); strings.Count(log, "using the lease failed") != 1 || strings.Count(log, "can be used again") != 1 {
			t.Errorf("want one line about the failure and one about the recovery:\n%s", log)
		}
	})
}

func TestAMachineThatStoodStillLeadsNoMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &api{}
		r := a.replica(t, "first")
		var slept atomic.Int64 // by the wall clock alone
		r.deadline.now = func() clockReading {
			i := now()
			i.wall = i.wall.Add(time.Duration(slept.Load()))
			return i
		}
		r.start(t)
		time.Sleep(time.Minute + time.Millisecond) // just after a renewal
		slept.Store(int64(9 * time.Second))
		if !r.Leading() {
			t.Fatal("does not lead although no renewal is overdue")
		}
		slept.Store(int64(11 * time.Second))
		if r.Leading() {
			t.Error("leads although the machine was suspended for longer than the renew deadline")
		}
		<-r.done
		if !errors.Is(r.error, ErrLost) || !strings.Contains(r.error.Error(), "stood still") {
			t.Errorf("Run returned %v", r.error)
		}
	})
}

func TestARenewalThatIsAnsweredTooLateDoesNotCount(t *testing.T) {
	clock := clockReading{wall: time.Now()}
	v := leaseDeadline{after: 10 * time.Second, now: func() clockReading { return clock }}
	begun := clock
	v.begin(begun)
	clock.mono += 9 * time.Second
	if !v.renew(begun) {
		t.Error("a renewal was refused in time")
	}
	clock.mono += time.Second
	if v.renew(clock) {
		t.Error("a renewal was accepted after the deadline")
	}
	clock = begun
	if _, left := v.check(); left > 0 {
		t.Error("valid again after it was not")
	}
}

func TestADeletedLeaseIsMadeAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &api{}
		r := a.replica(t, "first")
		r.keeps = always(at(100))
		r.start(t)
		time.Sleep(time.Minute)
		a.remove()
		time.Sleep(5 * time.Second)
		if a.holder() != "first" || !r.Leading() {
			t.Errorf("held by %q, leading %v", a.holder(), r.Leading())
		}
		wantHeld(t, a.says(t), at(100))
	})
}

func TestACandidateRemembersThePositionsOfADeletedLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &api{}
		first := a.replica(t, "first")
		first.keeps = always(at(100))
		first.start(t)
		time.Sleep(time.Minute)
		second := a.replica(t, "second").start(t)
		time.Sleep(time.Minute)
		first.wire.breakWith(hang)
		a.remove()
		time.Sleep(5 * time.Second)
		wantLed(t, second, false) // the first may not know yet
		time.Sleep(15 * time.Second)
		wantLed(t, second, true)
		wantHeld(t, second.given(), at(100))

		// The other comes back and sees what happened.
		first.wire.breakWith(nil)
		<-first.done
		if !errors.Is(first.error, ErrLost) {
			t.Errorf("Run returned %v, want ErrLost", first.error)
		}
	})
}

// Whatever somebody does to the Lease, no other replica leads while its holder may
// act; and one does once it may not.
func TestALeaseThatOthersTakeAwayMakesNoTwoLeaders(t *testing.T) {
	emptied := func(l *coordinationv1.Lease) { l.Spec.HolderIdentity = nil }
	for name, change := range map[string]func(*api){
		"it is deleted": (*api).remove,
		"it is deleted again and again": func(a *api) {
			go func() {
				for range 20 {
					a.remove()
					time.Sleep(700 * time.Millisecond)
				}
			}()
		},
		"it is deleted and made again without a holder": func(a *api) {
			a.mu.Lock()
			defer a.mu.Unlock()
			a.uids++
			a.store(0, &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{
				Namespace: "monitoring", Name: "hindsight", UID: types.UID("uid-" + strconv.Itoa(a.uids)),
			}})
		},
		"its holder is removed": func(a *api) { a.change(emptied) },
		"its holder and times are removed": func(a *api) {
			a.change(func(l *coordinationv1.Lease) { l.Spec = coordinationv1.LeaseSpec{} })
		},
		"its holder is removed and its duration shortened": func(a *api) {
			a.change(func(l *coordinationv1.Lease) {
				emptied(l)
				second := int32(1)
				l.Spec.LeaseDurationSeconds = &second
			})
		},
	} {
		for _, hangs := range []time.Duration{0, 12 * time.Second, time.Hour} { // the holder, after the change
			t.Run(fmt.Sprintf("%s, holder hangs after %v", name, hangs), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					a := &api{}
					first, second := a.replica(t, "first"), a.replica(t, "second")
					first.keeps = always(at(100))
					first.start(t)
					synctest.Wait()
					second.start(t)
					time.Sleep(time.Minute + 1500*time.Millisecond)
					change(a)
					for passed := time.Duration(0); passed < 45*time.Second; passed += 50 * time.Millisecond {
						if passed == hangs {
							first.wire.breakWith(hang)
						}
						time.Sleep(50 * time.Millisecond)
						synctest.Wait()
						if first.Leading() && second.Leading() {
							t.Fatalf("two lead; the log of the second:\n%s", second.log)
						}
					}
					if alive := hangs > time.Minute; first.Leading() != alive || second.Leading() == alive {
						t.Errorf("leading: first %v, second %v", first.Leading(), second.Leading())
					}
					if second.leads() {
						wantHeld(t, second.given(), at(100))
					}
					first.wire.breakWith(nil)
				})
			})
		}
	}
}

// A Lease that its holder released is taken over at once.
func TestAReleasedLeaseIsTakenOverAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &api{}
		first, second := a.replica(t, "first").start(t), a.replica(t, "second")
		synctest.Wait()
		second.start(t)
		time.Sleep(time.Minute)
		first.stop()
		<-first.done
		time.Sleep(second.RetryPeriod * 12 / 10)
		synctest.Wait()
		wantLed(t, second, true)
	})
}

func TestALeaderThatWasReplacedSeesIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &api{}
		r := a.replica(t, "first").start(t)
		time.Sleep(time.Minute)
		a.change(func(l *coordinationv1.Lease) {
			other, since := "other", metav1.NowMicro()
			l.Spec.HolderIdentity, l.Spec.AcquireTime = &other, &since
		})
		time.Sleep(r.RetryPeriod)
		<-r.done
		if !errors.Is(r.error, ErrLost) || !strings.Contains(r.error.Error(), `"other"`) {
			t.Errorf("Run returned %v, want ErrLost and who holds it", r.error)
		}
		if a.holder() != "other" {
			t.Errorf("the Lease is held by %q after it was lost", a.holder())
		}
	})
}

// A write may succeed although its answer is lost.
func TestLostAnswers(t *testing.T) {
	// nth returns a function that is true for the n-th write.
	nth := func(n int32) func(*http.Request) bool {
		var writes atomic.Int32
		return func(r *http.Request) bool { return r.Method != http.MethodGet && writes.Add(1) == n }
	}
	t.Run("to the taking over", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			a := &api{}
			r := a.replica(t, "first")
			r.wire.swallow = nth(1)
			r.start(t)
			// The request is given up, and there is a next attempt.
			time.Sleep(r.RenewDeadline/2 + r.RetryPeriod*12/10)
			wantLed(t, r, true)
		})
	})
	t.Run("to a renewal", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			a := &api{}
			r := a.replica(t, "first")
			r.wire.swallow = nth(3)
			r.start(t)
			time.Sleep(time.Minute)
			if !r.Leading() {
				t.Errorf("does not lead any more: %s", r.log)
			}
		})
	})
	t.Run("to the release", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			a := &api{}
			r := a.replica(t, "first").start(t)
			time.Sleep(time.Minute + time.Millisecond)
			r.wire.set(func(w *wire) { w.swallow = nth(1) })
			r.stop()
			<-r.done
			if r.error != nil || a.holder() != "" {
				t.Errorf("Run returned %v, the holder is %q", r.error, a.holder())
			}
		})
	})
}

func TestALeaseThatCannotBeReleasedIsSaid(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &api{}
		r := a.replica(t, "first").start(t)
		time.Sleep(time.Minute + time.Millisecond)
		r.wire.breakWith(refuse)
		stopped := time.Now()
		r.stop()
		<-r.done
		if !errors.Is(r.error, ErrLost) || !strings.Contains(r.error.Error(), "connection refused") {
			t.Errorf("Run returned %v", r.error)
		}
		if took := time.Since(stopped); took > r.RenewDeadline {
			t.Errorf("the end took %v", took)
		}
	})
}

func TestMissingPermissionIsSaidAndWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &api{}
		r := a.replica(t, "first")
		r.wire.fault = forbid
		if err := r.Ready(); err != nil {
			t.Errorf("not ready before anything was tried: %v", err)
		}
		r.start(t)
		time.Sleep(time.Minute)
		if err := r.Ready(); err == nil || !strings.Contains(err.Error(), `cannot get resource "leases"`) {
			t.Errorf("ready: %v", err)
		}
		if log := r.log.String(); strings.Count(log, "using the lease failed") != 1 ||
			!strings.Contains(log, "grant get, create and update on leases in namespace monitoring") {
			t.Errorf("want one line that says what to do:\n%s", log)
		}
		r.wire.breakWith(nil)
		time.Sleep(3 * time.Second)
		wantLed(t, r, true)
		if err := r.Ready(); err != nil {
			t.Errorf("not ready: %v", err)
		}
	})
}

func TestAnUnreachableAPIServerIsNotReadyAfterAWhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := (&api{}).replica(t, "first")
		r.wire.fault = hang
		r.start(t)
		time.Sleep(unreachableFor)
		if err := r.Ready(); err != nil {
			t.Errorf("not ready too early: %v", err)
		}
		time.Sleep(10 * time.Second)
		if err := r.Ready(); err == nil || !strings.Contains(err.Error(), "does not answer within 5s") {
			t.Errorf("ready: %v", err)
		}
	})
}

func TestTheEndDuringATakeoverLeavesNoLeaseBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &api{}
		r := a.replica(t, "first")
		r.wire.fault = func(q *http.Request) error {
			if q.Method == http.MethodPost {
				time.Sleep(time.Second)
			}
			return nil
		}
		r.start(t)
		time.Sleep(500 * time.Millisecond)
		r.stop()
		<-r.done
		if r.error != nil || r.leads() || a.holder() != "" || a.lease == nil {
			t.Errorf("Run returned %v, has led %v, the Lease is held by %q", r.error, r.leads(), a.holder())
		}
	})
}
