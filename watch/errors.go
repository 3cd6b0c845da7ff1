package watch

import (
	"errors"
	"fmt"
	"net/http"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// Errors that end a watch, beside errors of the connection and of the API server.
var (
	errClosedAtOnce    = errors.New("watch was closed at once, without an event")
	errOverdue         = errors.New("API server did not end the watch in time")
	errInvalidFrame    = errors.New("invalid frame of a watch")
	errBlocked         = errors.New("journal accepts no records")
	errHistoryRewound  = errors.New("versions of the API server went backwards")
	errResponseTimeout = errors.New("API server accepted the request and does not answer")
)

// errSilent ends a watch that is silent although a list shows a newer version.
type errSilent struct{ listed uint64 }

func (e errSilent) Error() string {
	return fmt.Sprintf("watch is silent although a list shows version %d", e.listed)
}

// status returns the HTTP status in err, from a response or an ERROR frame; 0: none.
func status(err error) int32 {
	var s apierrors.APIStatus
	if !errors.As(err, &s) {
		return 0
	}
	return s.Status().Code
}

// denied reports whether a permission is missing.
func denied(err error) bool {
	code := status(err)
	return code == http.StatusForbidden || code == http.StatusUnauthorized
}

// expired reports whether the requested version is compacted.
func expired(err error) bool { return status(err) == http.StatusGone }
