//go:build e2e

package fakeloki_test

import (
	"testing"
	"time"

	"github.com/hindsight-events/hindsight/test/cluster"
	"github.com/hindsight-events/hindsight/test/fakeloki"
)

// A real Loki answers as the fake does.
func TestContractOfLoki(t *testing.T) {
	contract(t, func(t *testing.T, o fakeloki.Options) string {
		limits := map[string]any{}
		set := func(name string, value any, isSet bool) {
			if isSet {
				limits[name] = value
			}
		}
		l := o.Limits
		const mb = 1 << 20
		set("ingestion_rate_mb", float64(l.IngestionRate)/mb, l.IngestionRate > 0)
		set("ingestion_burst_size_mb", float64(l.IngestionBurst)/mb, l.IngestionBurst > 0)
		set("per_stream_rate_limit", l.PerStreamRate, l.PerStreamRate > 0)
		set("per_stream_rate_limit_burst", l.PerStreamBurst, l.PerStreamBurst > 0)
		set("max_global_streams_per_user", l.MaxStreams, l.MaxStreams > 0)
		set("allow_structured_metadata", false, l.DisallowStructuredMetadata)
		set("block_ingestion_until", l.BlockIngestionUntil.UTC().Format(time.RFC3339), !l.BlockIngestionUntil.IsZero())
		return cluster.LokiForTest(t, cluster.LokiOptions{Auth: o.Auth, Limits: limits}).URL()
	})
}
