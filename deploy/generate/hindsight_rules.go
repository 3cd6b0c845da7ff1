package main

// hindsightAlerts are about Hindsight itself.
var hindsightAlerts = []alert{
	{
		name: "HindsightDown", panel: panelReplicas, severity: "critical", hold: "5m",
		why:     "Every replica exposes this metric, candidates as well. A restart takes less than five minutes. A watch can replay about as much; after that, overwritten states are lost.",
		summary: "No Hindsight is running, or Prometheus cannot reach it.",
		expr:    "absent(hindsight_journal_bytes)",
	},
	{
		name: "HindsightStalled", panel: panelContact, severity: "critical", hold: "2m",
		why:     `An idle cluster is listed every two minutes. Three minutes allow for a slow list; with "for" this is the five minutes after which /readyz fails.`,
		summary: "The API server has not answered the watch of {{ if $labels.source }}namespace {{ $labels.source }}{{ else }}all namespaces{{ end }} for {{ $value | humanizeDuration }}.",
		expr:    "time() - max by (cluster, namespace, job, source) (hindsight_watch_last_contact_timestamp_seconds) > 180",
	},
	{
		name: "HindsightWatchStalled", panel: panelStalls, severity: "critical",
		why:     "One is enough: it counts a watch that ended without an Event that a list had shown. During a stall further watches are counted, about a minute apart. The second half finds the first one after a restart.",
		summary: "Watches of {{ if $labels.source }}namespace {{ $labels.source }}{{ else }}all namespaces{{ end }} deliver nothing while lists show newer Events. Only the latest state of each Event is read.",
		expr: `sum by (cluster, namespace, job, source) (increase(hindsight_watch_stalls_total[10m])) > 0
or
sum by (cluster, namespace, job, source) (hindsight_watch_stalls_total > 0 unless hindsight_watch_stalls_total offset 10m) > 0`,
	},
	{
		name: "HindsightSinkStuck", panel: panelLag, severity: "critical", hold: "1m",
		why:     "No record was accepted for five minutes while one was waiting: an outage of the destination, or a configuration that it rejects, not a slow destination.",
		summary: "Sink {{ $labels.sink }} accepts nothing and is {{ $value | humanizeDuration }} behind.",
		expr:    "hindsight_sink_lag_seconds > 300 and increase(hindsight_sink_sent_total[5m]) == 0",
	},
	{
		name: "HindsightBehind", panel: panelLag, severity: "warning", hold: "10m",
		why:     "A backlog drains within minutes after its cause has ended. Ten minutes behind for ten minutes: the destination is too slow, or max_rate too low.",
		summary: "Sink {{ $labels.sink }} is {{ $value | humanizeDuration }} behind.",
		expr:    "hindsight_sink_lag_seconds > 600",
	},
	{
		name: "HindsightParked", panel: panelParked, severity: "warning", hold: "15m",
		why:     "A stream is parked after a minute of rejections. An outage of a part of the destination usually ends within fifteen minutes; other causes need a fix, within seven days or max_parked_bytes.",
		summary: "Sink {{ $labels.sink }} rejects some streams and accepts others; {{ $value }} records are parked.",
		expr:    "hindsight_sink_parked_records > 0",
	},
	{
		name: "HindsightDropping", panel: panelDropped, severity: "warning",
		why:     "One is enough: dropped records are not resent. The second half finds a counter that starts above zero, as after a restart.",
		summary: "Sink {{ $labels.sink }} will never receive some records ({{ $labels.reason }}).",
		expr: `increase(hindsight_sink_dropped_total[15m]) > 0
or
(hindsight_sink_dropped_total > 0 unless hindsight_sink_dropped_total offset 15m)`,
	},
	{
		name: "HindsightGap", panel: panelGaps, severity: "warning",
		why:     "One is enough, for the same reason. The second half matters here, since most gaps are found at a start.",
		summary: `States of Events may be missing ({{ $labels.cause }}). {reason="HindsightGap"} has the range.`,
		expr: `increase(hindsight_watch_gaps_total[15m]) > 0
or
(hindsight_watch_gaps_total > 0 unless hindsight_watch_gaps_total offset 15m)`,
	},
	{
		name: "HindsightJournalFilling", panel: panelJournal, severity: "warning", hold: "10m",
		why:     "Half of a journal exceeds a list or a short burst, and leaves as much time to act.",
		summary: "The journal is {{ $value | humanizePercentage }} full.",
		expr:    "hindsight_journal_bytes / hindsight_journal_max_bytes > 0.5",
	},
	{
		name: "HindsightJournalFull", panel: panelBlocked, severity: "critical",
		why:     "A full journal stops the watch. A long list may fill it for moments; a minute out of five is more.",
		summary: "The journal was full for {{ $value | humanizeDuration }} of the last five minutes. The API server keeps Events up to their TTL.",
		expr:    "increase(hindsight_journal_blocked_seconds_total[5m]) > 60",
	},
	{
		name: "HindsightNoLeader", panel: panelLeader, severity: "critical", hold: "2m",
		why:     "The next replica takes over after lease_duration, 15s by default. A rollout of all replicas takes up to two minutes.",
		summary: "No replica leads, so none of them watches.",
		expr:    "max by (cluster, namespace, job) (hindsight_lease_leader) == 0",
	},
	{
		name: "HindsightCheckpointUnsaved", panel: panelCheckpoint, severity: "warning", hold: "5m",
		why:     "Nothing is lost while this replica runs; the next one resumes from the checkpoint in the Lease. Five minutes allow for fixing a change of the configuration.",
		summary: "The checkpoint does not fit into the Lease, so the next leader would resume from a previous one.",
		expr:    "hindsight_lease_checkpoint_unsaved == 1",
	},
	{
		name: "HindsightReloadFailed", panel: panelConfig, severity: "warning", hold: "5m",
		why:     "The old configuration stays in use until the next restart, which would fail. Five minutes allow for fixing the change.",
		summary: "The current configuration file is invalid or cannot be applied.",
		expr:    "hindsight_config_last_reload_successful == 0",
	},
	{
		name: "HindsightCanaryLate", panel: panelCanary, severity: "critical", hold: "1m",
		why:     "The canary Event is written every minute and arrives within seconds. After two minutes the log reports it as overdue; one more excludes restarts.",
		summary: "The canary Event has not arrived through {{ $labels.stage }} for {{ $value | humanizeDuration }}.",
		expr: `label_replace(hindsight_canary_watch_seconds, "stage", "the watch", "", "") > 120
or
label_replace(hindsight_canary_loki_seconds, "stage", "Loki", "", "") > 120`,
	},
}
