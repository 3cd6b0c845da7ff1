package loki

import (
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/prometheus/common/config"

	"github.com/hindsight-events/hindsight/event"
	"github.com/hindsight-events/hindsight/internal/quantity"
	"github.com/hindsight-events/hindsight/router"
)

// Config of a Loki sink.
type Config struct {
	URL            URL               `yaml:"url"` // without a path, pushPath is added
	TenantID       string            `yaml:"tenant_id,omitempty"`
	Format         event.Format      `yaml:"format"`
	Job            string            `yaml:"job"`                       // the label job
	Labels         map[string]string `yaml:"labels,omitempty"`          // label → field, in place of namespace and reason
	ExternalLabels map[string]string `yaml:"external_labels,omitempty"` // label → value

	MaxRate   quantity.Rate     `yaml:"max_rate"`   // 0: no bound
	BatchWait quantity.Duration `yaml:"batch_wait"` // how long a batch may wait to be filled
	Timeout   quantity.Duration `yaml:"timeout"`    // of one push

	// StructuredMetadata is off for a Loki that does not take any: then all
	// goes into the line.
	StructuredMetadata bool `yaml:"structured_metadata"`

	HTTP config.HTTPClientConfig `yaml:",inline"`
}

// DefaultConfig is what applies to keys that are not set. max_rate is 90% of the
// rate that Loki grants a tenant by default.
func DefaultConfig() Config {
	return Config{
		Format:             event.Logfmt,
		Job:                "hindsight",
		MaxRate:            3774873, // 3.6MiB/s
		BatchWait:          quantity.Duration(time.Second),
		Timeout:            quantity.Duration(10 * time.Second),
		StructuredMetadata: true,
		HTTP:               config.DefaultHTTPClientConfig,
	}
}

// UnmarshalYAML starts from the defaults.
func (c *Config) UnmarshalYAML(unmarshal func(any) error) error {
	type plain Config
	*c = DefaultConfig()
	return unmarshal((*plain)(c))
}

// URL is an address that does not print the password that it may hold.
type URL string

func (u URL) String() string {
	parsed, err := url.Parse(string(u))
	if err != nil {
		return "(not a URL)" // where the password is in it is not known
	}
	return parsed.Redacted()
}

// MarshalYAML implements yaml.Marshaler.
func (u URL) MarshalYAML() (any, error) { return u.String(), nil }

// Check tells bad of each value that cannot be: its key, empty where it is not
// a single one, and what is wrong. Cluster is the label that Options will have.
// No secret is in what it says.
func (c *Config) Check(cluster string, bad func(key string, err error)) {
	if _, err := c.endpoint(); err != nil {
		bad("url", err)
	}
	if err := checkTenant(c.TenantID); err != nil {
		bad("tenant_id", err)
	}
	if _, err := c.labels(cluster); err != nil {
		bad("labels", err)
	}
	if c.MaxRate != 0 && c.MaxRate < 1<<10 {
		bad("max_rate", fmt.Errorf("%s is too little; it must be at least 1KiB/s, or 0 for no bound", c.MaxRate))
	}
	if c.Timeout <= 0 {
		bad("timeout", errors.New("must be more than 0s"))
	}
	http := c.HTTP // Validate changes it
	if err := http.Validate(); err != nil {
		bad("", err)
	}
	if c.HTTP.BasicAuth != nil || c.HTTP.Authorization != nil || c.HTTP.OAuth2 != nil {
		if u, err := c.endpoint(); err == nil && u.User != nil {
			bad("url", errors.New("there are credentials in it and in other keys; give them once"))
		}
	}
}

// pushPath is where Loki takes pushes:
// https://grafana.com/docs/loki/latest/reference/loki-http-api/#ingest-logs
const pushPath = "/loki/api/v1/push"

// Parse returns the parts of the address. Its errors never repeat it, for it may
// hold a password.
func (u URL) Parse() (*url.URL, error) {
	const want = "write it as in http://loki:3100"
	if u == "" {
		return nil, errors.New("is missing; " + want)
	}
	parsed, err := url.Parse(strings.TrimSpace(string(u)))
	switch {
	case err != nil:
		return nil, errors.New("is not a URL; " + want)
	case parsed.Scheme != "http" && parsed.Scheme != "https":
		return nil, errors.New("begins neither with http:// nor with https://; " + want)
	case parsed.Hostname() == "":
		return nil, errors.New("has no host; " + want)
	case parsed.Fragment != "":
		return nil, errors.New("has a fragment (#…), which is never sent; " + want)
	}
	return parsed, nil
}

// endpoint is where pushes go.
func (c *Config) endpoint() (*url.URL, error) {
	u, err := c.URL.Parse()
	if err != nil {
		return nil, err
	}
	if u.Path == "" || u.Path == "/" {
		u.Path = pushPath
	}
	return u, nil
}

func (c *Config) labels(cluster string) (*router.Labels, error) {
	return router.NewLabels(router.LabelOptions{
		Job:      c.Job,
		Cluster:  cluster,
		Fields:   c.Labels,
		External: c.ExternalLabels,
	})
}

// checkTenant refuses what Loki would refuse:
// https://grafana.com/docs/mimir/latest/configure/about-tenant-ids/
func checkTenant(id string) error {
	if len(id) > 150 {
		return errors.New("is longer than 150 bytes")
	}
	for _, c := range id {
		if !strings.ContainsRune("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789!-_.*'()", c) {
			return fmt.Errorf("%q is not allowed in a tenant's name", c)
		}
	}
	if id == "." || id == ".." || strings.HasPrefix(id, "__mimir") {
		return fmt.Errorf("%q is not allowed as a tenant's name", id)
	}
	return nil
}
