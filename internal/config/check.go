package config

import (
	"cmp"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/hindsight-events/hindsight/event"
	"github.com/hindsight-events/hindsight/event/format"
	"github.com/hindsight-events/hindsight/internal/lazyregexp"
	"github.com/hindsight-events/hindsight/internal/quantity"
	"github.com/hindsight-events/hindsight/journal"
	"github.com/hindsight-events/hindsight/router"
)

func (c *Config) checkListen() error {
	if c.Listen == "" {
		return nil
	}
	host, port, err := net.SplitHostPort(c.Listen)
	if err != nil {
		return fmt.Errorf("%q is not a listen address, such as :8080", c.Listen)
	}
	if n, err := strconv.ParseUint(port, 10, 64); err != nil || n > 65535 {
		return fmt.Errorf("%q: the port must be a number from 0 to 65535, as in :8080", c.Listen)
	}
	if _, err := netip.ParseAddr(host); host != "" && err != nil && !hostName().MatchString(host) {
		return fmt.Errorf("%q: the host must be an IP address or a host name, as in 127.0.0.1:8080", c.Listen)
	}
	return nil
}

// A problem is something wrong at a key, such as sinks[0].name.
type validationError struct {
	key  string
	line int // 0: the line of the key
	err  error
}

var (
	sinkName = lazyregexp.New(`^[a-zA-Z0-9]([a-zA-Z0-9_.-]{0,61}[a-zA-Z0-9])?$`)
	// The last label of a host name begins with a letter; otherwise it would be an invalid IP address.
	hostName = lazyregexp.New(`^([a-zA-Z0-9]([a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?\.)*[a-zA-Z]([a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?\.?$`)
)

// check validates values and their relations, beyond their types.
func (c *Config) check() (invalid []validationError) {
	bad := func(key, format string, args ...any) {
		invalid = append(invalid, validationError{key: key, err: fmt.Errorf(format, args...)})
	}
	if err := c.checkListen(); err != nil {
		bad("listen", "%w", err)
	}
	seen := map[string]bool{}
	for i, ns := range c.Source.Namespaces {
		key := fmt.Sprintf("source.namespaces[%d]", i)
		if validation.IsDNS1123Label(ns) != nil {
			bad(key, "%q is not a valid namespace name", ns)
		} else if seen[ns] {
			bad(key, "duplicate namespace %q", ns)
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
		bad("log.format", "unknown log format %q, want logfmt or json", c.Log.Format)
	}
	c.Enrich.Check(func(key string, err error) { bad("enrich."+key, "%w", err) })
	c.checkSelectors("drop", c.Drop, bad)
	c.checkSelectors("levels.critical", c.Levels.Critical, bad)
	c.checkSelectors("levels.error", c.Levels.Error, bad)
	c.checkSelectors("levels.warn", c.Levels.Warn, bad)
	c.checkSelectors("levels.info", c.Levels.Info, bad)
	c.checkSelectors("levels.debug", c.Levels.Debug, bad)
	for i, s := range c.Sinks {
		c.checkSelectors(fmt.Sprintf("sinks[%d].match", i), s.Match, bad)
	}
	invalid = append(invalid, c.checkLeaderElection()...)
	invalid = append(invalid, c.checkCanary()...)
	return append(invalid, c.checkSinks()...)
}

// checkSelectors checks that enrich adds the attributes that selectors refer to.
func (c *Config) checkSelectors(key string, selectors router.Selectors, bad func(key, format string, args ...any)) {
	attributes := c.Enrich.Names()
	for _, s := range selectors {
		for _, name := range s.Attributes() {
			if slices.Contains(attributes, name) {
				continue
			}
			bad(key, "selector %#q: unknown name %q; valid are %s", s, name, event.FieldNames(event.Fields, attributes...))
		}
	}
}

func (c *Config) checkLeaderElection() (invalid []validationError) {
	e := c.LeaderElection
	bad := func(key, format string, args ...any) {
		invalid = append(invalid, validationError{key: "leader_election." + key, err: fmt.Errorf(format, args...)})
	}
	if e.Namespace != "" && validation.IsDNS1123Label(e.Namespace) != nil {
		bad("namespace", "%q is not a valid namespace name", e.Namespace)
	}
	if validation.IsDNS1123Subdomain(e.Name) != nil {
		bad("name", "%q is not a valid name of a Lease", e.Name)
	}
	if e.RetryPeriod < quantity.Duration(100*time.Millisecond) {
		bad("retry_period", "%s is too short; it must be at least 100ms", e.RetryPeriod)
	}
	// It leaves time for two attempts.
	if e.RenewDeadline < 2*e.RetryPeriod {
		bad("renew_deadline", "%s is too short; it must be at least twice leader_election.retry_period, %s", e.RenewDeadline, e.RetryPeriod)
	}
	if e.LeaseDuration <= e.RenewDeadline {
		bad("lease_duration", "%s is too short; it must be longer than leader_election.renew_deadline, %s", e.LeaseDuration, e.RenewDeadline)
	}
	longest := quantity.Duration(time.Hour)
	if e.LeaseDuration > longest {
		bad("lease_duration", "%s is too long; it must be at most %s", e.LeaseDuration, longest)
	}
	if e.CheckpointInterval > longest {
		bad("checkpoint_interval", "%s is too long; it must be at most %s", e.CheckpointInterval, longest)
	}
	if e.LeaseDuration%quantity.Duration(time.Second) != 0 {
		bad("lease_duration", "%s is not in whole seconds, which a Lease requires", e.LeaseDuration)
	}
	return invalid
}

func (c *Config) checkCanary() (invalid []validationError) {
	if c.Canary.QueryURL == "" {
		return nil
	}
	bad := func(format string, args ...any) {
		invalid = append(invalid, validationError{key: "canary.query_url", err: fmt.Errorf(format, args...)})
	}
	if _, err := c.Canary.QueryURL.Parse(); err != nil {
		bad("%w", err)
	}
	i := slices.IndexFunc(c.Sinks, func(s Sink) bool { return s.Loki != nil })
	if i < 0 {
		bad("needs a Loki sink to query")
	} else if l := c.Sinks[i].Loki; !l.StructuredMetadata && l.Format == format.Text {
		bad("lines of format text have no version; set structured_metadata or another format for sink %q", c.Sinks[i].Name)
	}
	return invalid
}

func (c *Config) checkSinks() (invalid []validationError) {
	bad := func(key, format string, args ...any) {
		invalid = append(invalid, validationError{key: key, err: fmt.Errorf(format, args...)})
	}
	if len(c.Sinks) == 0 {
		bad("sinks", "at least one sink is required")
	}
	names := map[string]bool{}
	toStdout, files := "", map[string]string{}
	for i, s := range c.Sinks {
		key := fmt.Sprintf("sinks[%d]", i)
		switch {
		case s.Name == "":
			bad(key, "the sink has no name")
		case !sinkName().MatchString(s.Name):
			bad(key+".name", "%q is not a valid sink name: use at most 63 letters, digits and, between them, - _ .", s.Name)
		case names[s.Name]:
			bad(key+".name", "duplicate sink name %q", s.Name)
		}
		names[s.Name] = true
		if s.WhenFull != journal.Block && s.WhenFull != journal.DropOldest {
			bad(key+".when_full", "unknown value %q, want %s or %s", s.WhenFull, journal.Block, journal.DropOldest)
		}
		if s.Start != journal.StartTail && s.Start != journal.StartOldest {
			bad(key+".start", "unknown value %q, want %s or %s", s.Start, journal.StartTail, journal.StartOldest)
		}
		if s.MaxParkedBytes < 1<<20 {
			bad(key+".max_parked_bytes", "%s is too small; it must be at least 1MiB", s.MaxParkedBytes)
		}
		kinds := 0
		if s.Stdout != nil {
			kinds++
			if toStdout != "" {
				bad(key+".stdout", "sink %q already writes to stdout", toStdout)
			}
			toStdout = cmp.Or(s.Name, "without a name")
		}
		if s.File != nil {
			kinds++
			s.File.Check(func(k, format string, args ...any) { bad(key+".file."+k, format, args...) })
			path, err := filepath.Abs(s.File.Path)
			if other, taken := files[path]; err == nil && taken {
				bad(key+".file.path", "sink %q already writes to this file", other)
			}
			if dir, dirErr := filepath.Abs(c.Journal.Dir); err == nil && dirErr == nil && c.Journal.Dir != "" && filepath.Dir(path) == dir {
				bad(key+".file.path", "the file must not be in the journal's directory (journal.dir)")
			}
			files[path] = s.Name
		}
		if s.Loki != nil {
			kinds++
			s.Loki.Check(c.Cluster, func(k string, err error) {
				if k != "cluster" { // a top-level key
					k = strings.TrimSuffix(key+".loki."+k, ".")
				}
				bad(k, "%w", err)
			})
		}
		if kinds != 1 {
			bad(key, "the sink must have exactly one destination: stdout, file or loki")
		}
	}
	return invalid
}
