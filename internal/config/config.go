// Package config reads and validates the configuration: one YAML file, without unknown keys.
package config

import (
	"cmp"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/hindsight-events/hindsight/delivery/parked"
	"github.com/hindsight-events/hindsight/enrich"
	"github.com/hindsight-events/hindsight/internal/quantity"
	"github.com/hindsight-events/hindsight/journal"
	"github.com/hindsight-events/hindsight/router"
	"github.com/hindsight-events/hindsight/sink/file"
	"github.com/hindsight-events/hindsight/sink/loki"
	"github.com/hindsight-events/hindsight/sink/stdout"
)

// Config is the whole configuration. docs/configuration.md explains the keys.
type Config struct {
	Listen       string            `yaml:"listen"`
	Cluster      string            `yaml:"cluster"`
	Source       Source            `yaml:"source"`
	Drop         router.Selectors  `yaml:"drop,omitempty"`
	Redact       router.Redactions `yaml:"redact,omitempty"`
	Levels       router.Levels     `yaml:"levels"`
	Enrich       enrich.Config     `yaml:"enrich,omitempty"`
	MaxStreams   int               `yaml:"max_streams"`
	Journal      Journal           `yaml:"journal"`
	DrainTimeout quantity.Duration `yaml:"drain_timeout"`

	LeaderElection LeaderElection `yaml:"leader_election"`
	Canary         Canary         `yaml:"canary"`

	Log   Log    `yaml:"log"`
	Sinks []Sink `yaml:"sinks"`
}

// Source selects the Events to watch.
type Source struct {
	// Namespaces to watch, with one watch each; empty: all namespaces, with a single watch.
	Namespaces []string `yaml:"namespaces"`
}

// Journal is the log of records between the watch and the sinks.
type Journal struct {
	// Dir is the directory of the journal; empty: it is in memory and ends with the process.
	Dir      string        `yaml:"dir"`
	MaxBytes quantity.Size `yaml:"max_bytes"`
}

// LeaderElection is for several replicas, of which the holder of the Lease is active. The Lease has
// a checkpoint, from which the next leader resumes.
type LeaderElection struct {
	Enabled bool `yaml:"enabled"`

	// Namespace and Name of the Lease; the default namespace is Hindsight's own.
	Namespace string `yaml:"namespace"`
	Name      string `yaml:"name"`

	LeaseDuration quantity.Duration `yaml:"lease_duration"` // after which a candidate acquires an unrenewed Lease
	RenewDeadline quantity.Duration `yaml:"renew_deadline"` // after which the holder stops
	RetryPeriod   quantity.Duration `yaml:"retry_period"`   // between renewals and between attempts of a candidate

	// CheckpointInterval is the shortest time between writes of positions into the Lease.
	CheckpointInterval quantity.Duration `yaml:"checkpoint_interval"`
}

// Canary is an Event that Hindsight writes every minute and that must arrive through the watch and,
// with QueryURL, be found in Loki.
type Canary struct {
	Enabled  bool     `yaml:"enabled"`
	QueryURL loki.URL `yaml:"query_url,omitempty"` // base URL of Loki's API
}

// Log configures Hindsight's own log, on stderr.
type Log struct {
	Level  string `yaml:"level"`
	Format string `yaml:"format"`
}

// Handler returns the log handler for w.
func (l Log) Handler(w io.Writer) slog.Handler {
	var o slog.HandlerOptions
	level, err := l.level()
	if err == nil {
		o.Level = level
	}
	if l.Format == "json" {
		return slog.NewJSONHandler(w, &o)
	}
	return slog.NewTextHandler(w, &o)
}

func (l Log) level() (level slog.Level, err error) {
	if err := level.UnmarshalText([]byte(l.Level)); err != nil {
		return level, fmt.Errorf("unknown log level %q, want debug, info, warn or error", l.Level)
	}
	return level, nil
}

// Sink is one destination and its options. Exactly one of Stdout, File and Loki is set.
type Sink struct {
	Name     string           `yaml:"name"`
	Match    router.Selectors `yaml:"match,omitempty"`
	WhenFull journal.WhenFull `yaml:"when_full"`
	Start    journal.Start    `yaml:"start"`

	// MaxParkedBytes bounds the parked records.
	MaxParkedBytes quantity.Size `yaml:"max_parked_bytes"`

	Stdout *stdout.Config `yaml:"stdout,omitempty"`
	File   *file.Config   `yaml:"file,omitempty"`
	Loki   *loki.Config   `yaml:"loki,omitempty"`
}

// Default returns the defaults, without sinks.
func Default() *Config {
	return &Config{
		Listen:       ":8080",
		Levels:       router.DefaultLevels(),
		MaxStreams:   2500,
		Enrich:       enrich.DefaultConfig(),
		DrainTimeout: quantity.Duration(20 * time.Second),
		// As in client-go's components.
		LeaderElection: LeaderElection{
			Name:          "hindsight",
			LeaseDuration: quantity.Duration(15 * time.Second),
			RenewDeadline: quantity.Duration(10 * time.Second),
			RetryPeriod:   quantity.Duration(2 * time.Second),

			CheckpointInterval: quantity.Duration(10 * time.Second),
		},
		Log: Log{Level: "info", Format: "logfmt"},
	}
}

// Eventrouter returns the configuration without a file: all Events to stdout, in eventrouter's
// format.
func Eventrouter() *Config {
	c := Default()
	out := stdout.DefaultConfig()
	c.Sinks = []Sink{{Name: "stdout", Stdout: &out}}
	c.setDefaults()
	return c
}

// setDefaults sets the defaults that depend on other keys, and those within lists.
func (c *Config) setDefaults() {
	if c.Journal.MaxBytes == 0 {
		c.Journal.MaxBytes = journal.DefaultMemoryBytes
		if c.Journal.Dir != "" {
			c.Journal.MaxBytes = journal.DefaultDiskBytes
		}
	}
	for i := range c.Sinks {
		s := &c.Sinks[i]
		if s.Loki != nil {
			s.Loki.Attributes = c.Enrich.Names()
		}
		s.WhenFull = cmp.Or(s.WhenFull, journal.Block)
		s.Start = cmp.Or(s.Start, journal.StartTail)
		if s.MaxParkedBytes == 0 {
			s.MaxParkedBytes = parked.DefaultMemoryBytes
			if c.Journal.Dir != "" {
				s.MaxParkedBytes = parked.DefaultDiskBytes
			}
		}
	}
}

// SetListen overrides the address of metrics and probes; empty disables them.
func (c *Config) SetListen(address string) error {
	c.Listen = address
	if err := c.checkListen(); err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	return nil
}
