package loki_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"gopkg.in/yaml.v3"

	"github.com/hindsight-events/hindsight/internal/quantity"
	"github.com/hindsight-events/hindsight/sink/loki"
)

func parse(text string) (c loki.Config, err error) {
	dec := yaml.NewDecoder(strings.NewReader(text))
	dec.KnownFields(true)
	err = dec.Decode(&c)
	return c, err
}

// check returns the errors of a configuration, one a line.
func check(c loki.Config) string {
	var all []string
	c.Check("prod", func(key string, err error) { all = append(all, fmt.Sprintf("%s: %v", key, err)) })
	return strings.Join(all, "\n")
}

func TestConfigDefaults(t *testing.T) {
	t.Parallel()
	got, err := parse("url: http://loki:3100")
	if err != nil {
		t.Fatal(err)
	}
	printed, err := yaml.Marshal(got)
	if err != nil {
		t.Fatal(err)
	}
	const want = `url: http://loki:3100
format: logfmt
line: full
job: hindsight
labels:
    namespace: namespace
    reason: reason
max_rate: 3.6MiB/s
batch_wait: 1s
normal_batch_wait: 4s
timeout: 10s
structured_metadata: true
follow_redirects: true
enable_http2: true
`
	if string(printed) != want {
		t.Errorf("got\n%s\nwant\n%s", printed, want)
	}
	if problems := check(got); problems != "" {
		t.Errorf("the defaults are invalid: %s", problems)
	}
}

func TestConfigWithEverything(t *testing.T) {
	t.Parallel()
	c, err := parse(`
url: https://loki.example
tenant_id: team-a
format: json
job: events
labels: {namespace: namespace, reason: reason, level: type}
external_labels: {region: eu}
max_rate: 500KiB/s
batch_wait: 250ms
timeout: 1m
structured_metadata: false
basic_auth: {username: hindsight, password_file: /run/secrets/password}
tls_config: {ca_file: /etc/ca.pem, cert_file: /etc/cert.pem, key_file: /etc/key.pem}
proxy_url: http://proxy:3128
`)
	if err != nil {
		t.Fatal(err)
	}
	if problems := check(c); problems != "" {
		t.Errorf("invalid: %s", problems)
	}
	if c.NormalBatchWait != quantity.Duration(time.Second) {
		t.Errorf("normal_batch_wait is %s by default, want four times batch_wait", c.NormalBatchWait)
	}
	if c.HTTP.BasicAuth.PasswordFile != "/run/secrets/password" || c.HTTP.TLSConfig.CAFile != "/etc/ca.pem" ||
		c.HTTP.ProxyURL.Host != "proxy:3128" {
		t.Errorf("got %+v", c.HTTP)
	}
}

func TestShortLineConfig(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		"{url: http://loki, line: short}",
		"{url: http://loki, line: short, format: json, labels: {ns: namespace, kind: kind}, external_labels: {region: eu}}",
		"{url: http://loki, line: full, structured_metadata: false}",
		"{url: http://loki, labels: {name: component}}",
	} {
		c, err := parse(text)
		if err != nil || check(c) != "" {
			t.Errorf("%s: %v %s", text, err, check(c))
		}
	}
}

func TestBadConfig(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"{url: http://loki, line: short, structured_metadata: false}": "line: short lines need structured_metadata, which then has the other fields",
		"{url: http://loki, line: short, format: text}":               "line: lines of format text cannot be short; use logfmt or json",
		"{url: http://loki, line: short, format: eventrouter}":        "line: lines of format eventrouter cannot be short; use logfmt or json",
		"{url: http://loki, line: short, labels: {name: component}}":  `line: with short lines, the label "name" would hide the field name; rename the label`,
		"{url: http://loki, line: short, external_labels: {node: a}}": `line: with short lines, the label "node" would hide the field node; rename the label`,
		"url:":                                         "url: is missing; write it as in http://loki:3100",
		"url: loki:3100":                               "url: begins neither with http:// nor with https://; write it as in http://loki:3100",
		"url: http://":                                 "url: has no host; write it as in http://loki:3100",
		"url: 'http://:3100'":                          "url: has no host; write it as in http://loki:3100",
		"url: 'http://u:geheim@loki:port/'":            "url: is not a URL; write it as in http://loki:3100",
		"url: 'http://loki/#push'":                     "url: has a fragment (#…), which is never sent; write it as in http://loki:3100",
		"{url: http://loki, tenant_id: a/b}":           "tenant_id: '/' is not allowed in a tenant's name",
		"{url: http://loki, tenant_id: a|b}":           "tenant_id: '|' is not allowed in a tenant's name",
		"{url: http://loki, job: ''}":                  "job: job is empty",
		"{url: http://loki, labels: {pod: name}}":      `labels.pod: label "pod": "name" cannot be a label; valid are namespace, reason, kind, type, component and node`,
		"{url: http://loki, max_rate: 10/s}":           "max_rate: 10B/s is too little; it must be at least 1KiB/s, or 0 for no bound",
		"{url: http://loki, timeout: 0s}":              "timeout: must be more than 0s",
		"{url: http://loki, timeout: 2h}":              "timeout: 2h is too long; it must be at most 1h",
		"{url: http://loki, batch_wait: 7d}":           "batch_wait: 168h is not between 0s and 1h",
		"{url: http://loki, normal_batch_wait: 999ms}": "normal_batch_wait: 999ms is not between batch_wait, 1s, and 1h",
		"url: http://10.0.0.256":                       "url: has a host that is neither an IP address nor a name; write it as in http://loki:3100",
		"{url: http://loki, oauth2: {client_id: a, client_secret: b, token_url: 'https://idp/#geheim'}}": "oauth2.token_url: has a fragment (#…), which is never sent; write it as in https://idp.example/token",
		"url: http://loki:99999":                                       "url: has a port that is not between 1 and 65535; write it as in http://loki:3100",
		"url: 'http://loki:0'":                                         "url: has a port that is not between 1 and 65535; write it as in http://loki:3100",
		"url: 'http://http://loki'":                                    "url: has no port after the colon; write it as in http://loki:3100",
		"{url: http://loki, external_labels: {a-b: x}}":                `external_labels.a-b: external label "a-b": a label's name is made of letters, digits and _, and does not begin with a digit`,
		"{url: http://loki, proxy_url: proxy:3128}":                    "proxy_url: begins with none of http://, https://, socks5://, socks5h://; write it as in http://proxy:3128",
		"{url: http://loki, proxy_url: 'http://u:geheim@proxy:70000'}": "proxy_url: has a port that is not between 1 and 65535; write it as in http://proxy:3128",
		"{url: http://loki, oauth2: {client_id: a, client_secret: geheim, token_url: 'idp/?key=geheim'}}":     "oauth2.token_url: begins neither with http:// nor with https://; write it as in https://idp.example/token",
		"{url: http://loki, oauth2: {client_id: a, client_secret: geheim, token_url: 'http://u:geheim@:x'}}":  "oauth2.token_url: is not a URL; write it as in https://idp.example/token",
		"{url: http://loki, oauth2: {client_secret: geheim, token_url: 'https://idp'}}":                       "oauth2.client_id: oauth2 client_id must be configured",
		"{url: http://loki, oauth2: {client_id: a, token_url: 'https://idp', proxy_url: 'ftp://u:geheim@p'}}": "oauth2.proxy_url: begins with none of http://, https://, socks5://, socks5h://; write it as in http://proxy:3128",
		"{url: http://loki, basic_auth: {username: a, password: geheim, password_file: b}}":                   "basic_auth: at most one of basic_auth password, password_file & password_ref must be configured",
		"{url: http://loki, authorization: {type: basic, credentials: geheim}}":                               `authorization: authorization type cannot be set to "basic", use "basic_auth" instead`,
		"{url: http://loki, bearer_token: geheim, basic_auth: {username: u}}":                                 ": at most one of basic_auth, oauth2, bearer_token & bearer_token_file must be configured",
		"{url: 'http://u:geheim@loki', basic_auth: {username: u}}":                                            "url: there are credentials in it and in other keys; give them once",
	} {
		c, err := parse(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if got := check(c); got != want {
			t.Errorf("%s: got %q, want %q", text, got, want)
		}
		if _, err := loki.New(c, loki.Options{Cluster: "prod"}); err == nil || strings.Contains(err.Error(), "geheim") {
			t.Errorf("%s: New returned %v, want an error without a secret", text, err)
		}
	}
	for _, text := range []string{"{url: http://loki, tenant: a}", "{url: http://loki, format: xml}", "{url: http://loki, line: brief}", "{url: http://loki, line: ''}", "{url: http://loki, max_rate: 3MiB}", "{url: http://loki, basic_auth: {user: a}}"} {
		if _, err := parse(text); err == nil {
			t.Errorf("%s: no error", text)
		}
	}
}

func TestSecretsAreNotPrinted(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{
		"password":            "{url: http://loki, basic_auth: {username: u, password: geheim}}",
		"in the url":          "{url: 'http://u:geheim@loki/'}",
		"user of the url":     "{url: 'http://geheim@loki/'}",
		"query of the url":    "{url: 'http://loki/push?token=geheim&tenant=geheim'}",
		"invalid url":         "{url: 'http://u:geheim@loki:port/?token=geheim'}",
		"bearer token":        "{url: http://loki, bearer_token: geheim}",
		"authorization":       "{url: http://loki, authorization: {credentials: geheim}}",
		"oauth2":              "{url: http://loki, oauth2: {client_id: a, client_secret: geheim, token_url: http://t}}",
		"oauth2 key":          "{url: http://loki, oauth2: {client_id: a, client_certificate_key: geheim, token_url: http://t}}",
		"token url":           "{url: http://loki, oauth2: {client_id: a, token_url: 'http://u:geheim@t/?key=geheim'}}",
		"endpoint parameter":  "{url: http://loki, oauth2: {client_id: a, token_url: http://t, endpoint_params: {resource: geheim}}}",
		"oauth2 proxy":        "{url: http://loki, oauth2: {client_id: a, token_url: http://t, proxy_url: 'http://u:geheim@proxy/?a=geheim'}}",
		"oauth2 proxy header": "{url: http://loki, oauth2: {client_id: a, token_url: http://t, proxy_url: 'http://proxy', proxy_connect_header: {X: [geheim]}}}",
		"oauth2 tls key":      "{url: http://loki, oauth2: {client_id: a, token_url: http://t, tls_config: {cert: a, key: geheim}}}",
		"tls key":             "{url: http://loki, tls_config: {cert: a, key: geheim}}",
		"proxy":               "{url: http://loki, proxy_url: 'http://u:geheim@proxy'}",
		"query of the proxy":  "{url: http://loki, proxy_url: 'http://proxy/?token=geheim'}",
		"proxy header":        "{url: http://loki, proxy_url: 'http://proxy', proxy_connect_header: {X: [geheim]}}",
		"header":              "{url: http://loki, http_headers: {X-Token: {secrets: [geheim]}}}",
	} {
		t.Run(name, func(t *testing.T) {
			c, err := parse(text)
			if err != nil {
				t.Fatal(err)
			}
			printed, err := yaml.Marshal(c)
			if err != nil {
				t.Fatal(err)
			}
			for _, text := range []string{string(printed), fmt.Sprint(c), fmt.Sprintf("%+v", c), fmt.Sprint(&c), fmt.Sprintf("%v", []loki.Config{c}), check(c)} {
				if strings.Contains(text, "geheim") {
					t.Errorf("a secret is in\n%s", text)
				}
			}
		})
	}
}
