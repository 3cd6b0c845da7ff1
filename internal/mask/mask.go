// Package mask hides the secrets in addresses for logs, errors and printed configurations.
package mask

import (
	"errors"
	"fmt"
	"net/url"
	"strings"
)

// hidden replaces a secret, as in net/url. It can be part of a URL.
const hidden = "xxxxx"

// URL returns the address with xxxxx in place of its password, a user without password
// (which may be a token), and its query. It returns no part of an address that may have
// these and cannot be parsed.
func URL(address string) string {
	if !strings.ContainsAny(address, "@?") {
		return address
	}
	u, err := url.Parse(strings.TrimSpace(address))
	if err != nil {
		return "(not a URL)"
	}
	return ParsedURL(u).String()
}

// ParsedURL is URL for a parsed address. It returns a copy.
func ParsedURL(u *url.URL) *url.URL {
	masked := *u
	if u.User != nil {
		masked.User = url.User(hidden)
		if _, ok := u.User.Password(); ok {
			masked.User = url.UserPassword(u.User.Username(), hidden)
		}
	}
	if u.RawQuery != "" {
		masked.RawQuery = hidden
	}
	if u.Opaque != "" { // as in user:password@host, without a scheme
		masked.Opaque = hidden
	}
	return &masked
}

// Error returns the cause of a failed request, without the URL that net/http adds to the
// error. The URL of a nested request, such as the one for a token, is masked.
func Error(err error) error {
	var request *url.Error
	if !errors.As(err, &request) {
		return err
	}
	return masked(request.Err)
}

func masked(err error) error {
	var request *url.Error
	if !errors.As(err, &request) {
		return err
	}
	return fmt.Errorf("%s %s: %w", request.Op, URL(request.URL), masked(request.Err))
}
