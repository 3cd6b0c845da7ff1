// Package flock guards files against a second process that would write to them.
// On a network volume it may not keep out a process on another machine.
package flock

import "errors"

// ErrLocked is returned where somebody else has the lock.
var ErrLocked = errors.New("locked")
