//go:build e2e

package loki_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/hindsight-events/hindsight/delivery"
	"github.com/hindsight-events/hindsight/event"
	"github.com/hindsight-events/hindsight/journal"
	"github.com/hindsight-events/hindsight/sink"
	"github.com/hindsight-events/hindsight/sink/loki"
	"github.com/hindsight-events/hindsight/test/cluster"
	"github.com/hindsight-events/hindsight/test/wait"
)

// makeRecord returns the n-th record of a test.
func makeRecord(n int, at time.Time, change func(*corev1.Event)) event.Record {
	when := metav1.NewTime(at.Truncate(time.Second))
	e := &corev1.Event{
		ObjectMeta: metav1.ObjectMeta{
			Namespace:         fmt.Sprintf("team-%d", n%20),
			Name:              fmt.Sprintf("web-%d.%d", n%100, n),
			UID:               types.UID(fmt.Sprintf("00000000-0000-0000-0000-%012d", n)),
			ResourceVersion:   fmt.Sprint(1_000_000 + n),
			CreationTimestamp: when,
		},
		InvolvedObject: corev1.ObjectReference{Kind: "Pod", Namespace: fmt.Sprintf("team-%d", n%20), Name: fmt.Sprintf("web-%d", n%100), UID: "u"},
		Reason:         []string{"Pulled", "Created", "Started", "Killing", "FailedScheduling"}[n/20%5],
		Message:        fmt.Sprintf("this is error number %d", n),
		Source:         corev1.EventSource{Component: "kubelet", Host: "node-1"},
		Type:           []string{corev1.EventTypeNormal, corev1.EventTypeWarning}[n/7%2],
		FirstTimestamp: when,
		LastTimestamp:  when,
		Count:          1,
	}
	if change != nil {
		change(e)
	}
	return event.New(e)
}

// pipeline is a journal, a delivery and a sink.
type pipeline struct {
	t       *testing.T
	sink    *loki.Sink
	journal *journal.Journal
	loop    *delivery.Delivery
	log     *bytes.Buffer // read it after the delivery has ended
	dead    string
	done    chan error
}

func deliver(t *testing.T, c loki.Config, change func(*sink.Limits)) *pipeline {
	t.Helper()
	d := &pipeline{t: t, log: &bytes.Buffer{}, dead: filepath.Join(t.TempDir(), "dead-letters"), done: make(chan error, 1)}
	log := slog.New(slog.NewTextHandler(d.log, nil))
	var err error
	d.sink, err = loki.New(c, loki.Options{Name: "loki", Cluster: "e2e", DeadLetterDir: d.dead, Logger: log})
	if err != nil {
		t.Fatal(err)
	}
	d.journal, err = journal.NewMemory(journal.Options{MaxBytes: 256 << 20, Consumers: []journal.ConsumerOptions{{Name: "loki"}}})
	if err != nil {
		t.Fatal(err)
	}
	consumer, err := d.journal.Consumer("loki")
	if err != nil {
		t.Fatal(err)
	}
	limits := d.sink.Limits()
	limits.MaxBackoff = 2 * time.Second
	if change != nil {
		change(&limits)
	}
	d.loop = delivery.New(delivery.Options{Name: "loki", Consumer: consumer, Sink: d.sink, Limits: limits, Logger: log})
	ctx, cancel := context.WithCancel(t.Context())
	go func() { d.done <- d.loop.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		d.sink.Close()
		d.journal.Close()
	})
	return d
}

func (d *pipeline) add(records ...event.Record) {
	d.t.Helper()
	for part := range slices.Chunk(records, 500) {
		if err := d.journal.Append(d.t.Context(), part); err != nil {
			d.t.Fatal(err)
		}
	}
}

// finish waits until everything is delivered.
func (d *pipeline) finish() {
	d.t.Helper()
	d.loop.Drain()
	select {
	case err := <-d.done:
		if err != nil {
			d.t.Fatal(err)
		}
	case <-time.After(3 * time.Minute):
		d.t.Fatalf("not delivered within 3 minutes: %+v", d.loop.State())
	}
	if n := d.journal.Stats().Consumers["loki"].Behind; n != 0 {
		d.t.Fatalf("%d records are left", n)
	}
}

// waitForError waits until an attempt fails with an error that contains a text.
func (d *pipeline) waitForError(text string) {
	d.t.Helper()
	wait.Until(d.t, "an attempt fails with "+text, func() bool {
		s := d.loop.State()
		return s.Err != nil && strings.Contains(s.Err.Error(), text)
	})
}

// readDeadLetters returns the dead letters; none without a file.
func (d *pipeline) readDeadLetters() []deadLetter {
	d.t.Helper()
	path := filepath.Join(d.dead, "loki.jsonl")
	if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return readDeadLetters(d.t, path)
}

// configFor returns a configuration for pushes to a Loki.
func configFor(l *cluster.Loki) loki.Config {
	c := loki.DefaultConfig()
	c.URL = loki.URL(l.URL())
	return c
}
