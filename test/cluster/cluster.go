// Package cluster runs a real Kubernetes control plane for tests: etcd, the API
// server and, where wanted, the scheduler and the controller manager, built from
// source and listening on loopback ports. There are no kubelets: pods are
// scheduled, never run.
//
// Faults of production clusters can be injected: the API server killed, paused and restarted,
// etcd stopped, compacted, restored from a backup, or replaced with the etcd of another cluster.
// It runs on Linux and other Unix systems.
package cluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// Options of a cluster.
type Options struct {
	// Dir holds all data and logs. It is created if need be, and left in place.
	Dir string
	// EventTTL is --event-ttl of the API server; 0: the default of an hour.
	EventTTL time.Duration
	// CompactionInterval is how often the API server compacts etcd. 0 is never:
	// Compact alone does.
	CompactionInterval time.Duration
	// APIServerFlags are added at the end of the API server's own.
	APIServerFlags []string
}

// Cluster is a running control plane. The methods that start, stop or change
// components may not be called concurrently; the others may, at any time.
type Cluster struct {
	opts Options
	bin  string // the folder of the binaries

	etcdURL string
	url     string

	etcd              *component
	apiServer         *component
	scheduler         *component
	controllerManager *component
}

// Start builds the binaries (see Build, minutes the first time), starts etcd and the API server,
// and waits until both are ready (seconds). ctx limits the start only: the cluster ends with
// Stop or with this process.
func Start(ctx context.Context, o Options) (*Cluster, error) {
	c, err := newCluster(ctx, o)
	if err != nil {
		return nil, fmt.Errorf("start a cluster: %w", err)
	}
	for _, p := range []*component{c.etcd, c.apiServer} {
		if err := p.start(ctx); err != nil {
			c.Stop()
			return nil, fmt.Errorf("start a cluster: %w", err)
		}
	}
	return c, nil
}

func newCluster(ctx context.Context, o Options) (*Cluster, error) {
	if o.Dir == "" {
		return nil, errors.New("no directory given")
	}
	dir, err := filepath.Abs(o.Dir)
	if err != nil {
		return nil, err
	}
	o.Dir = dir
	if o.EventTTL == 0 {
		o.EventTTL = time.Hour
	}
	bin, err := Build(ctx, "kube")
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	var ports [3]int // etcd, its peers, the API server
	for i := range ports {
		if ports[i], err = FreePort(); err != nil {
			return nil, err
		}
	}
	c := &Cluster{opts: o, bin: bin}
	c.etcdURL = fmt.Sprintf("http://127.0.0.1:%d", ports[0])
	c.url = fmt.Sprintf("https://127.0.0.1:%d", ports[2])
	if err := c.writeCredentials(); err != nil {
		return nil, err
	}
	c.etcd = c.newComponent("etcd", c.etcdArgs(ports[1]), c.etcdReady)
	c.apiServer = c.newComponent("kube-apiserver", c.apiServerArgs(ports[2]), c.apiServerReady)
	return c, nil
}

// Stop kills all components and waits until they have ended. The directory stays
// as it is. Stop may be called again.
func (c *Cluster) Stop() { c.kill() }

// kill ends all that runs, in the reverse order of starting, and returns it in
// the order of starting.
func (c *Cluster) kill() []*component {
	var killed []*component
	for _, p := range []*component{c.controllerManager, c.scheduler, c.apiServer, c.etcd} {
		if p != nil && p.process != nil {
			p.kill()
			killed = append([]*component{p}, killed...)
		}
	}
	return killed
}

// component is one program of the control plane; it may be started again after
// it was killed, at the same address.
type component struct {
	name    string
	binary  string
	dir     string // working directory; empty for that of the tests
	logPath string
	args    []string
	ready   func(context.Context) error
	process *Process // nil while it does not run
}

func (c *Cluster) newComponent(name string, args []string, ready func(context.Context) error) *component {
	return &component{
		name:    name,
		binary:  filepath.Join(c.bin, name),
		logPath: filepath.Join(c.opts.Dir, name+".log"),
		args:    args,
		ready:   ready,
	}
}

// start returns when the component is ready; if it does not become so, it is
// killed.
func (p *component) start(ctx context.Context) error {
	if p.alive() {
		return fmt.Errorf("start %s: it is already running", p.name)
	}
	cmd := exec.Command(p.binary, p.args...)
	cmd.Dir = p.dir
	process, err := StartCommand(p.name, p.logPath, cmd)
	if err != nil {
		return err
	}
	if err := process.WaitReady(ctx, p.ready); err != nil {
		process.Kill()
		return fmt.Errorf("start %w", err)
	}
	p.process = process
	return nil
}

// alive is false also if the component has ended by itself.
func (p *component) alive() bool {
	if p == nil || p.process == nil {
		return false
	}
	select {
	case <-p.process.Done():
		return false
	default:
		return true
	}
}

// kill does nothing if the component does not run.
func (p *component) kill() {
	if p.process != nil {
		p.process.Kill()
		p.process = nil
	}
}

// running returns the process, or an error that names the verb.
func (p *component) running(verb string) (*Process, error) {
	if !p.alive() {
		return nil, fmt.Errorf("%s %s: it does not run", verb, p.name)
	}
	return p.process, nil
}

// pause stops it with SIGSTOP: its connections stay open and it answers nothing.
func (p *component) pause() error {
	process, err := p.running("pause")
	if err != nil {
		return err
	}
	return process.Pause()
}

func (p *component) resume() error {
	process, err := p.running("resume")
	if err != nil {
		return err
	}
	return process.Resume()
}

// LogPath is the file with the output of a component: "etcd", "kube-apiserver",
// "kube-scheduler", "kube-controller-manager".
func (c *Cluster) LogPath(component string) string {
	return filepath.Join(c.opts.Dir, component+".log")
}
