package journal

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

func TestLag(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		j, err := NewMemory(Options{Consumers: consumers("a")})
		if err != nil {
			t.Fatal(err)
		}
		defer j.Close()
		c := mustConsumer(t, j, "a")
		check := func(state string, behind uint64, lag time.Duration) {
			t.Helper()
			if got := j.Stats().Consumers["a"]; got.Behind != behind || got.Lag != lag {
				t.Errorf("%s: behind by %d and %v, want %d and %v", state, got.Behind, got.Lag, behind, lag)
			}
		}
		check("empty", 0, 0)
		mustAppend(t, j, record(1, 10))
		time.Sleep(time.Minute)
		check("not read", 1, time.Minute)
		mustAppend(t, j, record(2, 10))
		first := read(t, c, 1)
		time.Sleep(time.Minute)
		check("one read", 2, 2*time.Minute)
		ackAll(t, c, first)
		check("one acknowledged", 1, time.Minute)
		ackAll(t, c, read(t, c, 1))
		check("all acknowledged", 0, 0)
	})
}

func TestMetrics(t *testing.T) {
	t.Parallel()
	reg := prometheus.NewRegistry()
	j, err := NewMemory(Options{Consumers: consumers("a", "b"), Registerer: reg})
	if err != nil {
		t.Fatal(err)
	}
	mustAppend(t, j, records(1, 3, 10)...)
	a := mustConsumer(t, j, "a")
	ackAll(t, a, read(t, a, 2))
	want := `
# HELP hindsight_journal_records Records kept in the journal for some sink.
# TYPE hindsight_journal_records gauge
hindsight_journal_records 3
# HELP hindsight_sink_behind_records Records in the journal that the sink has not accepted yet.
# TYPE hindsight_sink_behind_records gauge
hindsight_sink_behind_records{sink="a"} 1
hindsight_sink_behind_records{sink="b"} 3
`
	err = testutil.GatherAndCompare(reg, strings.NewReader(want), "hindsight_journal_records", "hindsight_sink_behind_records")
	if err != nil {
		t.Error(err)
	}
	names := []string{
		"hindsight_journal_bytes", "hindsight_journal_blocked_seconds_total", "hindsight_journal_truncated_bytes_total", "hindsight_sink_lag_seconds",
	}
	for _, name := range names {
		if n, err := testutil.GatherAndCount(reg, name); err != nil || n == 0 {
			t.Errorf("%s: %d series, %v", name, n, err)
		}
	}
	j.Close()
	if n, _ := testutil.GatherAndCount(reg); n != 0 {
		t.Errorf("%d metrics after Close", n)
	}
}
