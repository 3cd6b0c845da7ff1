package sink_test

import (
	"context"
	"errors"
	"testing"

	"github.com/hindsight-events/hindsight/sink"
)

// Callers pass the context on, even with an error.
func TestBeginRequestReturnsAContextWithItsError(t *testing.T) {
	ended, end := context.WithCancel(t.Context())
	end()
	ctx, cancel, err := sink.BeginRequest(ended)
	if !errors.Is(err, context.Canceled) || ctx == nil || cancel == nil {
		t.Errorf("context %v, error %v after the end of the parent", ctx, err)
	}
}
