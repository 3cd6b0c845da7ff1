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
)

const (
	// eventTTL stands for the usual hour. It is long enough that kubectl still
	// shows all preemptions when the re-enactment ends, up to 65 s after them.
	eventTTL = 75 * time.Second
	// expiryDelay is what the API server and etcd may take longer than the TTL.
	expiryDelay = time.Minute
	// deliveryDelay is how long Loki may lack what kubectl has seen.
	deliveryDelay = 30 * time.Second
)

// demo is what the steps share.
type demo struct {
	out       io.Writer
	dir       string
	cluster   *cluster.Cluster
	loki      *cluster.Loki
	witness   *witness
	hindsight *exporter
	began     time.Time // before the first Event
}

// run shows the demo, and returns when all that it started has ended. If it
// fails, logs and data are left, and the error says where.
func run(ctx context.Context, out io.Writer, keep bool) (err error) {
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

	if err := d.start(ctx); err != nil {
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
func (d *demo) start(ctx context.Context) error {
	d.printf(`This builds and starts, on this machine alone, a real etcd, kube-apiserver, kube-scheduler,
kube-controller-manager and Loki, and Hindsight between them. The first time, all of it is compiled
from source: about ten minutes on two cores. After that, the demo takes two to three minutes.

`)
	var tools string
	for _, module := range []string{"kube", "loki"} {
		var err error
		if tools, err = cluster.Build(ctx, module); err != nil {
			return err
		}
		d.printf("  %-10s %s\n", module, tools)
	}
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
	if d.loki, err = cluster.StartLoki(ctx, cluster.LokiOptions{Dir: filepath.Join(d.dir, "loki")}); err != nil {
		return err
	}
	if d.hindsight, err = startHindsight(ctx, binary, d.dir, d.cluster.Kubeconfig(), d.loki.URL()); err != nil {
		return err
	}
	d.printf("\nStarted. This cluster keeps an Event for %s, where others keep it for an hour.\n", seconds(eventTTL))
	return nil
}

// stop ends what was started, in the reverse order.
func (d *demo) stop(ctx context.Context) (err error) {
	if d.hindsight != nil {
		err = d.hindsight.stop(ctx)
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

// awaitDelivery returns what kubectl has seen of the outage, once Hindsight has
// nothing left to deliver and all of it is in Loki, once each.
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
		behind, err := d.hindsight.behind(ctx)
		if err != nil {
			return nil, err
		}
		if behind == 0 {
			err = d.compare(ctx, seen)
		} else {
			err = fmt.Errorf("hindsight still has %d records to deliver", behind)
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

// compare holds Loki against what kubectl has seen.
func (d *demo) compare(ctx context.Context, seen *ledger) error {
	entries, err := d.query(ctx, everything)
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
	kubectl := d.cluster.KubectlCommand(ctx).Path
	tools, err := cluster.Build(ctx, "loki")
	if err != nil {
		return err
	}
	d.printf(`
All of it runs until Ctrl-C. In another shell:

  export PATH=%s:%s:$PATH
  export KUBECONFIG=%s LOKI_ADDR=%s

  kubectl get events -A
  logcli query --limit 100 --since 1h '%s'
  curl %s/metrics
`, filepath.Dir(kubectl), tools, d.cluster.Kubeconfig(), d.loki.URL(), first, d.hindsight.url)
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
