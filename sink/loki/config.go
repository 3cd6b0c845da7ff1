package loki

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/common/config"
	"gopkg.in/yaml.v3"

	"github.com/hindsight-events/hindsight/event"
	"github.com/hindsight-events/hindsight/event/format"
	"github.com/hindsight-events/hindsight/internal/lazyregexp"
	"github.com/hindsight-events/hindsight/internal/mask"
	"github.com/hindsight-events/hindsight/internal/quantity"
)

// Config of a Loki sink.
type Config struct {
	URL            URL               `yaml:"url"` // pushPath is added if it has no path
	TenantID       string            `yaml:"tenant_id,omitempty"`
	Format         format.Format     `yaml:"format"`
	Line           Line              `yaml:"line"`
	Job            string            `yaml:"job"`                       // the label job; required
	Labels         map[string]string `yaml:"labels"`                    // label → field; nil: namespace and reason
	ExternalLabels map[string]string `yaml:"external_labels,omitempty"` // label → value

	MaxRate quantity.Rate `yaml:"max_rate"` // 0: no bound

	// The longest wait for a batch to fill, and that of a batch in which all Events are of
	// type Normal; by default four times as long.
	BatchWait       quantity.Duration `yaml:"batch_wait"`
	NormalBatchWait quantity.Duration `yaml:"normal_batch_wait"`

	Timeout quantity.Duration `yaml:"timeout"` // of one push

	// StructuredMetadata is off for a Loki that does not accept any. Then the line has
	// all fields.
	StructuredMetadata bool `yaml:"structured_metadata"`

	HTTP config.HTTPClientConfig `yaml:",inline"`

	// Attributes are the names of the attributes that records may have, which may be labels.
	Attributes []string `yaml:"-"`
}

// Line selects the fields of a line; empty: LineFull.
type Line string

const (
	LineFull  Line = "full"
	LineShort Line = "short" // without the fields in structured metadata
)

// UnmarshalText reads a Line from a configuration file.
func (l *Line) UnmarshalText(name []byte) error {
	if v := Line(name); v != LineFull && v != LineShort {
		return fmt.Errorf("unknown value %q: want full or short", name)
	}
	*l = Line(name)
	return nil
}

// DefaultConfig returns the defaults. max_rate is 90% of the rate that Loki grants a tenant by
// default.
func DefaultConfig() Config {
	return Config{
		Format:             format.Logfmt,
		Line:               LineFull,
		Job:                "hindsight",
		MaxRate:            3774873, // 3.6MiB/s
		BatchWait:          quantity.Duration(time.Second),
		NormalBatchWait:    normalBatchWaitFactor * quantity.Duration(time.Second),
		Timeout:            quantity.Duration(10 * time.Second),
		StructuredMetadata: true,
		HTTP:               config.DefaultHTTPClientConfig,
	}
}

// normalBatchWaitFactor is the default of normal_batch_wait, divided by batch_wait.
const normalBatchWaitFactor = 4

// UnmarshalYAML starts from the defaults.
func (c *Config) UnmarshalYAML(unmarshal func(any) error) error {
	type plain Config
	*c = DefaultConfig()
	c.NormalBatchWait = -1
	if err := unmarshal((*plain)(c)); err != nil {
		return err
	}
	if c.NormalBatchWait < 0 {
		c.NormalBatchWait = min(normalBatchWaitFactor*c.BatchWait, max(longestWait, c.BatchWait))
	}
	if c.Labels == nil { // the decoder would add the labels of the file to a default
		c.Labels = event.DefaultLabelFields()
	}
	return nil
}

// MarshalYAML redacts the secrets that are not of a type that does it.
func (c Config) MarshalYAML() (any, error) {
	type plain Config
	c.HTTP.ProxyURL = redactProxy(c.HTTP.ProxyURL)
	if c.HTTP.OAuth2 != nil {
		o := *c.HTTP.OAuth2
		o.TokenURL = mask.URL(o.TokenURL)
		o.ProxyURL = redactProxy(o.ProxyURL)
		o.EndpointParams = maps.Clone(o.EndpointParams)
		for name := range o.EndpointParams {
			o.EndpointParams[name] = "<secret>" // as in config.Secret
		}
		c.HTTP.OAuth2 = &o
	}
	return plain(c), nil
}

func redactProxy(u config.URL) config.URL {
	if u.URL != nil {
		u.URL = mask.ParsedURL(u.URL)
	}
	return u
}

// String returns the YAML of the configuration, without secrets.
func (c Config) String() string {
	b, err := yaml.Marshal(c)
	if err != nil {
		return "(" + err.Error() + ")"
	}
	return string(b)
}

// URL is an address whose String has no secrets.
type URL string

func (u URL) String() string { return mask.URL(string(u)) }

// MarshalYAML implements yaml.Marshaler.
func (u URL) MarshalYAML() (any, error) { return u.String(), nil }

// longestWait bounds timeout, batch_wait and normal_batch_wait.
const longestWait = quantity.Duration(time.Hour)

// Check calls bad for each invalid value with its key, or an empty key if the error concerns
// several. Cluster is that of Options. The errors have no secrets.
func (c *Config) Check(cluster string, bad func(key string, err error)) {
	if _, err := c.endpoint(); err != nil {
		bad("url", err)
	}
	if err := checkTenant(c.TenantID); err != nil {
		bad("tenant_id", err)
	}
	if _, err := newLabelSet(c, cluster); err != nil {
		var labelErr *labelError
		errors.As(err, &labelErr)
		bad(labelErr.Key, err)
	}
	if err := c.checkLine(); err != nil {
		bad("line", err)
	}
	if c.MaxRate != 0 && c.MaxRate < 1<<10 {
		bad("max_rate", fmt.Errorf("%s is too little; it must be at least 1KiB/s, or 0 for no bound", c.MaxRate))
	}
	if c.Timeout <= 0 {
		bad("timeout", errors.New("must be more than 0s"))
	}
	if c.Timeout > longestWait {
		bad("timeout", fmt.Errorf("%s is too long; it must be at most %s", c.Timeout, longestWait))
	}
	if c.BatchWait < 0 || c.BatchWait > longestWait {
		bad("batch_wait", fmt.Errorf("%s is not between 0s and %s", c.BatchWait, longestWait))
	} else if c.NormalBatchWait < c.BatchWait || c.NormalBatchWait > longestWait {
		bad("normal_batch_wait", fmt.Errorf("%s is not between batch_wait, %s, and %s", c.NormalBatchWait, c.BatchWait, longestWait))
	}
	c.checkHTTP(bad)
	if c.HTTP.BasicAuth != nil || c.HTTP.Authorization != nil || c.HTTP.OAuth2 != nil {
		if u, err := c.endpoint(); err == nil && u.User != nil {
			bad("url", errors.New("there are credentials in it and in other keys; give them once"))
		}
	}
}

// checkLine refuses short lines if other fields were lost, or if the format has none.
func (c *Config) checkLine() error {
	switch {
	case c.Line != LineShort:
		return nil
	case !c.StructuredMetadata:
		return errors.New("short lines need structured_metadata, which then has the other fields")
	case c.Format != "" && !c.Format.HasShort():
		return fmt.Errorf("lines of format %s cannot be short; use logfmt or json", c.Format)
	}
	for _, labels := range []map[string]string{c.Labels, c.ExternalLabels} {
		for _, name := range slices.Sorted(maps.Keys(labels)) {
			if f, ok := event.ParseField(name); ok && f.IsMetadata() && labels[name] != name {
				return fmt.Errorf("with short lines, the label %q would hide the field %s; rename the label", name, name)
			}
		}
	}
	return nil
}

// httpConfigError matches the key in an error of HTTPClientConfig.Validate.
var httpConfigError = lazyregexp.New(`^(?:at most one of )?(basic_auth|authorization|oauth2) (?:([a-z_]+) must be configured$)?`)

func (c *Config) checkHTTP(bad func(key string, err error)) {
	http := c.HTTP // Validate changes it
	if err := http.Validate(); err != nil {
		key := ""
		if m := httpConfigError().FindStringSubmatch(err.Error()); m != nil {
			key = strings.TrimSuffix(m[1]+"."+m[2], ".")
		}
		bad(key, err)
	}
	proxy := func(key string, u config.URL) {
		if u.URL == nil {
			return
		}
		if err := checkAddress(u.URL, "http", "https", "socks5", "socks5h"); err != nil {
			bad(key, fmt.Errorf("%w; write it as in http://proxy:3128", err))
		}
	}
	proxy("proxy_url", c.HTTP.ProxyURL)
	if o := c.HTTP.OAuth2; o != nil {
		proxy("oauth2.proxy_url", o.ProxyURL)
		const hint = "write it as in https://idp.example/token"
		if u, err := url.Parse(o.TokenURL); err != nil {
			bad("oauth2.token_url", errors.New("is not a URL; "+hint))
		} else if err := checkAddress(u, "http", "https"); o.TokenURL != "" && err != nil {
			bad("oauth2.token_url", fmt.Errorf("%w; %s", err, hint))
		}
	}
}

// numericHost matches hosts that cannot be a DNS name, and so must be an IP address.
var numericHost = lazyregexp.New(`(^|\.)[0-9]+\.?$`)

// checkAddress checks that requests can be sent to an address. Its errors do not quote it, since it
// may contain a password.
func checkAddress(u *url.URL, schemes ...string) error {
	switch {
	case !slices.Contains(schemes, u.Scheme):
		if len(schemes) > 2 {
			return errors.New("begins with none of " + strings.Join(schemes, "://, ") + "://")
		}
		return errors.New("begins neither with " + strings.Join(schemes, ":// nor with ") + "://")
	case u.Hostname() == "":
		return errors.New("has no host")
	case strings.HasSuffix(u.Host, ":"):
		return errors.New("has no port after the colon")
	case u.Fragment != "":
		return errors.New("has a fragment (#…), which is never sent")
	case numericHost().MatchString(u.Hostname()):
		if _, err := netip.ParseAddr(u.Hostname()); err != nil {
			return errors.New("has a host that is neither an IP address nor a name")
		}
	}
	if port := u.Port(); port != "" {
		if n, err := strconv.Atoi(port); err != nil || n < 1 || n > 65535 {
			return errors.New("has a port that is not between 1 and 65535")
		}
	}
	return nil
}

// pushPath is the path of Loki's API for pushes:
// https://grafana.com/docs/loki/latest/reference/loki-http-api/#ingest-logs
const pushPath = "/loki/api/v1/push"

// Parse parses the address. Its errors do not quote it, since it may contain a password.
func (u URL) Parse() (*url.URL, error) {
	const hint = "write it as in http://loki:3100"
	if u == "" {
		return nil, errors.New("is missing; " + hint)
	}
	parsed, err := url.Parse(strings.TrimSpace(string(u)))
	if err != nil {
		return nil, errors.New("is not a URL; " + hint)
	}
	if err := checkAddress(parsed, "http", "https"); err != nil {
		return nil, fmt.Errorf("%w; %s", err, hint)
	}
	return parsed, nil
}

// endpoint returns the URL of pushes.
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

// checkTenant checks a tenant ID like Loki:
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
