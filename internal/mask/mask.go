// Package mask replaces parts of addresses that may be secret, before logs, errors and
// printed configurations show them.
package mask

import (
	"errors"
	"fmt"
	"net/url"
	"strings"
)

// hidden replaces a secret, as in net/url. It can be part of a URL.
const hidden = "xxxxx"

// URL returns the address with xxxxx in place of its password, of a user without a
// password, which may be a token, and of its query. An address that has one of
// these and cannot be parsed is not shown at all.
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

// ParsedURL is URL for one that was parsed; it returns a copy.
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

// Error returns the reason why a request failed, without the address of the request,
// which errors of net/http quote with its query. The address of a request that was
// made on its behalf, such as one for a token, is masked.
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
