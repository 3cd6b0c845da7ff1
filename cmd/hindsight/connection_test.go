package main

import (
	"testing"

	"github.com/spf13/pflag"
	"k8s.io/client-go/rest"
)

// --as also applies to a service account, for which clientcmd ignores it.
func TestImpersonationWithAServiceAccount(t *testing.T) {
	flags := pflag.NewFlagSet("run", pflag.ContinueOnError)
	c := connectionFlags(flags)
	if err := flags.Parse([]string{"--as", "system:serviceaccount:monitoring:reader"}); err != nil {
		t.Fatal(err)
	}
	var inCluster rest.Config
	c.impersonate(&inCluster)
	if got := inCluster.Impersonate.UserName; got != "system:serviceaccount:monitoring:reader" {
		t.Errorf("impersonates %q", got)
	}
}
