// Package flock locks files against a second process. On some network volumes a lock excludes only
// processes on the same machine.
package flock

import "errors"

// ErrLocked means that another process has the lock.
var ErrLocked = errors.New("locked")
