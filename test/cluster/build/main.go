// Command build makes the real components that tests run, ahead of the tests,
// which would make them silently: go test hides the progress of a package.
//
//	go run ./test/cluster/build kube
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"

	"github.com/hindsight-events/hindsight/test/cluster"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	for _, name := range os.Args[1:] {
		dir, err := cluster.Build(ctx, name)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		fmt.Println(dir)
	}
}
