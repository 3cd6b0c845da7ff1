// Package config reads Hindsight's configuration: one YAML file, decoded
// strictly, checked as a whole before anything starts.
package config

import (
	"cmp"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hindsight-events/hindsight/delivery/parked"
	"github.com/hindsight-events/hindsight/event/format"
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
	MaxStreams   int               `yaml:"max_streams"`
	Journal      Journal           `yaml:"journal"`
	DrainTimeout quantity.Duration `yaml:"drain_timeout"`

	LeaderElection LeaderElection `yaml:"leader_election"`
	Canary         Canary         `yaml:"canary"`

	Log   Log    `yaml:"log"`
	Sinks []Sink `yaml:"sinks"`
}

// Source says which Events are watched.
type Source struct {
	// Namespaces to watch, each with a watch of its own; empty: all of them
	// with a single one.
	Namespaces []string `yaml:"namespaces"`
}

// Journal is what is kept between the watch and the sinks.
type Journal struct {
	// Dir is where it is kept, and survives the process; empty: in memory.
	Dir      string        `yaml:"dir"`
	MaxBytes quantity.Size `yaml:"max_bytes"`
}

// LeaderElection is for several replicas, of which one is active: that which
// holds the Lease. The positions of all sinks are kept there, so that another
// replica goes on where this one stopped.
type LeaderElection struct {
	Enabled bool `yaml:"enabled"`

	// The Lease. An empty namespace is our own.
	Namespace string `yaml:"namespace"`
	Name      string `yaml:"name"`

	LeaseDuration quantity.Duration `yaml:"lease_duration"` // after which others take an unrenewed Lease
	RenewDeadline quantity.Duration `yaml:"renew_deadline"` // after which its holder gives up
	RetryPeriod   quantity.Duration `yaml:"retry_period"`   // between renewals, and between attempts
}

// Canary is an Event of our own, written every minute, that must come back
// through the watch and, with QueryURL, be found in Loki.
type Canary struct {
	Enabled  bool     `yaml:"enabled"`
	QueryURL loki.URL `yaml:"query_url,omitempty"` // base URL of Loki's API
}

// Log is about Hindsight's own log, on the standard error.
type Log struct {
	Level  string `yaml:"level"`
	Format string `yaml:"format"`
}

// Handler returns a handler that writes the log to w.
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
		return level, fmt.Errorf("%q is not a log level; valid are debug, info, warn and error", l.Level)
	}
	return level, nil
}

// Sink is one destination with what it wants. Exactly one of its kinds is set.
type Sink struct {
	Name     string           `yaml:"name"`
	Match    router.Selectors `yaml:"match,omitempty"`
	WhenFull journal.WhenFull `yaml:"when_full"`
	Start    journal.Start    `yaml:"start"`

	// MaxParkedBytes bounds the records that are parked because the sink refuses
	// their stream while it accepts others.
	MaxParkedBytes quantity.Size `yaml:"max_parked_bytes"`

	Stdout *stdout.Config `yaml:"stdout,omitempty"`
	File   *file.Config   `yaml:"file,omitempty"`
	Loki   *loki.Config   `yaml:"loki,omitempty"`
}

// Default is what applies to keys that are not set, without any sink.
func Default() *Config {
	return &Config{
		Listen:       ":8080",
		MaxStreams:   2500,
		DrainTimeout: quantity.Duration(20 * time.Second),
		// What client-go's components use.
		LeaderElection: LeaderElection{
			Name:          "hindsight",
			LeaseDuration: quantity.Duration(15 * time.Second),
			RenewDeadline: quantity.Duration(10 * time.Second),
			RetryPeriod:   quantity.Duration(2 * time.Second),
		},
		Log: Log{Level: "info", Format: "logfmt"},
	}
}

// Eventrouter is the configuration of a run without a file: what eventrouter
// did, every Event to the standard output.
func Eventrouter() *Config {
	c := Default()
	out := stdout.DefaultConfig()
	c.Sinks = []Sink{{Name: "stdout", Stdout: &out}}
	c.setDefaults()
	return c
}

// setDefaults sets what depends on other keys, and what an absent key leaves empty.
func (c *Config) setDefaults() {
	if c.Journal.MaxBytes == 0 {
		c.Journal.MaxBytes = journal.DefaultMemoryBytes
		if c.Journal.Dir != "" {
			c.Journal.MaxBytes = journal.DefaultDiskBytes
		}
	}
	for i := range c.Sinks {
		s := &c.Sinks[i]
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

// SetListen overrides the address for metrics and probes; empty: none.
func (c *Config) SetListen(address string) error {
	c.Listen = address
	if err := c.checkListen(); err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	return nil
}

func (c *Config) checkListen() error {
	if c.Listen == "" {
		return nil
	}
	host, port, err := net.SplitHostPort(c.Listen)
	if err != nil {
		return fmt.Errorf("%q is not an address to listen on; write it as in :8080", c.Listen)
	}
	if n, err := strconv.ParseUint(port, 10, 64); err != nil || n > 65535 {
		return fmt.Errorf("%q has a port that is not a number from 0 to 65535; write it as in :8080", c.Listen)
	}
	if _, err := netip.ParseAddr(host); host != "" && err != nil && !hostName.MatchString(host) {
		return fmt.Errorf("%q has a host that is neither an IP address nor a name; write it as in 127.0.0.1:8080", c.Listen)
	}
	return nil
}

// A problem is something wrong at a key, such as sinks[0].name.
type validationError struct {
	key  string
	line int // 0: that of the key
	err  error
}

var (
	sinkName      = regexp.MustCompile(`^[a-zA-Z0-9]([a-zA-Z0-9_.-]{0,61}[a-zA-Z0-9])?$`)
	namespaceName = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)
	// hostName ends in a letter's label: one in digits would be a wrong IP address.
	hostName  = regexp.MustCompile(`^([a-zA-Z0-9]([a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?\.)*[a-zA-Z]([a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?\.?$`)
	leaseName = regexp.MustCompile(`^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$`)
)

// check looks at what single values cannot show by themselves.
func (c *Config) check() (problems []validationError) {
	bad := func(key, format string, args ...any) {
		problems = append(problems, validationError{key: key, err: fmt.Errorf(format, args...)})
	}
	if err := c.checkListen(); err != nil {
		bad("listen", "%w", err)
	}
	seen := map[string]bool{}
	for i, ns := range c.Source.Namespaces {
		key := fmt.Sprintf("source.namespaces[%d]", i)
		if !namespaceName.MatchString(ns) {
			bad(key, "%q is not the name of a namespace", ns)
		} else if seen[ns] {
			bad(key, "namespace %q is listed twice", ns)
		}
		seen[ns] = true
	}
	if c.MaxStreams < 1 {
		bad("max_streams", "must be at least 1")
	}
	if c.Journal.MaxBytes < 1<<20 {
		bad("journal.max_bytes", "%s is too small; it must be at least 1MiB", c.Journal.MaxBytes)
	}
	if longest := quantity.Duration(24 * time.Hour); c.DrainTimeout > longest {
		bad("drain_timeout", "%s is too long; it must be at most %s", c.DrainTimeout, longest)
	}
	if _, err := c.Log.level(); err != nil {
		bad("log.level", "%w", err)
	}
	if c.Log.Format != "logfmt" && c.Log.Format != "json" {
		bad("log.format", "%q is not a log format; valid are logfmt and json", c.Log.Format)
	}
	problems = append(problems, c.checkLeaderElection()...)
	problems = append(problems, c.checkCanary()...)
	return append(problems, c.checkSinks()...)
}

func (c *Config) checkLeaderElection() (problems []validationError) {
	e := c.LeaderElection
	bad := func(key, format string, args ...any) {
		problems = append(problems, validationError{key: "leader_election." + key, err: fmt.Errorf(format, args...)})
	}
	if e.Namespace != "" && !namespaceName.MatchString(e.Namespace) {
		bad("namespace", "%q is not the name of a namespace", e.Namespace)
	}
	if !leaseName.MatchString(e.Name) {
		bad("name", "%q cannot be the name of a Lease", e.Name)
	}
	if e.RetryPeriod < quantity.Duration(100*time.Millisecond) {
		bad("retry_period", "%s is too short; it must be at least 100ms", e.RetryPeriod)
	}
	// A renewal must be tried at least twice before it is given up.
	if e.RenewDeadline < 2*e.RetryPeriod {
		bad("renew_deadline", "%s is too short; it must be at least twice leader_election.retry_period, %s", e.RenewDeadline, e.RetryPeriod)
	}
	if e.LeaseDuration <= e.RenewDeadline {
		bad("lease_duration", "%s is too short; it must be longer than leader_election.renew_deadline, %s", e.LeaseDuration, e.RenewDeadline)
	}
	if longest := quantity.Duration(time.Hour); e.LeaseDuration > longest {
		bad("lease_duration", "%s is too long; it must be at most %s", e.LeaseDuration, longest)
	}
	if e.LeaseDuration%quantity.Duration(time.Second) != 0 {
		bad("lease_duration", "%s cannot be kept in a Lease, which counts whole seconds", e.LeaseDuration)
	}
	return problems
}

func (c *Config) checkCanary() (problems []validationError) {
	if c.Canary.QueryURL == "" {
		return nil
	}
	bad := func(format string, args ...any) {
		problems = append(problems, validationError{key: "canary.query_url", err: fmt.Errorf(format, args...)})
	}
	if _, err := c.Canary.QueryURL.Parse(); err != nil {
		bad("%w", err)
	}
	i := slices.IndexFunc(c.Sinks, func(s Sink) bool { return s.Loki != nil })
	if i < 0 {
		bad("there is no Loki sink whose Events could be queried")
	} else if l := c.Sinks[i].Loki; !l.StructuredMetadata && l.Format == format.Text {
		bad("lines of the format text do not say the version of an Event; set structured_metadata or another format for sink %q", c.Sinks[i].Name)
	}
	return problems
}

func (c *Config) checkSinks() (problems []validationError) {
	bad := func(key, format string, args ...any) {
		problems = append(problems, validationError{key: key, err: fmt.Errorf(format, args...)})
	}
	if len(c.Sinks) == 0 {
		bad("sinks", "at least one sink is needed")
	}
	names := map[string]bool{}
	toStdout, files := "", map[string]string{}
	for i, s := range c.Sinks {
		key := fmt.Sprintf("sinks[%d]", i)
		switch {
		case s.Name == "":
			bad(key, "the sink needs a name")
		case !sinkName.MatchString(s.Name):
			bad(key+".name", "%q cannot be a sink's name: use letters, digits, and - _ . between them, at most 63", s.Name)
		case names[s.Name]:
			bad(key+".name", "there are two sinks of the name %q", s.Name)
		}
		names[s.Name] = true
		if s.WhenFull != journal.Block && s.WhenFull != journal.DropOldest {
			bad(key+".when_full", "%q is unknown; valid are %s and %s", s.WhenFull, journal.Block, journal.DropOldest)
		}
		if s.Start != journal.StartTail && s.Start != journal.StartOldest {
			bad(key+".start", "%q is unknown; valid are %s and %s", s.Start, journal.StartTail, journal.StartOldest)
		}
		if s.MaxParkedBytes < 1<<20 {
			bad(key+".max_parked_bytes", "%s is too small; it must be at least 1MiB", s.MaxParkedBytes)
		}
		kinds := 0
		if s.Stdout != nil {
			kinds++
			if toStdout != "" {
				bad(key+".stdout", "sink %q writes to stdout already; lines of two sinks would mix", toStdout)
			}
			toStdout = cmp.Or(s.Name, "without a name")
		}
		if s.File != nil {
			kinds++
			s.File.Check(func(k, format string, args ...any) { bad(key+".file."+k, format, args...) })
			path, err := filepath.Abs(s.File.Path)
			if other, taken := files[path]; err == nil && taken {
				bad(key+".file.path", "sink %q writes to this file already", other)
			}
			if dir, dirErr := filepath.Abs(c.Journal.Dir); err == nil && dirErr == nil && c.Journal.Dir != "" && filepath.Dir(path) == dir {
				bad(key+".file.path", "the directory is the journal's (journal.dir); choose another")
			}
			files[path] = s.Name
		}
		if s.Loki != nil {
			kinds++
			s.Loki.Check(c.Cluster, func(k string, err error) {
				if k != "cluster" { // which is a key of its own
					k = strings.TrimSuffix(key+".loki."+k, ".")
				}
				bad(k, "%w", err)
			})
		}
		if kinds != 1 {
			bad(key, "the sink needs one destination: stdout, file or loki")
		}
	}
	return problems
}
