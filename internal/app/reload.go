package app

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/hindsight-events/hindsight/internal/config"
)

// ConfigFile is the file of a configuration.
type ConfigFile struct {
	Path  string
	Data  []byte // at the start
	Parse func(data []byte) (*config.Config, error)
}

// reloadInterval is how often the file is read. It is short beside the time in which the kubelet
// updates a mounted ConfigMap.
const reloadInterval = 5 * time.Second

// reloader notices changes of the configuration file.
type reloader struct {
	changed chan *config.Config // the newest configuration, until it is received

	successful prometheus.Gauge
	timestamp  prometheus.Gauge
}

func newReloader(reg prometheus.Registerer) *reloader {
	r := &reloader{
		changed: make(chan *config.Config, 1),
		successful: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "hindsight_config_last_reload_successful",
			Help: "Whether the last reload of the configuration file succeeded.",
		}),
		timestamp: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "hindsight_config_last_reload_success_timestamp_seconds",
			Help: "Time of the last successful reload of the configuration file.",
		}),
	}
	reg.MustRegister(r.successful, r.timestamp)
	r.succeeded()
	return r
}

// follow reads the file periodically and on SIGHUP until ctx ends. It sends changed configurations
// that a process which started with the given one can use.
func (r *reloader) follow(ctx context.Context, file ConfigFile, started *config.Config, log *slog.Logger) {
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	defer signal.Stop(hangup)
	ticker := time.NewTicker(reloadInterval)
	defer ticker.Stop()
	last, unreadable := file.Data, false
	for {
		requested := false
		select {
		case <-ticker.C:
		case <-hangup:
			requested = true
		case <-ctx.Done():
			return
		}
		data, err := os.ReadFile(file.Path)
		if err != nil {
			if !unreadable {
				r.failed(log, fmt.Errorf("read configuration: %w", err))
			}
			unreadable = true
			continue
		}
		if bytes.Equal(data, last) && !requested && !unreadable {
			continue
		}
		last, unreadable = data, false
		c, err := file.Parse(data)
		if err == nil {
			err = checkReloadable(started, c)
		}
		if err != nil {
			r.failed(log, err)
			continue
		}
		select {
		case <-r.changed: // replaced by the newer one
		default:
		}
		r.changed <- c
	}
}

// checkReloadable returns an error if a key has changed that only a restart can change.
func checkReloadable(started, c *config.Config) error {
	const restart = "cannot be changed while running; restart Hindsight"
	switch {
	case c.Listen != started.Listen:
		return fmt.Errorf("listen %s", restart)
	case c.Journal != started.Journal:
		return fmt.Errorf("journal %s", restart)
	case c.LeaderElection != started.LeaderElection:
		return fmt.Errorf("leader_election %s", restart)
	}
	return nil
}

func (r *reloader) failed(log *slog.Logger, err error) {
	r.successful.Set(0)
	log.Error("cannot reload the configuration, keeping the previous one", "err", err)
}

func (r *reloader) succeeded() {
	r.successful.Set(1)
	r.timestamp.SetToCurrentTime()
}
