package watch

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// heartbeatInterval is how often the loop turns while it waits for room.
const heartbeatInterval = 30 * time.Second

// Pauses between two attempts.
const (
	minBackoff    = 500 * time.Millisecond
	maxBackoff    = 30 * time.Second
	deniedBackoff = 60 * time.Second // permissions do not come within seconds
	maxRetryAfter = 5 * time.Minute  // so that a nonsensical Retry-After does not end us
)

// backOff is called after an attempt failed. It logs the first failure in a row
// and waits for as long as err and the number of failures call for.
func (w *Watcher) backOff(ctx context.Context, attempt string, err error) {
	if ctx.Err() != nil {
		return
	}
	failures, last := w.health.recordFailure(err)
	pause := backoffAfter(err, failures)
	level := slog.LevelDebug
	// While watches bring nothing, which has been logged, attempts to open one may fail.
	if failures == 1 && !w.stalled() || denied(err) && !denied(last) {
		level = slog.LevelWarn
	}
	args := []any{"attempt", attempt, "failures", failures, "pause", pause.Round(time.Millisecond), "err", err}
	if denied(err) {
		args = append(args, "mend", w.remedy(err))
	}
	w.log.Log(ctx, level, "reading events failed, will be repeated until it succeeds", args...)
	sleep(ctx, pause)
}

// succeeded is called when an attempt did what it should. It ends the backoff and
// logs the recovery.
func (w *Watcher) succeeded() {
	w.health.contacted()
	if failures, since := w.health.recordSuccess(); failures > 0 {
		level := slog.LevelInfo
		if w.stalled() {
			level = slog.LevelDebug
		}
		w.log.Log(context.Background(), level, "reading events works again", "after", time.Since(since).Round(time.Millisecond), "failed_attempts", failures)
	}
}

// backoffAfter returns how long to wait after so many failures in a row: a random
// part of a bound that doubles each time, so that many clients of an API server
// that comes back do not return at once; and never less than the server asked
// for (priority and fairness answers 429 with Retry-After).
func backoffAfter(err error, failures int) time.Duration {
	bound := maxBackoff
	if denied(err) {
		bound = deniedBackoff
	}
	if shift := failures - 1; shift < 16 {
		bound = min(bound, minBackoff<<shift)
	}
	pause := rand.N(bound)
	if seconds, ok := apierrors.SuggestsClientDelay(err); ok {
		asked := min(time.Duration(seconds)*time.Second, maxRetryAfter)
		// All that were refused together were asked for the same pause.
		pause = max(pause, asked+rand.N(time.Second))
	}
	return pause
}

// remedy says what has to be done about a denial.
func (w *Watcher) remedy(err error) string {
	switch {
	case status(err) == http.StatusUnauthorized:
		return "the API server does not accept the credentials"
	case w.namespace == "":
		return `grant list and watch on events with a ClusterRole and a ClusterRoleBinding: apiGroups [""], resources [events], verbs [list, watch]`
	default:
		return fmt.Sprintf(`grant list and watch on events in namespace %s with a Role and a RoleBinding there: apiGroups [""], resources [events], verbs [list, watch]`, w.namespace)
	}
}

// sleep waits for d or until ctx ends, and reports whether it was d.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// status returns the HTTP status in err: that of an answer, or that in an ERROR
// frame; zero if err is something else.
func status(err error) int32 {
	var s apierrors.APIStatus
	if !errors.As(err, &s) {
		return 0
	}
	return s.Status().Code
}

// denied reports whether permission is missing.
func denied(err error) bool {
	code := status(err)
	return code == http.StatusForbidden || code == http.StatusUnauthorized
}

// expired reports whether the API server no longer has the version that was
// asked for.
func expired(err error) bool { return status(err) == http.StatusGone }
