package mask

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"testing"
)

func TestURL(t *testing.T) {
	for address, want := range map[string]string{
		"http://loki:3100":                       "http://loki:3100",
		"http://u:geheim@loki:3100/push":         "http://u:xxxxx@loki:3100/push",
		"http://geheim@loki":                     "http://xxxxx@loki",
		"http://loki/push?token=geheim&b=geheim": "http://loki/push?xxxxx",
		"http://u:geheim@loki:port/":             "(not a URL)",
		"http://loki/%zz?token=geheim":           "(not a URL)",
		"u:geheim@loki":                          "u:xxxxx",
		"10.0.0.1:6443":                          "10.0.0.1:6443",
		"":                                       "",
	} {
		if got := URL(address); got != want {
			t.Errorf("%s is shown as %s, want %s", address, got, want)
		}
	}
}

func TestErrorKeepsTheCause(t *testing.T) {
	token := &url.Error{Op: "Post", URL: "https://idp/token?key=geheim", Err: context.DeadlineExceeded}
	push := &url.Error{Op: "Post", URL: "https://loki/push?key=geheim", Err: fmt.Errorf("fetch of https://idp/token?key=geheim: %w", token)}
	got := Error(fmt.Errorf("wrapped: %w", push))
	if want := "Post https://idp/token?xxxxx: context deadline exceeded"; got.Error() != want || !errors.Is(got, context.DeadlineExceeded) {
		t.Errorf("got %v, want %s", got, want)
	}
	if other := errors.New("other"); !errors.Is(Error(other), other) {
		t.Error("an error without an address was changed")
	}
}
