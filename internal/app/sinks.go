package app

import (
	"cmp"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/hindsight-events/hindsight/delivery"
	"github.com/hindsight-events/hindsight/internal/config"
	"github.com/hindsight-events/hindsight/internal/quantity"
	"github.com/hindsight-events/hindsight/journal"
	"github.com/hindsight-events/hindsight/router"
	"github.com/hindsight-events/hindsight/sink"
	"github.com/hindsight-events/hindsight/sink/file"
	"github.com/hindsight-events/hindsight/sink/loki"
	"github.com/hindsight-events/hindsight/sink/stdout"
)

// sinkSet is the sinks of a configuration, in its order. They have no connection before the first
// send.
type sinkSet []openSink

type openSink struct {
	sink.Sink
	config config.Sink
	limits sink.Limits
}

func openSinks(o Options) (all sinkSet, err error) {
	for _, c := range o.Config.Sinks {
		s, err := newSink(c, o)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("sink %s: %w", c.Name, err), all.close())
		}
		all = append(all, s)
	}
	return all, nil
}

func newSink(c config.Sink, o Options) (s openSink, err error) {
	s.config = c
	log := o.Log.With("component", "sink")
	switch {
	case c.File != nil:
		s.limits = file.Limits()
		s.Sink, err = file.New(*c.File, log.With("sink", c.Name))
	case c.Loki != nil:
		if o.Config.Cluster == "" {
			log.Warn("no label cluster: streams of two clusters with equal labels would mix in Loki", "sink", c.Name, "hint", "set the key cluster")
		}
		options := loki.Options{Name: c.Name, Cluster: o.Config.Cluster, Logger: log}
		if dir := o.Config.Journal.Dir; dir != "" {
			options.DeadLetterDir = filepath.Join(dir, "dead-letters")
		}
		var l *loki.Sink
		if l, err = loki.New(*c.Loki, options); err == nil {
			s.Sink, s.limits = l, l.Limits()
		}
	default:
		s.Sink, s.limits = stdout.New(*c.Stdout, o.Stdout), stdout.Limits()
	}
	return s, err
}

func (all sinkSet) close() (err error) {
	for _, s := range all {
		err = errors.Join(err, s.Close())
	}
	return err
}

// labels returns the labels of the sinks that have any.
func (all sinkSet) labels() (labels []router.SinkLabels) {
	for _, s := range all {
		if l, ok := s.Sink.(*loki.Sink); ok {
			fields, attributes := l.Labels()
			labels = append(labels, router.SinkLabels{Sink: s.config.Name, Fields: fields, Attributes: attributes})
		}
	}
	return labels
}

// deliveryLimits bounds the window of records that a sink has read and not completed to a part of
// the journal. Records that wait for their batch to fill, and the completed ones behind the oldest
// of them, must not fill the journal. A journal that drops its oldest records keeps the records
// of the window longer.
func (s openSink) deliveryLimits(journalBytes quantity.Size) sink.Limits {
	part := 4
	if s.config.WhenFull == journal.DropOldest {
		part = 8
	}
	limits := s.limits
	limits.WindowBytes = min(cmp.Or(limits.WindowBytes, delivery.DefaultWindowBytes), int(journalBytes)/part)
	return limits
}

// consumers returns the sinks as consumers of the journal.
func consumers(c *config.Config) []journal.ConsumerOptions {
	all := make([]journal.ConsumerOptions, 0, len(c.Sinks))
	for _, s := range c.Sinks {
		all = append(all, journal.ConsumerOptions{Name: s.Name, WhenFull: s.WhenFull, Start: s.Start})
	}
	return all
}

func sinkNames(c *config.Config) (names []string) {
	for _, s := range c.Sinks {
		names = append(names, s.Name)
	}
	return names
}
