package main

import (
	"strings"
	"testing"
)

func TestAPodPreemptedTwiceIsCountedOnce(t *testing.T) {
	p := preemption{
		event: "e", podUID: "v",
		by:     pod{"dedicated-metrics", "ingester-79b5894fc8-lh625"},
		victim: pod{"prod-metrics", "querier-54d454dbd9-x884b"},
	}
	var out strings.Builder
	d := &demo{out: &out}
	d.tellWho([]preemption{p, p})
	want := "       1  dedicated-metrics/ingester  preempted  prod-metrics/querier\n"
	if !strings.HasSuffix(out.String(), "\n\n"+want) {
		t.Errorf("printed\n%s\nwant the line\n%s", out.String(), want)
	}
}

func TestMessageOf(t *testing.T) {
	for _, test := range []struct{ name, line, want string }{
		{"quoted", `reason=Pulled msg="Container image \"a:1\" already present" event=x`, `Container image "a:1" already present`},
		{"a word", `reason=Created msg=Created event=x`, "Created"},
		{"none", `reason=Starting event=x`, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := messageOf(test.line); got != test.want {
				t.Errorf("message %q, want %q", got, test.want)
			}
		})
	}
}
