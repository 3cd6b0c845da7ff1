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

// ConfigFile is where a configuration is from.
type ConfigFile struct {
	Path  string
	Data  []byte // what it held
	Parse func(data []byte) (*config.Config, error)
}

// lookEvery is how often the configuration file is looked at. A ConfigMap that
// was changed takes the kubelet longer to bring here.
const lookEvery = 5 * time.Second

// reloads finds out when a configuration has changed.
type reloads struct {
	next chan *config.Config // the newest one that has not been taken over

	successful prometheus.Gauge
	at         prometheus.Gauge
}

func newReloads(reg prometheus.Registerer) *reloads {
	r := &reloads{
		next: make(chan *config.Config, 1),
		successful: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "hindsight_config_last_reload_successful",
			Help: "Whether the configuration file as it is now is in use.",
		}),
		at: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "hindsight_config_last_reload_success_timestamp_seconds",
			Help: "When the configuration in use was read.",
		}),
	}
	reg.MustRegister(r.successful, r.at)
	r.succeeded()
	return r
}

// follow looks at the file, also when SIGHUP comes, until ctx ends. What it
// finds is sent to next if it can be taken over by a process that started with
// the configuration given.
func (r *reloads) follow(ctx context.Context, file ConfigFile, started *config.Config, log *slog.Logger) {
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	defer signal.Stop(hangup)
	ticker := time.NewTicker(lookEvery)
	defer ticker.Stop()
	last, unreadable := file.Data, false
	for {
		asked := false
		select {
		case <-ticker.C:
		case <-hangup:
			asked = true
		case <-ctx.Done():
			return
		}
		data, err := os.ReadFile(file.Path)
		if err != nil {
			if !unreadable {
				r.refused(log, fmt.Errorf("read configuration: %w", err))
			}
			unreadable = true
			continue
		}
		if bytes.Equal(data, last) && !asked && !unreadable {
			continue
		}
		last, unreadable = data, false
		c, err := file.Parse(data)
		if err == nil {
			err = changeable(started, c)
		}
		if err != nil {
			r.refused(log, err)
			continue
		}
		select {
		case <-r.next: // a newer one takes its place
		default:
		}
		r.next <- c
	}
}

// changeable returns an error that says what of a configuration cannot be taken
// over by a process that started with another one.
func changeable(started, c *config.Config) error {
	const restart = "cannot be changed while running; it takes a restart"
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

// refused says that a configuration is not taken over.
func (r *reloads) refused(log *slog.Logger, err error) {
	r.successful.Set(0)
	log.Error("the configuration was changed, but is not taken over; the old one stays", "err", err)
}

func (r *reloads) succeeded() {
	r.successful.Set(1)
	r.at.SetToCurrentTime()
}
