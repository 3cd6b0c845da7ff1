// Command record re-enacts the outage and writes its Events as kubectl shows
// them:
//
//	go run ./test/outage/record [-o examples/outage/events.json]
package main

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/hindsight-events/hindsight/test/cluster"
	"github.com/hindsight-events/hindsight/test/outage"
)

func main() {
	output := flag.String("o", filepath.Join("examples", "outage", "events.json"), "the file to write")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := record(ctx, *output); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func record(ctx context.Context, output string) error {
	dir, err := os.MkdirTemp("", "outage-*")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	c, err := cluster.Start(ctx, cluster.Options{Dir: dir})
	if err != nil {
		return err
	}
	defer c.Stop()

	start := time.Now()
	if err := outage.Reenact(ctx, c); err != nil {
		return err
	}
	events, err := c.Kubectl(ctx, "get", "events", "--all-namespaces", "--output=json")
	if err != nil {
		return err
	}
	events, err = hideHost(events)
	if err != nil {
		return err
	}
	if err := os.WriteFile(output, events, 0o644); err != nil {
		return err
	}
	fmt.Printf("%s: recorded in %v\n", output, time.Since(start).Round(time.Second))
	return nil
}

// hideHost gives another name to the machine that records. The scheduler and
// kube-proxy add it to their own, as reportingInstance.
func hideHost(events []byte) ([]byte, error) {
	host, err := os.Hostname()
	if err != nil {
		return nil, fmt.Errorf("hide the name of this machine: %w", err)
	}
	return bytes.ReplaceAll(events, []byte("-"+host+`"`), []byte(`-control-plane-1"`)), nil
}
