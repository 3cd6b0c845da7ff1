package main

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/pflag"
	_ "k8s.io/client-go/plugin/pkg/client/auth" // the authentication methods of kubectl
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// connection is the value of kubectl's flags for the API server.
type connection struct {
	rules     *clientcmd.ClientConfigLoadingRules
	overrides clientcmd.ConfigOverrides
}

// connectionFlags adds the flags of kubectl that choose a cluster and a user, from clientcmd.
func connectionFlags(flags *pflag.FlagSet) *connection {
	c := &connection{rules: clientcmd.NewDefaultClientConfigLoadingRules()}
	flags.StringVar(&c.rules.ExplicitPath, clientcmd.RecommendedConfigPathFlag, "", "kubeconfig `FILE` (default: as kubectl; in a cluster, the service account)")
	known := clientcmd.RecommendedConfigOverrideFlags("")
	clientcmd.BindOverrideFlags(&c.overrides, flags, clientcmd.ConfigOverrideFlags{
		CurrentContext:       known.CurrentContext,
		ClusterOverrideFlags: clientcmd.ClusterOverrideFlags{APIServer: known.ClusterOverrideFlags.APIServer},
		AuthOverrideFlags: clientcmd.AuthOverrideFlags{
			Token:       known.AuthOverrideFlags.Token,
			Impersonate: known.AuthOverrideFlags.Impersonate,
		},
	})
	return c
}

// config returns the client configuration and Hindsight's own namespace: POD_NAMESPACE, else the
// namespace of the service account or of the kubeconfig.
func (c *connection) config() (*rest.Config, string, error) {
	client := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(c.rules, &c.overrides)
	cfg, err := client.ClientConfig()
	if clientcmd.IsEmptyConfig(err) || errors.Is(err, rest.ErrNotInCluster) {
		return nil, "", errors.New("connect to Kubernetes: no kubeconfig and no service account found; set --kubeconfig or --server")
	}
	if err != nil {
		return nil, "", fmt.Errorf("connect to Kubernetes: %w", err)
	}
	c.impersonate(cfg)
	namespace, _, err := client.Namespace()
	if err != nil {
		return nil, "", fmt.Errorf("connect to Kubernetes: %w", err)
	}
	return cfg, cmp.Or(os.Getenv("POD_NAMESPACE"), serviceAccountNamespace(), namespace), nil
}

// impersonate applies --as, which clientcmd ignores for a service account.
func (c *connection) impersonate(cfg *rest.Config) {
	if user := c.overrides.AuthInfo.Impersonate; user != "" {
		cfg.Impersonate.UserName = user
	}
}

// serviceAccountNamespace returns the namespace of the service account, empty outside a cluster.
func serviceAccountNamespace() string {
	b, err := os.ReadFile("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

// defaultNamespace returns the namespace that kubectl would use without flags.
func defaultNamespace(rules clientcmd.ClientConfigLoader, overrides *clientcmd.ConfigOverrides) (string, error) {
	namespace, _, err := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, overrides).Namespace()
	if err != nil && !clientcmd.IsEmptyConfig(err) {
		return "", fmt.Errorf("find the default namespace: %w; set -n or -A", err)
	}
	return cmp.Or(namespace, "default"), nil
}
