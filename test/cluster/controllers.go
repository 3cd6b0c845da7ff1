package cluster

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
)

// StartScheduler starts kube-scheduler and returns when it is ready.
func (c *Cluster) StartScheduler(ctx context.Context) error {
	if c.scheduler.alive() {
		return errors.New("start kube-scheduler: it runs already")
	}
	port, err := FreePort()
	if err != nil {
		return fmt.Errorf("start kube-scheduler: %w", err)
	}
	c.scheduler = c.newComponent("kube-scheduler", c.controllerArgs(port), healthy(port))
	return c.scheduler.start(ctx)
}

// StartControllerManager starts kube-controller-manager with the controllers
// named, such as "deployment-controller", and returns when it is ready.
func (c *Cluster) StartControllerManager(ctx context.Context, controllers ...string) error {
	if c.controllerManager.alive() {
		return errors.New("start kube-controller-manager: it runs already")
	}
	port, err := FreePort()
	if err != nil {
		return fmt.Errorf("start kube-controller-manager: %w", err)
	}
	args := append(c.controllerArgs(port), "--controllers="+strings.Join(controllers, ","))
	c.controllerManager = c.newComponent("kube-controller-manager", args, healthy(port))
	return c.controllerManager.start(ctx)
}

func (c *Cluster) controllerArgs(port int) []string {
	return []string{
		"--kubeconfig=" + c.Kubeconfig(),
		"--leader-elect=false",
		"--bind-address=127.0.0.1",
		"--secure-port=" + strconv.Itoa(port),
	}
}

// healthHTTP trusts any certificate: the components sign their own, in memory.
var healthHTTP = &http.Client{Transport: &http.Transport{
	DisableKeepAlives: true,
	TLSClientConfig:   &tls.Config{InsecureSkipVerify: true},
}}

func healthy(port int) func(context.Context) error {
	return func(ctx context.Context) error {
		url := fmt.Sprintf("https://127.0.0.1:%d/healthz", port)
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return err
		}
		resp, err := healthHTTP.Do(req)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return fmt.Errorf("get /healthz: %s", resp.Status)
		}
		return nil
	}
}
