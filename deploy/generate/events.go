package main

import (
	"encoding/json"
	"fmt"
	"net/url"
	"regexp"
	"strings"
)

// Identifiers of panels in links and alerts. See panel.
const (
	eventsUID = "hindsight-events"

	panelLog         = 30
	panelCrashLoops  = 40
	panelScheduling  = 41
	panelImages      = 42
	panelEvictions   = 43
	panelNodes       = 44
	panelPreemptions = 48
)

// The status history has few columns and rows, so that no cluster can exceed the 500 series of a
// query that Loki permits: 24 points, which Grafana's rounding makes 42 at most, with 11 rows each.
const (
	historyPoints = 24
	historyRows   = 11
)

// joined is the number of preemptors of a range that are shown, below those 500 series.
const joined = 450

// The name of a pod without what its controllers append to the workload's name: the hash of a
// ReplicaSet or the time of a CronJob's Job, and five characters; or the number of a StatefulSet's.
const workload = "{{ regexReplaceAll `(-[0-9bcdfghjklmnpqrstvwxz]{6,10})?-[bcdfghjklmnpqrstvwxz2456789]{5}$|-[0-9]+$` .name `` }}"

// logQL builds the queries for an installation's labels.
type logQL struct{ parameters }

// stream selects entries of the chosen jobs and clusters only.
func (q logQL) stream(matchers string) string {
	return fmt.Sprintf(`{job=~"$job", %s=~"$cluster", %s!="HindsightCanary"%s}`, q.Cluster, q.Reason, matchers)
}

// chosen selects the entries that all variables choose, of these reasons.
func (q logQL) chosen(reasons string) string {
	matchers := fmt.Sprintf(`, %s=~"$namespace", %s=~"$reason"`, q.Namespace, q.Reason)
	if reasons != "" {
		matchers += fmt.Sprintf(`, %s=~"%s"`, q.Reason, reasons)
	}
	return q.stream(matchers) + " |~ `(?i)${text:raw}` | detected_level=~\"$level\" | kind=~\"$kind\" | name=~\"$name\" | node=~\"$node\""
}

// count is the number of states, grouped by labels of few values, or by none. Loki refuses a query
// with more than 500 series in any part, and the inner part of topk(10, sum(…)) is one.
func count(by, entries, interval string) string {
	if by != "" {
		by = " by (" + by + ")"
	}
	return fmt.Sprintf("sum%s (count_over_time(%s [%s]))", by, entries, interval)
}

func top(k int, expr string) string { return fmt.Sprintf("topk(%d, %s)", k, expr) }

// distinct is the number of Events, of which each counts once, for the k groups with most of them.
// Groups may be any number. Loki cannot split the counting of series of last_over_time, so it
// evaluates the expression as a whole, and only the k groups are series. A sum of count_over_time
// takes as long.
func distinct(k int, by, entries, interval string) string {
	return fmt.Sprintf("topk(%d, count by (%s) (last_over_time(%s | unwrap event_version [%s]) by (%s, event_uid)))", k, by, entries, interval, by)
}

func instant(expr, legend string) object { return query(expr, legend, "instant") }
func ranged(expr, legend string) object  { return query(expr, legend, "range") }

// age is the number of seconds since the last entry, at the end of the range. It reads an hour, not the
// range: each line of it is read.
func age(entries string) string {
	return "(max(max_over_time(" + entries + " | label_format at=`{{ __timestamp__ | unixEpoch }}` | unwrap at [1h]) by (job)) - ${__to:date:seconds}) * -1"
}

// nowAndBefore compares the range with the one before.
func nowAndBefore(entries string) []object {
	now := count("", entries, "$__range") + " or vector(0)"
	return []object{
		instant(now, "now"),
		instant(strings.Replace(now, "[$__range]", "[$__range] offset $__range", 1), "before"),
	}
}

// preemptions counts preempted pods by the workloads of both pods. A Preempted has only the uid of
// the preemptor, so its name comes from the Event FailedScheduling, which precedes a preemption. Both
// sides of the join are bounded: Loki evaluates each by itself.
func (q logQL) preemptions() string {
	preempted := distinct(joined, "by_uid, "+q.Namespace+", workload",
		q.chosen("Preempted")+" | regexp `by pod(?:group)? (?P<by_uid>[0-9a-f-]{36}) on node` | label_format workload=\""+workload+`"`, "$__range")
	preemptors := top(joined, fmt.Sprintf(`last_over_time(%s | kind="Pod" | label_format by_uid=uid, by_namespace=%s, by_workload="%s" | unwrap event_version [$__range]) by (by_uid, by_namespace, by_workload)`,
		q.stream(fmt.Sprintf(`, %s="FailedScheduling"`, q.Reason)), q.Namespace, workload))
	return top(100, fmt.Sprintf("sum by (by_namespace, by_workload, %s, workload) ((%s > bool 0) * on (by_uid) group_right (by_namespace, by_workload) %s or on (by_uid) %s)",
		q.Namespace, preemptors, preempted, preempted))
}

// readable is a short line. msg is the only field that needs a parser; the whole of it is among the
// details of the line.
func (q logQL) readable() string {
	return fmt.Sprintf(" | logfmt msg | line_format `{{.%s}}  {{.kind}} {{.%s}}/{{.name}}  {{ trunc 200 .msg }}`", q.Reason, q.Namespace)
}

// eventsLink is a link to the dashboard itself, with the data source, jobs, clusters and time that
// are chosen.
func eventsLink(more string) string {
	return "/d/" + eventsUID + "?${loki:queryparam}&${job:queryparam}&${cluster:queryparam}&${__url_time_range}&" + more
}

// lineLink is an eventsLink of a line. Grafana leaves out a link of a line with a variable that it
// may not know, and it knows these.
func lineLink(more string) string {
	return strings.Replace(eventsLink(more), "${__url_time_range}", "from=${__from}&to=${__to}", 1)
}

var interpolated = regexp.MustCompile(`\$\{[^}]+\}`)

// exploreLink is a link to Explore. Grafana interpolates variables in it before it decodes it.
func exploreLink(expr string) string {
	ref := object{"type": "loki", "uid": "${loki}"}
	panes, err := json.Marshal(object{"a": object{
		"datasource": "${loki}",
		"queries":    []object{{"refId": "A", "datasource": ref, "expr": expr, "queryType": "range"}},
		"range":      object{"from": "${__from}", "to": "${__to}"},
	}})
	if err != nil {
		panic(err) // strings only
	}
	text, encoded, last := string(panes), "", 0
	for _, at := range interpolated.FindAllStringIndex(text, -1) {
		encoded += url.PathEscape(text[last:at[0]]) + text[at[0]:at[1]]
		last = at[1]
	}
	return "/explore?schemaVersion=1&panes=" + encoded + url.PathEscape(text[last:])
}

func (q logQL) variables() []object {
	loki := object{"type": "loki", "uid": "${loki}"}
	label := func(name, label, all, stream string) object {
		v := choice("query", name, "", all, object{"refId": "LokiVariableQueryEditor-VariableQuery", "type": 1, "label": label, "stream": stream}, everything)
		v["datasource"], v["refresh"], v["sort"] = loki, 2, 1
		return v
	}
	of := func(matchers string) string { return `{job=~"$job"` + matchers + `}` }
	cluster, namespace := fmt.Sprintf(`, %s=~"$cluster"`, q.Cluster), fmt.Sprintf(`, %s=~"$namespace"`, q.Namespace)
	job := label("job", "job", "", fmt.Sprintf(`{%s=~".+"}`, q.Reason))
	job["current"] = object{"selected": true, "text": []string{q.Job}, "value": []string{q.Job}}
	level := choice("custom", "level", "", ".*", "critical,error,warn,info,debug", everything)
	return []object{
		source("loki"), job,
		label("cluster", q.Cluster, ".*", of("")),
		label("namespace", q.Namespace, ".*", of(cluster)),
		label("reason", q.Reason, ".*", of(cluster+namespace)),
		level,
		input("kind", "A regular expression for the kind of the object, such as Pod|Job", ".*"),
		input("name", "A regular expression for the name of the object", ".*"),
		input("node", "A regular expression for the node", ".*"),
		input("text", "A regular expression that the line contains, in any case", ""),
		{"type": "adhoc", "name": "filters", "label": "Labels", "description": "Further labels of the streams, such as those of external_labels", "datasource": loki},
	}
}

func (q logQL) annotations() []object {
	loki := object{"type": "loki", "uid": "${loki}"}
	expr := q.chosen("NodeNotReady|Rebooted|SystemOOM|Preempted|Evicted|HindsightGap") + q.readable()
	target := ranged(expr, "")
	target["refId"], target["datasource"], target["maxLines"] = "Anno", loki, 100
	// Neither hidden nor with a placement: its switch is beside the variables.
	return []object{{
		"name": "Outages", "datasource": loki, "enable": false, "hide": false, "iconColor": "red",
		"expr": expr, "titleFormat": "{{" + q.Reason + "}}", "tagKeys": q.Namespace + ",kind,name", "target": target,
	}}
}

func events(p parameters) object {
	q := logQL{p}
	l := &layout{source: object{"type": "loki", "uid": "${loki}"}}
	l.row(100, "Now")
	l.add(6, 4, number(1, "Age",
		"Since the last Event at the end of the range, of any namespace; and since the last one of Hindsight's canary, which writes one a minute if it is enabled. Red: nothing arrived for an hour. That is a quiet cluster if there is a canary, and it is young.",
		object{"unit": "s", "thresholds": steps(neutral, 600, "orange"), "mappings": []object{texts("3600", "over 1 hour", "red"), missing("unknown", "red")}},
		instant(age(q.stream(""))+" or vector(3600)", "Event"),
		instant(age(strings.Replace(q.stream(""), `!="HindsightCanary"`, `="HindsightCanary"`, 1)), "canary")))
	l.add(6, 4, number(2, "Gaps", "Ranges in which states may be missing. The log has their beginning, end and cause.",
		object{"thresholds": steps(neutral, 1, "orange")},
		instant(count("", q.stream(fmt.Sprintf(`, %s="HindsightGap"`, q.Reason)), "$__range"), "")))
	warnings := q.chosen("") + ` | detected_level=~"warn|error|critical"`
	l.add(6, 4, number(3, "Warnings", "States of Events of the levels warn, error and critical, in this range and in the one before, of the same length.", nil, nowAndBefore(warnings)...))
	l.add(6, 4, number(4, "Events", "States of Events: an Event with three repeats counts four. In this range and in the one before.", nil, nowAndBefore(q.chosen(""))...))

	l.row(101, "What")
	l.add(24, 12, linked(panel{
		id: 10, kind: "status-history", title: "Warnings by namespace and reason",
		description: fmt.Sprintf("The darker, the more Events, each counted once in an interval. The %d most frequent of each interval.", historyRows),
		targets:     []object{ranged(distinct(historyRows, q.Namespace+", "+q.Reason, warnings, "$__auto"), "{{"+q.Namespace+"}}  {{"+q.Reason+"}}")},
		points:      historyPoints,
		defaults: object{
			"min": 0, "color": object{"mode": "continuous-YlRd"}, "noValue": "no Warnings in this range",
			"custom": object{"lineWidth": 0, "fillOpacity": 90},
		},
		options: object{
			"showValue": "never", "rowHeight": 0.9, "colWidth": 0.95, "perPage": 20,
			"legend":  object{"displayMode": "list", "placement": "bottom", "showLegend": false, "calcs": []string{}},
			"tooltip": object{"mode": "single", "sort": "none"},
		},
	}, "Events of ${__field.labels."+q.Namespace+"}, ${__field.labels."+q.Reason+"}",
		eventsLink("var-namespace=${__field.labels."+q.Namespace+"}&var-reason=${__field.labels."+q.Reason+"}")))
	l.add(24, 9, linked(totalled(bars(11, "Reasons", "States, of the ten most frequent of each interval, and the sum of each.",
		ranged(top(10, count(q.Reason, q.chosen(""), "$__auto")), "{{"+q.Reason+"}}")), 340),
		"Events of ${__field.labels."+q.Reason+"}", eventsLink("var-reason=${__field.labels."+q.Reason+"}")))

	victims := byName("workload", property("links", []object{link("Preempted pods", eventsLink(
		"var-reason=Preempted&var-namespace=${__data.fields."+q.Namespace+"}&var-name=${__data.fields.workload}.*"))}))
	preemptors := byName("by workload", property("links", []object{link("Events of the preemptors", eventsLink(
		`var-namespace=${__data.fields["by namespace"]}&var-name=${__data.fields["by workload"]}.*`))}))
	l.add(24, 8, panel{
		id: 20, kind: "table", title: "Who preempted whom",
		description: "Pods preempted, by the workloads of both, from the names of the pods. Without a preemptor: its FailedScheduling is not in this range, or there are more than 450 of them; then the bars below count all.",
		targets:     []object{instant(q.preemptions(), "")},
		defaults: object{
			"noValue": "no preemptions in this range", "decimals": 0,
			"custom": object{"align": "auto", "inspect": false, "filterable": true, "cellOptions": object{"type": "auto"}},
		},
		overrides: []object{victims, preemptors, byName("pods", property("custom.width", 100))},
		options:   object{"frameIndex": 0, "showHeader": true, "showTypeIcons": false, "cellHeight": "sm", "sortBy": []object{{"displayName": "pods", "desc": true}}},
		transformations: []object{{"id": "organize", "options": object{
			"excludeByName": object{"Time": true},
			"indexByName":   object{"by_namespace": 0, "by_workload": 1, q.Namespace: 2, "workload": 3, "Value #A": 4},
			"renameByName":  object{"by_namespace": "by namespace", "by_workload": "by workload", "Value #A": "pods", "Value": "pods"},
		}}},
	})
	q.log(l)
	q.troubles(l)
	return dashboard(eventsUID, "Kubernetes Events", "Events of the cluster, exported by Hindsight.", l, q.variables(), q.annotations(),
		[]object{dashboardLink("Hindsight", "/d/"+hindsightUID)})
}

func dashboardLink(title, url string) object {
	return object{
		"title": title, "type": "link", "url": url, "icon": "dashboard", "tooltip": "", "tags": []string{},
		"asDropdown": false, "targetBlank": false, "includeVars": false, "keepTime": true,
	}
}

// log is the panel with the lines. Labels become fields of a line, so that they can have links; the
// ones without a link are left out, since they are among its labels anyway.
func (q logQL) log(l *layout) {
	exclude := object{}
	for _, name := range strings.Fields("component count detected_level event_uid event_version full_component full_reason job kind msg observed_time service_name type") {
		exclude[name] = true
	}
	for _, name := range []string{q.Cluster, q.Namespace, q.Reason} {
		exclude[name] = true
	}
	all := `{job=~"${job:pipe}"}`
	target := ranged(q.chosen("")+q.readable(), "")
	target["maxLines"] = 500
	l.row(102, "Log")
	l.add(24, 14, panel{
		id: panelLog, kind: "logs", title: "Events",
		description: "Open a line for its fields, with links to all Events of the object and of its node, here and in Explore.",
		targets:     []object{target},
		overrides: []object{
			byName("name", property("links", []object{
				link("Events of this object", lineLink("var-name=${__value.raw}")),
				link("in Explore", exploreLink(all+` | name="${__value.raw}"`)),
			})),
			byName("node", property("links", []object{
				link("Events of this node", lineLink("var-node=${__value.raw}")),
				link("in Explore", exploreLink(all+` | node="${__value.raw}"`)),
			})),
			byName("uid", property("links", []object{
				link("Events of this uid in Explore", exploreLink(all+` | uid="${__value.raw}"`)),
				link("Pods that it preempted, in Explore", exploreLink(all+" |~ `by pod(group)? ${__value.raw}`")),
			})),
		},
		options: object{
			"showTime": true, "showLabels": false, "showCommonLabels": false, "wrapLogMessage": false, "prettifyLogMessage": false,
			"enableLogDetails": true, "showLogContextToggle": false, "sortOrder": "Descending", "dedupStrategy": "none",
		},
		transformations: []object{
			{"id": "extractFields", "options": object{"source": "labels", "format": "json", "replace": false, "keepTime": false}},
			{"id": "organize", "options": object{"excludeByName": exclude, "indexByName": object{}, "renameByName": object{}}},
		},
	})
}

// troubles are bars for one kind of trouble each: pods, or other objects, since each Event counts
// once in an interval.
func (q logQL) troubles(l *layout) {
	byNamespace := func(id int, title, description, reasons, filter string) {
		entries := q.chosen(reasons) + filter
		p := bars(id, title, description, ranged(distinct(10, q.Namespace, entries, "$__auto"), "{{"+q.Namespace+"}}"))
		l.add(12, 7, linked(totalled(p, 210), "Events of ${__field.labels."+q.Namespace+"}", eventsLink(
			"var-namespace=${__field.labels."+q.Namespace+"}&var-reason="+strings.ReplaceAll(reasons, "|", "&var-reason="))))
	}
	l.row(103, "Troubles")
	byNamespace(panelPreemptions, "Preemptions", "By the namespace of the preempted pods.", "Preempted", "")
	byNamespace(panelScheduling, "Scheduling", "Pods without a node, each once in an interval. The scheduler repeats the Event rarely: the log shows how long a pod has waited.", "FailedScheduling", "")
	byNamespace(panelCrashLoops, "Crash loops", "Pods with a container that waits to be restarted, each once in an interval.", "BackOff", ` |= "restarting failed container"`)
	byNamespace(panelImages, "Images", "Pods that cannot pull an image, each once in an interval.", "Failed|BackOff|ErrImageNeverPull|InspectFailed", ` |~ "(?i)image"`)
	byNamespace(panelEvictions, "Evictions", "By kubelets that ran out of memory, disk or process ids, and from nodes with a taint.", "Evicted|TaintManagerEviction", "")
	byNamespace(45, "Volumes", "Not mounted, attached or provisioned.", "FailedMount|FailedAttachVolume|FailedMapVolume|FailedBinding|ProvisioningFailed|VolumeResizeFailed", "")
	byNamespace(46, "Probes", "Pods with failed probes, each once in an interval.", "Unhealthy|ProbeWarning", "")
	byNamespace(47, "Autoscaling", "Horizontal pod autoscalers without metrics or scale.", "FailedGetResourceMetric|FailedGetContainerResourceMetric|FailedGetExternalMetric|FailedGetObjectMetric|FailedGetPodsMetric|FailedComputeMetricsReplicas|FailedGetScale|FailedRescale|FailedUpdateScale", "")
	byNamespace(50, "Creation", "Pods that a controller could not create: a quota, a webhook, a policy.", "FailedCreate", "")
	byNamespace(51, "Jobs", "Jobs that failed.", "BackoffLimitExceeded|DeadlineExceeded", "")
	byReason := func(id int, title, description, reasons string) {
		l.add(12, 7, linked(totalled(bars(id, title, description, ranged(count(q.Reason, q.chosen(reasons), "$__auto"), "{{"+q.Reason+"}}")), 290),
			"Events of ${__field.labels."+q.Reason+"}", eventsLink("var-reason=${__field.labels."+q.Reason+"}")))
	}
	byReason(panelNodes, "Nodes", "Nodes that are not ready, under pressure or rebooted.", "NodeNotReady|Rebooted|NodeHasDiskPressure|NodeHasInsufficientMemory|NodeHasInsufficientPID|EvictionThresholdMet|FreeDiskSpaceFailed|KernelDeadlock|ReadonlyFilesystem")
	byReason(49, "Memory", "OOM kills that the kernel reports on a Node. A container that is killed at its own limit has no such Event.", "OOMKilling|SystemOOM")

	l.row(104, "All Events")
	l.add(12, 8, totalled(bars(60, "Namespaces", "The ten most frequent of each interval, each Event counted once in it. Events about Nodes are in default.",
		ranged(distinct(10, q.Namespace, q.chosen(""), "$__auto"), "{{"+q.Namespace+"}}")), 230))
	l.add(12, 8, totalled(bars(61, "Kinds", "States, of the ten most frequent of each interval.",
		ranged(top(10, count("kind", q.chosen(""), "$__auto")), "{{kind}}")), 230))
}
