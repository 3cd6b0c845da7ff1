package main

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/prometheus/common/config"
	"github.com/spf13/cobra"

	"github.com/hindsight-events/hindsight/event"
	hindsight "github.com/hindsight-events/hindsight/internal/config"
	"github.com/hindsight-events/hindsight/query"
	"github.com/hindsight-events/hindsight/query/loki"
	sink "github.com/hindsight-events/hindsight/sink/loki"
)

// sourceFlags are the flags that name the source of Events.
type sourceFlags struct {
	url    string
	tenant string
	config string
	sink   string
	file   string
}

// register adds the flags. configUsage is the help of --config.
func (flags *sourceFlags) register(cmd *cobra.Command, configUsage string) {
	f := cmd.Flags()
	f.StringVar(&flags.url, "loki-url", "", "`URL` of Loki, without /loki/api/v1")
	f.StringVar(&flags.tenant, "tenant", "", "`ID` of the tenant in Loki")
	f.StringVar(&flags.config, "config", "", configUsage)
	f.StringVar(&flags.sink, "sink", "", "`NAME` of the sink in --config, if it has several")
	f.StringVar(&flags.file, "file", "", "read the files of a file sink with this `PATH`, rotated ones included, or any file that replay reads")
	cmd.MarkFlagsMutuallyExclusive("file", "loki-url")
	cmd.MarkFlagsMutuallyExclusive("file", "config")
}

// source is the file or the Loki to read from.
type source struct {
	file    string
	loki    loki.Config
	layout  query.Layout
	cluster string
}

// readSource reads the source from the flags, a configuration and the environment.
func (flags sourceFlags) readSource() (source, error) {
	r := source{file: flags.file, layout: query.DefaultLayout(), loki: loki.Config{TenantID: flags.tenant, HTTP: config.DefaultHTTPClientConfig}}
	if flags.file != "" {
		return r, nil
	}
	if flags.config != "" {
		if err := flags.readConfig(&r); err != nil || r.file != "" {
			return r, err
		}
	} else if err := readEnvironment(&r.loki); err != nil {
		return r, err
	}
	if address := cmp.Or(flags.url, r.address(flags)); address != "" {
		u, err := sink.URL(address).Parse()
		if err != nil {
			return r, fmt.Errorf("address of Loki: %w", err)
		}
		// The address may be the push URL of a sink.
		u.Path = strings.TrimSuffix(strings.TrimSuffix(u.Path, "/"), "/loki/api/v1/push")
		u.Path = strings.TrimSuffix(u.Path, "/loki/api/v1")
		r.loki.URL = u
	}
	if flags.tenant != "" {
		r.loki.TenantID = flags.tenant
	}
	return r, nil
}

// address returns the address in the environment; a configuration takes precedence.
func (r *source) address(flags sourceFlags) string {
	if flags.config != "" {
		return ""
	}
	return cmp.Or(os.Getenv("HINDSIGHT_LOKI_URL"), os.Getenv("LOKI_ADDR"))
}

// readConfig reads the source from a sink of a configuration.
func (flags sourceFlags) readConfig(r *source) error {
	c, err := hindsight.Load(flags.config)
	if err != nil {
		return err
	}
	s, err := chooseSink(c, flags.sink)
	if err != nil {
		return fmt.Errorf("%s: %w", flags.config, err)
	}
	if s.File != nil {
		r.file = s.File.Path
		return nil
	}
	r.cluster = c.Cluster
	r.layout = query.Layout{
		Format:   s.Loki.Format,
		Metadata: s.Loki.StructuredMetadata,
		Job:      s.Loki.Job,
		Labels:   s.Loki.Labels,
		Fixed:    s.Loki.ExternalLabels,
	}
	if r.layout.Labels == nil {
		r.layout.Labels = event.DefaultLabelFields()
	}
	r.loki.TenantID, r.loki.HTTP = s.Loki.TenantID, s.Loki.HTTP
	if flags.url != "" {
		return nil
	}
	u, err := s.Loki.URL.Parse()
	if err != nil {
		return err
	}
	base, ok := strings.CutSuffix(strings.TrimSuffix(u.Path, "/"), "/loki/api/v1/push")
	if !ok && base != "" {
		return fmt.Errorf("%s: sink %s: url: cannot derive the query URL from the path %s; set --loki-url", flags.config, s.Name, u.Path)
	}
	u.Path = base
	r.loki.URL = u
	return nil
}

// chooseSink returns the sink of the given name; without a name, the only readable sink or the only
// Loki sink.
func chooseSink(c *hindsight.Config, name string) (*hindsight.Sink, error) {
	var readable, lokis []*hindsight.Sink
	var names []string
	for i := range c.Sinks {
		s := &c.Sinks[i]
		if s.Loki == nil && s.File == nil {
			if s.Name == name {
				return nil, fmt.Errorf("sink %s writes to stdout, which cannot be read", name)
			}
			continue
		}
		if s.Name == name {
			return s, nil
		}
		readable, names = append(readable, s), append(names, s.Name)
		if s.Loki != nil {
			lokis = append(lokis, s)
		}
	}
	switch {
	case name != "":
		return nil, fmt.Errorf("no readable sink %q; readable sinks: %s", name, cmp.Or(strings.Join(names, ", "), "none"))
	case len(readable) == 1:
		return readable[0], nil
	case len(lokis) == 1:
		return lokis[0], nil
	case len(readable) == 0:
		return nil, errors.New("no readable sink: neither loki nor file")
	}
	return nil, fmt.Errorf("several readable sinks; choose one with --sink: %s", strings.Join(names, ", "))
}

// readEnvironment reads the environment variables of logcli:
// https://grafana.com/docs/loki/latest/query/logcli/
func readEnvironment(c *loki.Config) error {
	c.TenantID = os.Getenv("LOKI_ORG_ID")
	if user := os.Getenv("LOKI_USERNAME"); user != "" {
		c.HTTP.BasicAuth = &config.BasicAuth{Username: user, Password: config.Secret(os.Getenv("LOKI_PASSWORD"))}
	}
	token, tokenFile := os.Getenv("LOKI_BEARER_TOKEN"), os.Getenv("LOKI_BEARER_TOKEN_FILE")
	if token != "" || tokenFile != "" {
		c.HTTP.Authorization = &config.Authorization{Credentials: config.Secret(token), CredentialsFile: tokenFile}
	}
	c.HTTP.TLSConfig.CAFile = os.Getenv("LOKI_CA_CERT_PATH")
	c.HTTP.TLSConfig.CertFile = os.Getenv("LOKI_CLIENT_CERT_PATH")
	c.HTTP.TLSConfig.KeyFile = os.Getenv("LOKI_CLIENT_KEY_PATH")
	if err := c.HTTP.Validate(); err != nil {
		return fmt.Errorf("environment variables LOKI_…: %w", err)
	}
	return nil
}

var errNoLoki = errors.New("no address of Loki: set --loki-url, HINDSIGHT_LOKI_URL or --config, or read files with --file")
