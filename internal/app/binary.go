package app

import (
	"context"
	"log/slog"
	"time"

	"github.com/hindsight-events/hindsight/internal/wait"
)

// unmapAfterStart unmaps the pages of the program that only the start needed: soon, before a list
// takes memory, and again when connections are open and the first states were delivered.
func unmapAfterStart(ctx context.Context, log *slog.Logger) {
	for _, after := range []time.Duration{100 * time.Millisecond, time.Second, time.Minute} {
		if wait.Sleep(ctx, after) != nil {
			return
		}
		if err := unmapBinary(); err != nil {
			log.Debug("cannot unmap pages that only the start needed", "err", err)
			return
		}
	}
}
