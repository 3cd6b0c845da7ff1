package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/hindsight-events/hindsight/test/cluster"
	"github.com/hindsight-events/hindsight/test/outage"
	"github.com/hindsight-events/hindsight/test/program"
)

const (
	// eventTTL replaces the default hour. kubectl still shows all preemptions when the
	// re-enactment ends, up to 65 s after them.
	eventTTL = 75 * time.Second
	// expiryDelay is the time after the TTL until etcd has deleted an Event.
	expiryDelay = time.Minute
	// deliveryDelay is the timeout of the delivery of all Events that kubectl has seen.
	deliveryDelay = 30 * time.Second
)

// demo is the state of the demo.
type demo struct {
	out       io.Writer
	dir       string
	cluster   *cluster.Cluster
	archive   archive
	loki      *loki // nil without one
	witness   *witness
	hindsight *program.Program
	began     time.Time // before the first Event
}

// run runs the demo with a Loki or with files, and stops all processes. On failure it keeps logs
// and data, and the error names their folder.
func run(ctx context.Context, out io.Writer, withLoki, keep bool) (err error) {
	dir, err := os.MkdirTemp("", "hindsight-demo-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil && ctx.Err() == nil {
			err = fmt.Errorf("%w (logs: %s)", err, dir)
			return
		}
		err = errors.Join(err, os.RemoveAll(dir))
	}()
	d := &demo{out: out, dir: dir, began: time.Now()}
	defer func() { err = errors.Join(err, d.stop(context.WithoutCancel(ctx))) }()

	if err := d.start(ctx, withLoki); err != nil {
		return err
	}
	d.printf("\nThe outage, played by the real scheduler (a minute):\n")
	if err := outage.Reenact(ctx, d.cluster); err != nil {
		return err
	}
	over := time.Now()
	seen, err := d.awaitDelivery(ctx)
	if err != nil {
		return err
	}
	if err := d.awaitExpiry(ctx, over.Add(eventTTL)); err != nil {
		return err
	}
	if err := d.tell(ctx, seen); err != nil {
		return err
	}
	if keep {
		return d.keep(ctx)
	}
	d.printf("\nTo ask more: go run ./test/demo -keep\n")
	return nil
}

// start builds and starts everything.
func (d *demo) start(ctx context.Context, withLoki bool) error {
	d.printf(`This builds and starts, on this machine alone, a real etcd, kube-apiserver, kube-scheduler and
kube-controller-manager, and Hindsight. The first time, all of it is compiled from source: about
five minutes on two cores. After that, the demo takes two to three minutes.

`)
	tools, err := cluster.Build(ctx, "kube")
	if err != nil {
		return err
	}
	d.printf("  %-10s %s\n", "kube", tools)
	binary, err := buildHindsight(ctx, d.dir)
	if err != nil {
		return err
	}
	d.printf("  %-10s %s\n", "hindsight", binary)

	d.began = time.Now()
	d.cluster, err = cluster.Start(ctx, cluster.Options{Dir: filepath.Join(d.dir, "cluster"), EventTTL: eventTTL})
	if err != nil {
		return err
	}
	if d.witness, err = startWitness(d.cluster); err != nil {
		return err
	}
	if err := d.startArchive(ctx, withLoki, binary); err != nil {
		return err
	}
	if d.hindsight, err = startHindsight(ctx, binary, d.dir, d.cluster.Kubeconfig(), d.archive.sink()); err != nil {
		return err
	}
	d.printf("\nStarted. This cluster keeps an Event for %s, where others keep it for an hour.\n", seconds(eventTTL))
	return nil
}

// startArchive starts Loki, or prepares files.
func (d *demo) startArchive(ctx context.Context, withLoki bool, binary string) error {
	if !withLoki {
		d.archive = &files{binary: binary, path: filepath.Join(d.dir, "events.jsonl")}
		d.printf("\nThere is no Loki here: Hindsight writes files, and hindsight query reads them. With a Loki\n" +
			"(CONTRIBUTING.md), the same questions are asked in LogQL, with counts.\n")
		return nil
	}
	found, err := cluster.FindLoki(ctx)
	if err != nil {
		return err
	}
	d.printf("  %-10s %s, version %s\n", "loki", found.Path, found.Version)
	l, err := cluster.StartLoki(ctx, cluster.LokiOptions{Dir: filepath.Join(d.dir, "loki")})
	if err != nil {
		return err
	}
	d.loki = &loki{Loki: l, binary: binary, from: d.began}
	d.archive = d.loki
	return nil
}

// stop stops all processes in reverse order.
func (d *demo) stop(ctx context.Context) (err error) {
	if d.hindsight != nil {
		err = stopHindsight(ctx, d.hindsight)
	}
	if d.loki != nil {
		d.loki.Kill()
	}
	if d.witness != nil {
		d.witness.stop()
	}
	if d.cluster != nil {
		d.cluster.Stop()
	}
	return err
}

// awaitDelivery waits until all Events that kubectl has seen are stored once, and returns them.
func (d *demo) awaitDelivery(ctx context.Context) (*ledger, error) {
	seen, err := d.witness.seen()
	if err != nil {
		return nil, err
	}
	if seen.preempted() == 0 {
		return nil, errors.New("the scheduler has preempted nothing: there was no outage")
	}
	deadline := time.Now().Add(deliveryDelay)
	for {
		behind, err := d.hindsight.Metric(ctx, `hindsight_sink_behind_records{sink="archive"}`)
		if err != nil {
			return nil, err
		}
		if behind == 0 {
			err = d.compare(ctx, seen)
		} else {
			err = fmt.Errorf("hindsight still has %.0f records to deliver", behind)
		}
		if err == nil {
			d.printf("\nkubectl saw %d states of %d Events: Hindsight has delivered them all (0 behind).\n",
				len(seen.states), len(seen.reason))
			return seen, nil
		}
		if time.Now().After(deadline) {
			return nil, fmt.Errorf("%s after the outage: %w", seconds(deliveryDelay), err)
		}
		if err := sleep(ctx, time.Second); err != nil {
			return nil, err
		}
	}
}

// compare compares the archive with the Events that kubectl has seen.
func (d *demo) compare(ctx context.Context, seen *ledger) error {
	entries, err := d.archive.find(ctx, everything)
	if err != nil {
		return err
	}
	return seen.compare(entries)
}

// awaitExpiry returns once kubectl shows nothing of the outage any more, which
// is expected at a given time.
func (d *demo) awaitExpiry(ctx context.Context, expected time.Time) error {
	d.printf("\nThe cluster forgets:\n\n")
	for tick := 0; ; tick++ {
		table, err := d.cluster.Kubectl(ctx, "get", "events", "-A", "--no-headers")
		if err != nil {
			return err
		}
		left := countLines(table, ofOutage)
		late := time.Since(expected)
		if left == 0 {
			d.printf("  now:     kubectl has none of them\n")
			return nil
		}
		if late > expiryDelay {
			return fmt.Errorf("%s after their time kubectl still shows %d Events of the outage", seconds(expiryDelay), left)
		}
		if tick%2 == 0 {
			d.printf("  in %2.0f s: kubectl has %d of the outage's Events\n", max(0, -late.Seconds()), left)
		}
		if err := sleep(ctx, 5*time.Second); err != nil {
			return err
		}
	}
}

// keep leaves everything running until ctx ends, by Ctrl-C.
func (d *demo) keep(ctx context.Context) error {
	address, err := d.hindsight.Address(ctx)
	if err != nil {
		return err
	}
	d.printf(`
All of it runs until Ctrl-C. In another shell:

  export PATH=%s:$PATH KUBECONFIG=%s

  kubectl get events -A
  %s
  curl http://%s/metrics
`, filepath.Dir(d.cluster.KubectlCommand(ctx).Path), d.cluster.Kubeconfig(), d.archive.browse(), address)
	<-ctx.Done()
	return nil
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(d):
		return nil
	}
}
