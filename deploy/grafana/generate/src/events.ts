// The dashboard of a cluster's Events, from Loki: lines in the default format with the
// default labels.
import * as common from '@grafana/grafana-foundation-sdk/common';
import * as dashboard from '@grafana/grafana-foundation-sdk/dashboard';
import * as logs from '@grafana/grafana-foundation-sdk/logs';
import * as loki from '@grafana/grafana-foundation-sdk/loki';
import { all, bars, datasource, number, ranking, type Query } from './panels.js';

const source: common.DataSourceRef = { type: 'loki', uid: '${loki}' };

// The entries that the variables select, with further label matchers.
const select = (matchers = '') =>
  `{job="hindsight", cluster=~"$cluster", namespace=~"$namespace", reason=~"$reason"${matchers && ', ' + matchers}} | kind=~"$kind" | name=~"$name"`;
const reason = (pattern: string) => select(`reason=~"${pattern}"`);

// Number of states; equals the number of objects for Events that happen to an object once.
const states = (by: string, entries: string, range: string) =>
  `sum${by && ` by (${by})`} (count_over_time(${entries} [${range}]))`;

// Number of objects: repeats of one count once. Loki limits their number in one query
// (max_query_series).
const objects = (by: string, entries: string, range: string) =>
  `count${by && ` by (${by})`} (sum by (${by && by + ', '}uid) (count_over_time(${entries} [${range}])))`;

const over = (expr: string, legend: string): Query => new loki.DataqueryBuilder()
  .datasource(source).refId('A').expr(expr).legendFormat(legend).queryType('range');
const once = (expr: string): Query => new loki.DataqueryBuilder()
  .datasource(source).refId('A').expr(expr).queryType('instant');
const lines = (expr: string): Query => new loki.DataqueryBuilder()
  .datasource(source).refId('A').expr(expr).queryType('range').maxLines(1000);

const preempted = reason('Preempted');
const evicted = reason('Evicted');
const killed = reason('OOMKilling|SystemOOM');
const unschedulable = reason('FailedScheduling');
const warnings = select() + ' | detected_level="warn"';

// A readable line. msg is the only field that needs a parser.
const readable = ' | logfmt msg | line_format `{{.namespace}}  {{.kind}}/{{.name}}  {{.reason}}  {{.msg}}`';

function variable(name: string, stream: string): dashboard.QueryVariableBuilder {
  return new dashboard.QueryVariableBuilder(name)
    .datasource(source)
    .query({ refId: 'LokiVariableQueryEditor-VariableQuery', type: 1, label: name, stream })
    .refresh(dashboard.VariableRefresh.OnTimeRangeChanged)
    .sort(dashboard.VariableSort.AlphabeticalAsc)
    .multi(true).includeAll(true).allValue('.*').current(all);
}

const kinds = 'Pod,Node,Deployment,ReplicaSet,StatefulSet,DaemonSet,Job,CronJob,HorizontalPodAutoscaler,PersistentVolumeClaim,Service,Ingress';

function panel(title: string, description: string, query: string, height: number): logs.PanelBuilder {
  return new logs.PanelBuilder()
    .title(title).description(description).datasource(source).span(24).height(height)
    .withTarget(lines(query))
    .showTime(true).showLabels(false).showCommonLabels(false)
    .wrapLogMessage(true).enableLogDetails(true).prettifyLogMessage(false)
    .sortOrder(common.LogsSortOrder.Descending).dedupStrategy(common.LogsDedupStrategy.None);
}

export function events(): dashboard.DashboardBuilder {
  return new dashboard.DashboardBuilder('Kubernetes Events')
    .uid('hindsight-events')
    .description('Events of the cluster, exported by Hindsight.')
    .tags(['kubernetes', 'events', 'hindsight'])
    .time({ from: 'now-6h', to: 'now' }).timezone('browser').refresh('1m')
    .tooltip(dashboard.DashboardCursorSync.Crosshair)
    .withVariable(datasource('loki', 'loki'))
    .withVariable(variable('cluster', '{job="hindsight"}'))
    .withVariable(variable('namespace', '{job="hindsight", cluster=~"$cluster"}'))
    .withVariable(variable('reason', '{job="hindsight", cluster=~"$cluster", namespace=~"$namespace"}'))
    .withVariable(new dashboard.CustomVariableBuilder('kind')
      .values(kinds).multi(true).includeAll(true).allValue('.*').current(all))
    .withVariable(new dashboard.TextBoxVariableBuilder('name')
      .description('A regular expression for the name of the object').defaultValue('.*')
      .current({ selected: true, text: '.*', value: '.*' }))
    .annotation(new dashboard.AnnotationQueryBuilder()
      .name('Node problems, preemptions and evictions').datasource(source).iconColor('red').enable(false)
      .expr(reason('NodeNotReady|Rebooted|SystemOOM|Preempted|Evicted|HindsightGap') + readable)
      .titleFormat('{{reason}}').tagKeys('namespace,kind,name')
      .target(lines(reason('NodeNotReady|Rebooted|SystemOOM|Preempted|Evicted|HindsightGap') + readable)))

    .withRow(new dashboard.RowBuilder('At a glance'))
    .withPanel(number('Events', 'States of Events: an Event with three repeats counts four.', { w: 4 },
      once(states('', select(), '$__range')), false).datasource(source))
    .withPanel(number('Warnings', 'States of Events of type Warning.', { w: 4 },
      once(states('', warnings, '$__range'))).datasource(source))
    .withPanel(number('Pods preempted', 'By pods of a higher priority.', { w: 4 },
      once(states('', preempted, '$__range'))).datasource(source))
    .withPanel(number('Pods evicted', 'By kubelets that ran out of memory, disk or process ids.', { w: 4 },
      once(states('', evicted, '$__range'))).datasource(source))
    .withPanel(number('Out of memory', 'Objects with an OOM kill: a Node where the kernel reports it there, through the kubelet or the node problem detector. A container that is killed at its own limit has no such Event.', { w: 4 },
      once(objects('', killed, '$__range'))).datasource(source))
    .withPanel(number('Pods not scheduled at once', 'Pods for which the scheduler found no node at least once.', { w: 4 },
      once(objects('', unschedulable, '$__range'))).datasource(source))

    .withRow(new dashboard.RowBuilder('How many'))
    .withPanel(bars('By type', '', { w: 8 },
      over(states('type', select(), '$__auto'), '{{type}}')).datasource(source)
      .overrideByName('Warning', [{ id: 'color', value: { mode: 'fixed', fixedColor: 'orange' } }])
      .overrideByName('Normal', [{ id: 'color', value: { mode: 'fixed', fixedColor: 'blue' } }]))
    .withPanel(bars('By reason', 'The ten most frequent per interval.', { w: 8 },
      over(`topk(10, ${states('reason', select(), '$__auto')})`, '{{reason}}')).datasource(source))
    .withPanel(bars('By namespace', 'The ten most frequent per interval. Events about Nodes are in "default".', { w: 8 },
      over(`topk(10, ${states('namespace', select(), '$__auto')})`, '{{namespace}}')).datasource(source))

    .withRow(new dashboard.RowBuilder('Who'))
    .withPanel(ranking('Noisiest objects', 'By the number of states. If Loki rejects the number of series, select a namespace, or raise its max_query_series.', { w: 12 }, ['namespace', 'kind', 'name'],
      once(`topk(20, ${states('namespace, kind, name', select(), '$__range')})`)).datasource(source))
    .withPanel(ranking('Warnings', 'By states of Events.', { w: 12 }, ['namespace', 'reason', 'kind'],
      once(`topk(20, ${states('namespace, reason, kind', warnings, '$__range')})`)).datasource(source))

    .withRow(new dashboard.RowBuilder('Troubles'))
    .withPanel(bars('Pods preempted', 'By the namespace of the preempted pods.', { w: 8 },
      over(states('namespace', preempted, '$__auto'), '{{namespace}}')).datasource(source))
    .withPanel(bars('Pods without a node', 'FailedScheduling, each pod once per interval. The scheduler repeats the Event rarely: the log shows how long a pod has waited.', { w: 8 },
      over(objects('namespace', unschedulable, '$__auto'), '{{namespace}}')).datasource(source))
    .withPanel(bars('Pods evicted', 'By node.', { w: 8 },
      over(states('node', evicted, '$__auto'), '{{node}}')).datasource(source))
    .withPanel(bars('Pods in crash loops', 'By namespace, each pod once per interval.', { w: 8 },
      over(objects('namespace', reason('BackOff') + ' |= "restarting failed container"', '$__auto'), '{{namespace}}')).datasource(source))
    .withPanel(bars('Pods that cannot pull an image', 'By namespace, each pod once per interval.', { w: 8 },
      over(objects('namespace', reason('Failed|BackOff') + ' |~ "Failed to pull image|Back-off pulling image"', '$__auto'), '{{namespace}}')).datasource(source))
    .withPanel(bars('Out of memory', 'Each object once per interval.', { w: 8 },
      over(objects('name', killed, '$__auto'), '{{name}}')).datasource(source))
    .withPanel(panel('Nodes', 'Events about Nodes.',
      `{job="hindsight", cluster=~"$cluster", reason=~"$reason"} | kind="Node" | name=~"$name"` + readable, 8))

    .withRow(new dashboard.RowBuilder('Log'))
    .withPanel(panel('Events', 'Open a line for its fields.', select() + readable, 16));
}
