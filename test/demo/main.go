// Command demo demonstrates Hindsight with real components: a control plane that keeps its Events
// for little more than a minute instead of an hour, and an outage that the real scheduler
// re-enacts. Hindsight exports the Events to Loki, if it is installed, else to files. Once the
// cluster has deleted them, the demo analyses the outage with LogQL or with hindsight query:
//
//	go run ./test/demo [-keep]
//
// It needs Go only, and takes two to three minutes (five more the first time, to build). The exit
// code is 1 if a state of an Event that kubectl has seen is not stored, or is stored twice.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"os"
	"os/signal"
	"syscall"

	"github.com/hindsight-events/hindsight/test/cluster"
)

func main() {
	keep := flag.Bool("keep", false, "leave everything running at the end, until Ctrl-C")
	flag.Parse()
	log.SetFlags(log.Ltime) // of the scenes, on the standard error
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	_, err := cluster.FindLoki(ctx)
	withLoki := err == nil
	if withLoki || errors.Is(err, cluster.ErrNotInstalled) {
		err = run(ctx, os.Stdout, withLoki, *keep)
	}
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx) // all else follows from it
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}
