package cluster

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// Bearer tokens of the users every cluster has.
const (
	AdminToken  = "admin-token"  // may do everything
	NobodyToken = "nobody-token" // authenticated, without rights, as user "nobody"
)

// URL of the API server.
func (c *Cluster) URL() string { return c.url }

// CAFile holds the certificate authority of the API server, in PEM.
func (c *Cluster) CAFile() string { return filepath.Join(c.certDir(), "apiserver.crt") }

// Config is for the admin, without a limit on requests per second.
func (c *Cluster) Config() *rest.Config { return c.ConfigFor(AdminToken) }

// ConfigFor is for whomever the bearer token is of, without a limit on requests
// per second. It stays valid over a restart, Restore and Reset, except that a
// ServiceAccount's token dies with the ServiceAccount.
func (c *Cluster) ConfigFor(token string) *rest.Config {
	return &rest.Config{
		Host:            c.url,
		BearerToken:     token,
		TLSClientConfig: rest.TLSClientConfig{CAFile: c.CAFile()},
		QPS:             -1,
	}
}

// Kubeconfig is the path of the admin's kubeconfig file.
func (c *Cluster) Kubeconfig() string { return filepath.Join(c.opts.Dir, "admin.kubeconfig") }

// WriteKubeconfig writes a kubeconfig file for whomever the bearer token is of.
func (c *Cluster) WriteKubeconfig(path, token string) error {
	const name = "test"
	config := clientcmdapi.NewConfig()
	config.Clusters[name] = &clientcmdapi.Cluster{Server: c.url, CertificateAuthority: c.CAFile()}
	config.AuthInfos[name] = &clientcmdapi.AuthInfo{Token: token}
	config.Contexts[name] = &clientcmdapi.Context{Cluster: name, AuthInfo: name}
	config.CurrentContext = name
	if err := clientcmd.WriteToFile(*config, path); err != nil {
		return fmt.Errorf("write a kubeconfig: %w", err)
	}
	return nil
}

// ServiceAccountToken returns a bearer token, valid for an hour, of a
// ServiceAccount that exists.
func (c *Cluster) ServiceAccountToken(ctx context.Context, namespace, name string) (string, error) {
	client, err := kubernetes.NewForConfig(c.Config())
	if err != nil {
		return "", fmt.Errorf("create a token for ServiceAccount %s/%s: %w", namespace, name, err)
	}
	request, err := client.CoreV1().ServiceAccounts(namespace).
		CreateToken(ctx, name, &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
	if err != nil {
		return "", fmt.Errorf("create a token for ServiceAccount %s/%s: %w", namespace, name, err)
	}
	return request.Status.Token, nil
}

// Kubectl runs kubectl as the admin and returns its standard output. An error
// includes its standard error.
func (c *Cluster) Kubectl(ctx context.Context, args ...string) ([]byte, error) {
	cmd := c.KubectlCommand(ctx, args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return stdout.Bytes(), fmt.Errorf("kubectl %q: %w: %s", args, err, bytes.TrimSpace(stderr.Bytes()))
	}
	return stdout.Bytes(), nil
}

// KubectlCommand is Kubectl for callers that want to set the input, the
// environment or where the output goes. The command is killed when ctx ends.
func (c *Cluster) KubectlCommand(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, filepath.Join(c.bin, "kubectl"), args...)
	// By variables, not flags: kubectl takes no flags ahead of a plugin's name.
	cmd.Env = append(os.Environ(),
		"KUBECONFIG="+c.Kubeconfig(),
		"KUBECACHEDIR="+filepath.Join(c.opts.Dir, "kubectl-cache"),
	)
	return cmd
}

func (c *Cluster) certDir() string         { return filepath.Join(c.opts.Dir, "certs") }
func (c *Cluster) tokenFile() string       { return filepath.Join(c.opts.Dir, "tokens.csv") }
func (c *Cluster) serviceAccounts() string { return filepath.Join(c.opts.Dir, "service-accounts.key") }

// writeCredentials writes the credential files of the API server and the admin's kubeconfig.
// The API server generates its serving certificate at its first start.
func (c *Cluster) writeCredentials() error {
	tokens := AdminToken + `,admin,admin,"system:masters"` + "\n" + NobodyToken + ",nobody,nobody\n"
	if err := os.WriteFile(c.tokenFile(), []byte(tokens), 0o600); err != nil {
		return fmt.Errorf("write the users' tokens: %w", err)
	}
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return fmt.Errorf("generate the key that signs the ServiceAccounts' tokens: %w", err)
	}
	block := &pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)}
	if err := os.WriteFile(c.serviceAccounts(), pem.EncodeToMemory(block), 0o600); err != nil {
		return fmt.Errorf("write the key that signs the ServiceAccounts' tokens: %w", err)
	}
	return c.WriteKubeconfig(c.Kubeconfig(), AdminToken)
}
