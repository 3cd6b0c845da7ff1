package cluster

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
)

func (c *Cluster) etcdData() string { return filepath.Join(c.opts.Dir, "etcd") }

func (c *Cluster) etcdArgs(peerPort int) []string {
	return []string{
		"--data-dir", c.etcdData(),
		"--listen-client-urls", c.etcdURL,
		"--advertise-client-urls", c.etcdURL,
		"--listen-peer-urls", fmt.Sprintf("http://127.0.0.1:%d", peerPort),
		// The writes of a killed process survive without fsync; only the loss of
		// the machine needs it.
		"--unsafe-no-fsync",
		"--log-level", "error",
	}
}

// etcdHTTP opens a connection for each request: a kept one may lead to an etcd
// that has been restarted since.
var etcdHTTP = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}

func (c *Cluster) etcdReady(ctx context.Context) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.etcdURL+"/readyz", nil)
	if err != nil {
		return err
	}
	return etcdDo(req, nil)
}

// Revision returns etcd's current revision: the resourceVersion of the newest
// write to any object.
func (c *Cluster) Revision(ctx context.Context) (int64, error) {
	var answer struct {
		Header struct {
			Revision int64 `json:"revision,string"`
		} `json:"header"`
	}
	// No key is read; a read makes etcd confirm that it is current.
	if err := c.etcdCall(ctx, "/v3/kv/range", map[string]any{"key": []byte{0}}, &answer); err != nil {
		return 0, fmt.Errorf("get etcd's revision: %w", err)
	}
	return answer.Header.Revision, nil
}

// Compact compacts etcd at a revision. A watch from a resourceVersion below revision-1 is then
// refused with 410. One from revision-1 works, unless the write at the revision changed or deleted
// an object: its previous state is compacted, and the API server answers 500 ("PrevKv=nil").
func (c *Cluster) Compact(ctx context.Context, revision int64) error {
	request := map[string]any{"revision": strconv.FormatInt(revision, 10), "physical": true}
	if err := c.etcdCall(ctx, "/v3/kv/compaction", request, nil); err != nil {
		return fmt.Errorf("compact etcd at revision %d: %w", revision, err)
	}
	return nil
}

// etcdCall posts to etcd's JSON gateway; answer may be nil.
func (c *Cluster) etcdCall(ctx context.Context, path string, request, answer any) error {
	body, err := json.Marshal(request)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.etcdURL+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	return etcdDo(req, answer)
}

func etcdDo(req *http.Request, answer any) error {
	resp, err := etcdHTTP.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", resp.Status, bytes.TrimSpace(body))
	}
	if answer == nil {
		return nil
	}
	return json.Unmarshal(body, answer)
}

// KillEtcd ends etcd with SIGKILL. The API server keeps running.
func (c *Cluster) KillEtcd() { c.etcd.kill() }

// StartEtcd starts etcd again, at the same address with its data.
func (c *Cluster) StartEtcd(ctx context.Context) error { return c.etcd.start(ctx) }

// Snapshot is a copy of all that etcd held at one moment.
type Snapshot struct{ dir string }

// Snapshot copies etcd's data. etcd is paused with SIGSTOP for some milliseconds: its files are
// those of a crash, from which it recovers.
func (c *Cluster) Snapshot() (Snapshot, error) {
	dir, err := os.MkdirTemp(c.opts.Dir, "snapshot-*")
	if err != nil {
		return Snapshot{}, fmt.Errorf("snapshot etcd: %w", err)
	}
	if c.etcd.alive() {
		if err := c.etcd.process.Pause(); err != nil {
			return Snapshot{}, fmt.Errorf("snapshot etcd: %w", err)
		}
		defer c.etcd.process.Resume() // fails only if etcd has ended
	}
	if err := os.CopyFS(dir, os.DirFS(c.etcdData())); err != nil {
		return Snapshot{}, fmt.Errorf("snapshot etcd: %w", err)
	}
	return Snapshot{dir: dir}, nil
}

// Restore brings etcd back to an older state, as an administrator does with a
// backup: all components are killed, the data replaced, and those that ran are
// started again. Revisions, and so resourceVersions, given out since are given
// out again for other writes. A Snapshot can be restored any number of times.
func (c *Cluster) Restore(ctx context.Context, s Snapshot) error {
	err := c.replaceData(ctx, func() error { return os.CopyFS(c.etcdData(), os.DirFS(s.dir)) })
	if err != nil {
		return fmt.Errorf("restore etcd: %w", err)
	}
	return nil
}

// Reset puts another, empty cluster behind the same address, certificate and
// tokens: all components are killed, etcd's data is deleted, and those that ran
// are started again. Namespace kube-system then has another uid, and
// resourceVersions start anew.
func (c *Cluster) Reset(ctx context.Context) error {
	if err := c.replaceData(ctx, func() error { return nil }); err != nil {
		return fmt.Errorf("reset the cluster: %w", err)
	}
	return nil
}

func (c *Cluster) replaceData(ctx context.Context, fill func() error) error {
	killed := c.kill()
	if err := os.RemoveAll(c.etcdData()); err != nil {
		return err
	}
	if err := fill(); err != nil {
		return err
	}
	for _, p := range killed {
		if err := p.start(ctx); err != nil {
			return err
		}
	}
	return nil
}
