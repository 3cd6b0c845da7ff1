package quantity_test

import (
	"strings"
	"testing"
	"time"

	"gopkg.in/yaml.v3"

	"github.com/hindsight-events/hindsight/internal/quantity"
)

func TestSize(t *testing.T) {
	for text, want := range map[string]struct {
		bytes   quantity.Size
		printed string
	}{
		"1GiB":   {1 << 30, "1GiB"},
		"1.5GiB": {3 << 29, "1536MiB"},
		"512KiB": {512 << 10, "512KiB"},
		"1MB":    {1_000_000, "1000000B"},
		"100":    {100, "100B"},
		"0":      {0, "0B"},
	} {
		got, err := quantity.ParseSize(text)
		if err != nil || got != want.bytes {
			t.Errorf("%s is %d, %v; want %d", text, got, err, want.bytes)
		}
		if got.String() != want.printed {
			t.Errorf("%s is printed as %s, want %s", text, got, want.printed)
		}
		if again, err := quantity.ParseSize(got.String()); err != nil || again != got {
			t.Errorf("%s is read as %d, %v; want %d", got, again, err, got)
		}
	}
	for _, text := range []string{"", "lots", "-1MiB", "1QiB", "99999999999GiB"} {
		if got, err := quantity.ParseSize(text); err == nil {
			t.Errorf("%q was accepted as %d", text, got)
		}
	}
}

func TestRate(t *testing.T) {
	for text, want := range map[string]struct {
		bytes   quantity.Rate
		printed string
	}{
		"3.6MiB/s": {3774873, "3.6MiB/s"},
		"1GiB/s":   {1 << 30, "1GiB/s"},
		"768KiB/s": {768 << 10, "768KiB/s"},
		"4MB/s":    {4_000_000, "3906.25KiB/s"},
		"100 KB/s": {100_000, "100000B/s"},
		"500/s":    {500, "500B/s"},
		"1025B/s":  {1025, "1025B/s"},
		"0":        {0, "0B/s"},
	} {
		got, err := quantity.ParseRate(text)
		if err != nil || got != want.bytes {
			t.Errorf("%s is %d, %v; want %d", text, got, err, want.bytes)
		}
		if again, err := quantity.ParseRate(got.String()); err != nil || again != got {
			t.Errorf("%s is read as %d, %v; want %d", got, again, err, got)
		}
		if got.String() != want.printed {
			t.Errorf("%s is printed as %s, want %s", text, got, want.printed)
		}
	}
	for _, text := range []string{"", "3.6MiB", "fast", "-1MiB/s", "1MiB/m", "/s"} {
		if got, err := quantity.ParseRate(text); err == nil {
			t.Errorf("%q was accepted as %d", text, got)
		}
	}
}

func TestDuration(t *testing.T) {
	for text, want := range map[string]struct {
		d       time.Duration
		printed string
	}{
		"10s":    {10 * time.Second, "10s"},
		"1.5s":   {1500 * time.Millisecond, "1.5s"},
		"1h30m":  {90 * time.Minute, "1h30m"},
		"24h":    {24 * time.Hour, "24h"},
		"7d":     {168 * time.Hour, "168h"},
		"1h0m5s": {time.Hour + 5*time.Second, "1h0m5s"},
		"0s":     {0, "0s"},
	} {
		got, err := quantity.ParseDuration(text)
		if err != nil || time.Duration(got) != want.d {
			t.Errorf("%s is %v, %v; want %v", text, time.Duration(got), err, want.d)
		}
		if got.String() != want.printed {
			t.Errorf("%s is printed as %s, want %s", text, got, want.printed)
		}
	}
	for _, text := range []string{"", "10", "-10s", "soon"} {
		if got, err := quantity.ParseDuration(text); err == nil {
			t.Errorf("%q was accepted as %v", text, got)
		}
	}
}

func TestErrorsNameTheLine(t *testing.T) {
	var c struct {
		Size quantity.Size
		Wait quantity.Duration
	}
	err := yaml.Unmarshal([]byte("size: big\nwait: [1s]\n"), &c)
	if err == nil || !strings.Contains(err.Error(), `line 1: "big" is not a size`) || !strings.Contains(err.Error(), "line 2: want a single value") {
		t.Errorf("got %v, want both lines", err)
	}
}
