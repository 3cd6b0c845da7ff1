package watch

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/hindsight-events/hindsight/internal/wait"
)

const (
	minBackoff    = 500 * time.Millisecond
	maxBackoff    = 30 * time.Second
	deniedBackoff = 60 * time.Second // permissions are not granted within seconds
	maxRetryAfter = 5 * time.Minute
)

// backOff is called after a failed attempt. It logs the first of several failures and pauses,
// depending on the error and the number of failures.
func (w *Watcher) backOff(ctx context.Context, attempt string, err error) {
	if ctx.Err() != nil {
		return
	}
	failures, last := w.health.recordFailure(err)
	pause := backoffAfter(err, failures)
	level := slog.LevelDebug
	// During a stall, which was logged, watches may fail.
	if failures == 1 && w.health.stalledSince().IsZero() || denied(err) && !denied(last) {
		level = slog.LevelWarn
	}
	args := []any{"attempt", attempt, "failures", failures, "pause", pause.Round(time.Millisecond), "err", err}
	if denied(err) {
		args = append(args, "hint", w.permissionHint(err))
	}
	w.log.Log(ctx, level, "reading events failed; retrying until it succeeds", args...)
	_ = wait.Sleep(ctx, pause)
}

// succeeded is called after a successful attempt. It ends the backoff and logs the recovery.
func (w *Watcher) succeeded() {
	w.health.contacted()
	if failures, since := w.health.recordSuccess(); failures > 0 {
		level := slog.LevelInfo
		if !w.health.stalledSince().IsZero() {
			level = slog.LevelDebug
		}
		w.log.Log(context.Background(), level, "reading events works again", "after", time.Since(since).Round(time.Millisecond), "failed_attempts", failures)
	}
}

// backoffAfter returns a random pause. Its upper limit doubles with each failure, so that the
// clients of a restarted API server do not return together. The pause is at least the
// Retry-After of the API server, which priority and fairness sends with 429.
func backoffAfter(err error, failures int) time.Duration {
	limit := maxBackoff
	if denied(err) {
		limit = deniedBackoff
	}
	if shift := failures - 1; shift < 16 {
		limit = min(limit, minBackoff<<shift)
	}
	pause := rand.N(limit)
	if seconds, ok := apierrors.SuggestsClientDelay(err); ok {
		requested := min(time.Duration(seconds)*time.Second, maxRetryAfter)
		// All rejected clients got the same Retry-After.
		pause = max(pause, requested+rand.N(time.Second))
	}
	return pause
}

// permissionHint returns how to solve a denied request.
func (w *Watcher) permissionHint(err error) string {
	switch {
	case status(err) == http.StatusUnauthorized:
		return "the API server does not accept the credentials"
	case w.namespace == "":
		return `grant list and watch on events with a ClusterRole and a ClusterRoleBinding: apiGroups [""], resources [events], verbs [list, watch]`
	default:
		return fmt.Sprintf(`grant list and watch on events in namespace %s with a Role and a RoleBinding there: apiGroups [""], resources [events], verbs [list, watch]`, w.namespace)
	}
}
