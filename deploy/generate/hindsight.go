package main

import "fmt"

// Identifiers of panels in links and alerts. See panel.
const (
	hindsightUID = "hindsight"

	panelReplicas   = 20
	panelContact    = 21
	panelStalls     = 22
	panelLag        = 23
	panelParked     = 26
	panelDropped    = 28
	panelGaps       = 29
	panelJournal    = 30
	panelBlocked    = 32
	panelLeader     = 33
	panelCheckpoint = 35
	panelCanary     = 36
	panelConfig     = 37
)

const chosenInstances = `{job=~"$job", instance=~"$instance"}`

func gauge(name string) string { return "hindsight_" + name + chosenInstances }

func rate(name, by string) string {
	return "sum" + by + " (rate(" + gauge(name) + "[$__rate_interval]))"
}

// increases are counts per interval, without the series that did not grow.
func increases(name, by string) string {
	return fmt.Sprintf("sum by (%s) (increase(%s[$__rate_interval])) > 0", by, gauge(name))
}

func counted(name string) string { return "sum(increase(" + gauge(name) + "[$__range]))" }

// longestSince is the longest time since a timestamp, of the last five minutes: the time itself is a
// sawtooth. None for 0, which means that there is no timestamp.
func longestSince(name, by string) string {
	return fmt.Sprintf("max by (%s) (max_over_time((time() - (%s > 0))[5m:15s]))", by, gauge(name))
}

func at(expr string) object { return object{"expr": expr, "instant": true, "range": false} }

func over(expr, legend string) object {
	return object{"expr": expr, "legendFormat": legend, "instant": false, "range": true}
}

// states is a state timeline of values with a text.
func states(id int, title, description string, mapping object, target object) panel {
	return panel{
		id: id, kind: "state-timeline", title: title, description: description, targets: []object{target},
		defaults: object{
			"mappings": []object{mapping}, "noValue": "none", "color": object{"mode": "thresholds"}, "thresholds": steps(neutral),
			"custom": object{"lineWidth": 0, "fillOpacity": 70},
		},
		options: object{
			"showValue": "auto", "rowHeight": 0.8, "mergeValues": true, "alignValue": "left",
			"legend":  object{"displayMode": "list", "placement": "bottom", "showLegend": false, "calcs": []string{}},
			"tooltip": object{"mode": "single", "sort": "none"},
		},
	}
}

func hindsight() object {
	prometheus := object{"type": "prometheus", "uid": "${prometheus}"}
	l := &layout{source: prometheus}
	l.row(100, "Now")
	l.add(6, 4, number(1, "Leader", "With leader election: the replica that watches. None for some seconds during a failover.",
		object{"noValue": "no election", "mappings": []object{texts("0", "none", "red", "1", "one", neutral, "2", "two", "orange")}},
		at("sum("+gauge("lease_leader")+")")))
	l.add(6, 4, number(2, "Contact", "Since the last valid response of the API server. An idle cluster is listed every two minutes.",
		object{"unit": "s", "thresholds": steps(neutral, 180, "orange", 300, "red"), "noValue": "none", "mappings": []object{missing("none", "red")}},
		at("time() - max("+gauge("watch_last_contact_timestamp_seconds")+" > 0)")))
	l.add(6, 4, number(3, "Lag", "The age of the oldest record that a sink has not accepted: the greatest of all sinks.",
		object{"unit": "s", "thresholds": steps(neutral, 60, "orange", 300, "red"), "noValue": "none", "mappings": []object{missing("none", "red")}},
		at("max("+gauge("sink_lag_seconds")+")")))
	l.add(6, 4, number(4, "Canary", "With canary: the latency of its last Event until it was found in Loki, or through the watch without canary.query_url.",
		object{"unit": "s", "decimals": 1, "thresholds": steps(neutral, 60, "orange", 120, "red"), "noValue": "no canary"},
		at("max("+gauge("canary_loki_seconds")+") or max("+gauge("canary_watch_seconds")+")")))
	l.add(6, 4, number(5, "Journal", "The part of the journal in use.",
		object{"unit": "percentunit", "thresholds": steps(neutral, 0.25, "orange", 0.5, "red"), "noValue": "none", "mappings": []object{missing("none", "red")}},
		at("max("+gauge("journal_bytes")+" / "+gauge("journal_max_bytes")+")")))
	l.add(6, 4, number(6, "Gaps", "Ranges in which states may be missing.", object{"thresholds": steps(neutral, 1, "orange")}, at(counted("watch_gaps_total"))))
	l.add(6, 4, number(7, "Dropped", "Records that a sink will never receive.", object{"thresholds": steps(neutral, 1, "red")}, at(counted("sink_dropped_total"))))
	l.add(6, 4, number(8, "Parked", "Records of streams that a sink rejects while it accepts others.", object{"thresholds": steps(neutral, 1, "orange")},
		at("sum("+gauge("sink_parked_records")+")")))

	l.row(101, "Events")
	l.add(16, 8, lines(10, "Read, journaled, accepted",
		"States per second: read from the API server; journaled, without those that drop rules match; accepted by each sink, which only receives matching states.",
		"suffix:Events/s", 1, nil,
		over(rate("watch_events_total", "")+" + "+rate("watch_skipped_total", ""), "read"),
		over(rate("watch_events_total", "")+" - "+rate("intake_dropped_total", ""), "journaled"),
		over(rate("sink_sent_total", " by (sink)"), "accepted by {{sink}}")))
	l.add(8, 8, bars(11, "Dropped, skipped, changed", "Dropped by rules; read before or undecodable; labels that became other; redacted.",
		over(increases("intake_dropped_total", "job"), "dropped by rules"),
		over(increases("watch_skipped_total", "reason"), "skipped: {{reason}}"),
		over(increases("intake_other_labels_total", "cause"), "label other: {{cause}}"),
		over(increases("intake_redacted_total", "job"), "redacted")))
	l.add(16, 6, bars(12, "Metadata", "With enrich: Events without the metadata of their object, by reason; and requests for metadata.",
		over(increases("enrich_misses_total", "reason"), "missed: {{reason}}"),
		over(increases("enrich_lists_total", "resource"), "list of {{resource}}"),
		over(increases("enrich_watches_total", "resource"), "watch of {{resource}}"),
		over(increases("enrich_reads_total", "job"), "single objects")))
	l.add(8, 6, lines(13, "Waiting", "The share of time in which Events waited for the metadata of new objects.", "percentunit", 0.1, nil,
		over(rate("enrich_wait_seconds_total", ""), "waiting")))

	watch(l)
	sinks(l)
	journalAndLease(l)
	process(l)

	label := func(name, of string) object {
		v := choice("query", name, "", ".*", object{"refId": "PrometheusVariableQueryEditor-VariableQuery", "qryType": 1, "query": "label_values(" + of + ", " + name + ")"}, everything)
		v["datasource"], v["refresh"], v["sort"] = prometheus, 2, 1
		return v
	}
	return dashboard(hindsightUID, "Hindsight", "The path of Events from the API server to the sinks. Its panels are in the order of the runbooks of the alerts.", l,
		[]object{source("prometheus"), label("job", "hindsight_journal_bytes"), label("instance", `hindsight_journal_bytes{job=~"$job"}`)},
		[]object{}, []object{dashboardLink("Kubernetes Events", "/d/"+eventsUID)})
}

func watch(l *layout) {
	l.row(102, "Watch: HindsightDown, HindsightStalled, HindsightWatchStalled")
	l.add(8, 7, lines(panelReplicas, "Replicas", "Processes that answer.", "short", 3, nil, over("count by (job) ("+gauge("journal_bytes")+")", "{{job}}")))
	l.add(8, 7, lines(panelContact, "Contact", "The longest time without a valid response of the API server, within five minutes. An idle cluster is listed every two minutes; the alert fires above three.", "s", 150,
		steps(neutral, 180, "red"), over(longestSince("watch_last_contact_timestamp_seconds", "source, instance"), "{{source}} {{instance}}")))
	l.add(8, 7, bars(panelStalls, "Watches", "Watches that ended without an Event that a list had shown; lists, by cause; and lists that exceeded the spool.",
		over(increases("watch_stalls_total", "job"), "stalled"),
		over(increases("watch_relists_total", "reason"), "list: {{reason}}"),
		over(increases("watch_spool_overflows_total", "job"), "spool exceeded")))
}

func sinks(l *layout) {
	l.row(103, "Sinks: HindsightSinkStuck, HindsightBehind, HindsightParked, HindsightDropping")
	l.add(8, 7, lines(panelLag, "Lag", "Age of the oldest record that the sink has not accepted. Alerts fire above five minutes without progress, and above ten.", "s", 10,
		steps(neutral, 300, "orange", 600, "red"), over(gauge("sink_lag_seconds"), "{{sink}} {{instance}}")))
	l.add(8, 7, bars(24, "Retries", "Failed attempts that were retried, by cause.", over(increases("sink_retries_total", "sink, reason"), "{{sink}}: {{reason}}")))
	l.add(8, 7, lines(25, "Behind", "Records in the journal that the sink has not accepted.", "short", 10, nil, over(gauge("sink_behind_records"), "{{sink}} {{instance}}")))
	l.add(8, 7, lines(panelParked, "Parked", "Records whose stream the sink rejects while it accepts others.", "short", 3, nil,
		over(gauge("sink_parked_records")+" > 0", "{{sink}} {{instance}}")))
	l.add(8, 7, lines(27, "Parked bytes", "Their size. Beyond max_parked_bytes the oldest are dropped.", "bytes", 1024, nil,
		over(gauge("sink_parked_bytes")+" > 0", "{{sink}} {{instance}}")))
	l.add(8, 7, bars(panelDropped, "Dropped", "Records that the sink will never receive, by cause.", over(increases("sink_dropped_total", "sink, reason"), "{{sink}}: {{reason}}")))
	l.add(24, 6, bars(34, "Resent, parked", "Records that were sent again after a failed attempt, and records that were parked.",
		over(increases("sink_resent_total", "sink"), "resent: {{sink}}"),
		over(increases("sink_parked_total", "sink"), "parked: {{sink}}")))
}

func journalAndLease(l *layout) {
	l.row(104, "Journal: HindsightGap, HindsightJournalFilling, HindsightJournalFull")
	l.add(6, 7, bars(panelGaps, "Gaps", "Ranges in which states may be missing, by cause.", over(increases("watch_gaps_total", "cause"), "{{cause}}")))
	l.add(6, 7, lines(panelJournal, "Journal", "The part of journal.max_bytes in use. The alert fires above half.", "percentunit", 0.02,
		steps(neutral, 0.5, "red"), over(gauge("journal_bytes")+" / "+gauge("journal_max_bytes"), "{{instance}}")))
	l.add(6, 7, lines(31, "Journal content", "Bytes stored, and records that some sink has not acknowledged.", "bytes", 1024, nil,
		over(gauge("journal_bytes"), "bytes {{instance}}"), over(gauge("journal_records"), "records {{instance}}")).right("B", "short"))
	l.add(6, 7, lines(panelBlocked, "Blocked", "The part of time in which appends were blocked; the alert fires above a fifth. And bytes that were removed when the journal was opened.", "percentunit", 0.02,
		steps(neutral, 0.2, "red"), over("rate("+gauge("journal_blocked_seconds_total")+"[$__rate_interval])", "blocked {{instance}}"),
		over(gauge("journal_truncated_bytes_total")+" > 0", "truncated {{instance}}")).right("B", "bytes"))

	l.row(105, "Lease, canary, configuration: HindsightNoLeader, HindsightCheckpointUnsaved, HindsightCanaryLate, HindsightReloadFailed")
	l.add(12, 6, states(panelLeader, "Leader", "With leader election: the state of each replica.", texts("0", "candidate", "blue", "1", "leader", "green"), over(gauge("lease_leader"), "{{instance}}")))
	l.add(12, 6, lines(38, "Renewal", "The longest time since a renewal of the Lease within five minutes, and failed requests for it.", "s", 5, nil,
		over(longestSince("lease_last_renewal_timestamp_seconds", "instance"), "renewed {{instance}}"),
		over("increase("+gauge("lease_failures_total")+"[$__rate_interval]) > 0", "failures {{instance}}")).right("B", "short"))
	l.add(8, 7, lines(panelCheckpoint, "Checkpoint", "Its size in the Lease, of 64 KiB at most; and whether the Lease keeps a previous one, since this one does not fit.", "bytes", 1024,
		steps(neutral, 65536, "red"), over(gauge("lease_checkpoint_bytes"), "{{instance}}"), over(gauge("lease_checkpoint_unsaved")+" > 0", "unsaved {{instance}}")).right("B", "short"))
	l.add(8, 7, lines(panelCanary, "Canary", "With canary: the latency of its last Event through the watch, and until it was found in Loki. The alert fires above two minutes.", "s", 5,
		steps(neutral, 120, "red"), over(gauge("canary_watch_seconds"), "watch {{instance}}"), over(gauge("canary_loki_seconds"), "Loki {{instance}}")))
	l.add(8, 7, states(panelConfig, "Configuration", "Whether the current file is in use.", texts("0", "refused", "red", "1", "in use", "green"),
		over(gauge("config_last_reload_successful"), "{{instance}}")))
}

func process(l *layout) {
	own := func(expr string) string { return expr + " and on (job, instance) " + gauge("journal_bytes") }
	l.row(106, "Process")
	l.add(12, 6, lines(40, "Memory", "Resident memory.", "bytes", 1<<20, nil, over(own("process_resident_memory_bytes"+chosenInstances), "{{instance}}")))
	l.add(12, 6, lines(41, "CPU", "In cores.", "short", 0.01, nil, over(own("rate(process_cpu_seconds_total"+chosenInstances+"[$__rate_interval])"), "{{instance}}")))
}

// right gives a query another unit, and an axis of its own.
func (p panel) right(refID, unit string) panel {
	p.overrides = append(p.overrides, object{"matcher": object{"id": "byFrameRefID", "options": refID}, "properties": []object{
		property("unit", unit), property("custom.axisPlacement", "right"), property("custom.thresholdsStyle", object{"mode": "off"}), property("custom.axisSoftMax", 3),
	}})
	return p
}
