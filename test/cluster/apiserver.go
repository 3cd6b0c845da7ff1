package cluster

import (
	"context"
	"fmt"
	"strconv"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

func (c *Cluster) apiServerArgs(port int) []string {
	const issuer = "https://kubernetes.default.svc"
	args := []string{
		"--etcd-servers=" + c.etcdURL,
		"--etcd-compaction-interval=" + c.opts.CompactionInterval.String(),
		"--event-ttl=" + c.opts.EventTTL.String(),
		"--bind-address=127.0.0.1",
		"--secure-port=" + strconv.Itoa(port),
		// Without this the API server looks for a default route, which a machine
		// without a network does not have. A loopback address is not allowed in the
		// endpoints of Service "kubernetes".
		"--advertise-address=127.0.0.1",
		"--endpoint-reconciler-type=none",
		"--cert-dir=" + c.certDir(),
		"--token-auth-file=" + c.tokenFile(),
		"--service-account-issuer=" + issuer,
		"--service-account-key-file=" + c.serviceAccounts(),
		"--service-account-signing-key-file=" + c.serviceAccounts(),
		"--service-cluster-ip-range=10.0.0.0/24",
		"--authorization-mode=RBAC",
		// Pods need no ServiceAccount and new Nodes no controller that finds
		// them ready: neither controller runs here.
		"--disable-admission-plugins=ServiceAccount,TaintNodesByCondition",
	}
	return append(args, c.opts.APIServerFlags...)
}

// apiServerReady also waits for the default namespaces: the API server creates them after
// /readyz answers ok.
func (c *Cluster) apiServerReady(ctx context.Context) error {
	client, err := kubernetes.NewForConfig(c.Config())
	if err != nil {
		return err // the certificate has not been written yet
	}
	if err := client.Discovery().RESTClient().Get().AbsPath("/readyz").Do(ctx).Error(); err != nil {
		return fmt.Errorf("get /readyz: %w", err)
	}
	for _, name := range []string{metav1.NamespaceDefault, metav1.NamespaceSystem} {
		if _, err := client.CoreV1().Namespaces().Get(ctx, name, metav1.GetOptions{}); err != nil {
			return fmt.Errorf("get namespace %s: %w", name, err)
		}
	}
	return nil
}

// KillAPIServer ends the API server with SIGKILL, as a node that is lost does.
func (c *Cluster) KillAPIServer() { c.apiServer.kill() }

// StopAPIServer ends the API server with SIGTERM, as an upgrade does: it answers
// the requests in flight first. Watches it keeps open for a minute, or, with
// --shutdown-watch-termination-grace-period among its flags, ends within that
// time. If ctx ends first, it is killed, and an error is returned.
func (c *Cluster) StopAPIServer(ctx context.Context) error {
	p, err := c.apiServer.running("stop")
	if err != nil {
		return err
	}
	c.apiServer.process = nil
	return p.Terminate(ctx)
}

// StartAPIServer starts the API server again, at the same address with the same
// certificate, and returns when it is ready.
func (c *Cluster) StartAPIServer(ctx context.Context) error { return c.apiServer.start(ctx) }

// RestartAPIServer is KillAPIServer and StartAPIServer.
func (c *Cluster) RestartAPIServer(ctx context.Context) error {
	c.KillAPIServer()
	return c.StartAPIServer(ctx)
}

// PauseAPIServer stops the API server with SIGSTOP: connections stay open, new
// ones are accepted by the kernel, and nothing is answered.
func (c *Cluster) PauseAPIServer() error { return c.apiServer.pause() }

// ResumeAPIServer ends a pause.
func (c *Cluster) ResumeAPIServer() error { return c.apiServer.resume() }
