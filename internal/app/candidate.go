package app

import (
	"context"
	"os"
	"runtime"
	"runtime/debug"
	"sync"
	"time"

	"github.com/hindsight-events/hindsight/internal/wait"
)

// releaseInterval is between the collections of a candidate. Go's own wait for another MiB of
// garbage, of which a candidate makes little.
const releaseInterval = 15 * time.Second

// waitWithLittleMemory lowers the memory of a candidate, which may wait for months, until done is
// called: it uses one processor, since each caches free memory, and returns unused memory to the
// system periodically.
func waitWithLittleMemory() (done func()) {
	processors := runtime.GOMAXPROCS(1)
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for wait.Sleep(ctx, releaseInterval) == nil {
			debug.FreeOSMemory()
		}
	}()
	return sync.OnceFunc(func() {
		stop()
		<-ended
		if os.Getenv("GOMAXPROCS") != "" {
			runtime.GOMAXPROCS(processors)
		} else {
			runtime.SetDefaultGOMAXPROCS() // follows changes of the container's limit again
		}
	})
}
