// The dashboard of Hindsight's own metrics, from Prometheus.
import * as common from '@grafana/grafana-foundation-sdk/common';
import * as dashboard from '@grafana/grafana-foundation-sdk/dashboard';
import * as prometheus from '@grafana/grafana-foundation-sdk/prometheus';
import { all, bars, datasource, lines, number, type Query } from './panels.js';

const source: common.DataSourceRef = { type: 'prometheus', uid: '${prometheus}' };
const chosen = 'job=~"$job", instance=~"$instance"';

const at = (expr: string): Query => new prometheus.DataqueryBuilder()
  .datasource(source).refId('A').expr(expr).instant();
const query = (refId: string, expr: string, legend: string): Query => new prometheus.DataqueryBuilder()
  .datasource(source).refId(refId).expr(expr).legendFormat(legend).range();
const over = (expr: string, legend: string): Query => query('A', expr, legend);

const rate = (name: string, by = '') =>
  `sum${by && ` by (${by})`} (rate(hindsight_${name}{${chosen}}[$__rate_interval]))`;
const increase = (name: string, by: string) =>
  `sum by (${by}) (increase(hindsight_${name}{${chosen}}[$__rate_interval]))`;
const counted = (name: string) => `sum(increase(hindsight_${name}{${chosen}}[$__range]))`;
const gauge = (name: string) => `hindsight_${name}{${chosen}}`;

// Seconds since a timestamp; none for 0, which means that there is no timestamp.
const since = (name: string) => `time() - (${gauge(name)} > 0)`;

function variable(name: string, of: string): dashboard.QueryVariableBuilder {
  return new dashboard.QueryVariableBuilder(name)
    .datasource(source)
    .query({ refId: 'PrometheusVariableQueryEditor-VariableQuery', qryType: 1, query: `label_values(${of}, ${name})` })
    .refresh(dashboard.VariableRefresh.OnTimeRangeChanged)
    .sort(dashboard.VariableSort.AlphabeticalAsc)
    .multi(true).includeAll(true).allValue('.*').current(all);
}

const thresholds = (...steps: dashboard.Threshold[]) =>
  new dashboard.ThresholdsConfigBuilder().mode(dashboard.ThresholdsMode.Absolute).steps(steps);

export function hindsight(): dashboard.DashboardBuilder {
  return new dashboard.DashboardBuilder('Hindsight')
    .uid('hindsight')
    .description('The path of Events from the API server to the sinks, with delays, drops and gaps.')
    .tags(['kubernetes', 'events', 'hindsight'])
    .time({ from: 'now-6h', to: 'now' }).timezone('browser').refresh('1m')
    .tooltip(dashboard.DashboardCursorSync.Crosshair)
    .withVariable(datasource('prometheus', 'prometheus'))
    .withVariable(variable('job', 'hindsight_journal_bytes'))
    .withVariable(variable('instance', 'hindsight_journal_bytes{job=~"$job"}'))

    .withRow(new dashboard.RowBuilder('Now'))
    .withPanel(number('Replicas', 'Processes that answer.', { w: 3 },
      at(`count(${gauge('journal_bytes')})`), false).datasource(source))
    .withPanel(number('Leaders', 'With leader election: one, or none for some seconds during a failover.', { w: 3 },
      at(`sum(${gauge('lease_leader')})`), false).datasource(source).noValue('no election')
      .thresholds(thresholds({ value: null, color: 'red' }, { value: 1, color: 'green' }, { value: 2, color: 'orange' })))
    .withPanel(number('Last contact', 'Since the last valid response of the API server. An idle cluster is listed every two minutes.', { w: 3 },
      at(`time() - max(${gauge('watch_last_contact_timestamp_seconds')})`)).datasource(source).unit('s')
      .thresholds(thresholds({ value: null, color: 'green' }, { value: 180, color: 'orange' }, { value: 300, color: 'red' })))
    .withPanel(number('Lag', 'The greatest of all sinks.', { w: 3 },
      at(`max(${gauge('sink_lag_seconds')})`)).datasource(source).unit('s')
      .thresholds(thresholds({ value: null, color: 'green' }, { value: 60, color: 'orange' }, { value: 600, color: 'red' })))
    .withPanel(number('Behind', 'Records in the journal that some sink has not accepted.', { w: 3 },
      at(`max(${gauge('sink_behind_records')})`), false).datasource(source))
    .withPanel(number('Gaps', 'Ranges in which states may be missing.', { w: 3 },
      at(counted('watch_gaps_total'))).datasource(source))
    .withPanel(number('Dropped', 'Records that a sink will never receive.', { w: 3 },
      at(counted('sink_dropped_total'))).datasource(source))
    .withPanel(number('Configuration', 'Whether the current file is in use.', { w: 3 },
      at(`min(${gauge('config_last_reload_successful')})`)).datasource(source)
      .thresholds(thresholds({ value: null, color: 'red' }, { value: 1, color: 'green' }))
      .mappings([{ type: dashboard.MappingType.ValueToText, options: { 0: { text: 'refused' }, 1: { text: 'in use' } } }]))

    .withRow(new dashboard.RowBuilder('The way of an Event'))
    .withPanel(lines('Read, journaled, accepted', 'States per second: read from the API server; journaled, which excludes dropped states; accepted by each sink, which only receives matching states.', { w: 16, h: 10 },
      query('A', `${rate('watch_events_total')} + ${rate('watch_skipped_total')}`, 'read'),
      query('B', `${rate('watch_events_total')} - ${rate('intake_dropped_total')}`, 'journaled'),
      query('C', rate('sink_sent_total', 'sink'), 'accepted by {{sink}}')).datasource(source).unit('cps'))
    .withPanel(bars('Dropped, skipped, relabelled, redacted', 'Drop rules; states read before or undecodable; labels that became "other"; redactions.', { w: 8, h: 10 },
      query('A', increase('intake_dropped_total', 'job'), 'drop rules'),
      query('B', increase('watch_skipped_total', 'reason'), 'skipped: {{reason}}'),
      query('C', increase('intake_other_labels_total', 'cause'), 'label "other": {{cause}}'),
      query('D', increase('intake_redacted_total', 'job'), 'redacted')).datasource(source))

    .withRow(new dashboard.RowBuilder('Sinks'))
    .withPanel(lines('Lag', 'Age of the oldest record that the sink has not accepted.', { w: 8 },
      over(gauge('sink_lag_seconds'), '{{sink}} {{instance}}')).datasource(source).unit('s'))
    .withPanel(lines('Behind and parked', 'Records in the journal that the sink has not accepted; and parked records, whose stream it rejects while it accepts others.', { w: 8 },
      query('A', gauge('sink_behind_records'), 'behind: {{sink}} {{instance}}'),
      query('B', gauge('sink_parked_records'), 'parked: {{sink}} {{instance}}')).datasource(source))
    .withPanel(bars('Dropped', 'Records that the sink will never receive: overflow or damage of the journal, permanent rejection, parked for too long, or removal of the sink with a backlog.', { w: 8 },
      over(increase('sink_dropped_total', 'sink, reason'), '{{sink}}: {{reason}}')).datasource(source))
    .withPanel(bars('Retries', 'Failed attempts that were retried.', { w: 8 },
      over(increase('sink_retries_total', 'sink, reason'), '{{sink}}: {{reason}}')).datasource(source))
    .withPanel(bars('Resent, parked', 'Records of those attempts; and records that were parked.', { w: 8 },
      query('A', increase('sink_resent_total', 'sink'), 'sent again: {{sink}}'),
      query('B', increase('sink_parked_total', 'sink'), 'parked: {{sink}}')).datasource(source))
    .withPanel(lines('Parked', 'Size of the parked records. Beyond max_parked_bytes the oldest are dropped.', { w: 8 },
      over(gauge('sink_parked_bytes'), '{{sink}} {{instance}}')).datasource(source).unit('bytes'))

    .withRow(new dashboard.RowBuilder('Journal'))
    .withPanel(lines('Bytes', 'And the limit, journal.max_bytes.', { w: 8 },
      query('A', gauge('journal_bytes'), '{{instance}}'),
      query('B', gauge('journal_max_bytes'), 'limit {{instance}}')).datasource(source).unit('bytes'))
    .withPanel(lines('Records', 'Kept for some sink.', { w: 8 },
      over(gauge('journal_records'), '{{instance}}')).datasource(source))
    .withPanel(lines('Blocked', 'The fraction of time in which appends were blocked; and bytes that were truncated when it was opened.', { w: 8 },
      query('A', `rate(${gauge('journal_blocked_seconds_total')}[$__rate_interval])`, 'blocked {{instance}}'),
      query('B', gauge('journal_truncated_bytes_total'), 'bytes truncated {{instance}}')).datasource(source)
      .unit('percentunit').overrideByQuery('B', [{ id: 'unit', value: 'bytes' }, { id: 'custom.axisPlacement', value: 'right' }]))

    .withRow(new dashboard.RowBuilder('Watch'))
    .withPanel(lines('Since the last contact', 'By source; an idle cluster is listed every two minutes.', { w: 6 },
      over(since('watch_last_contact_timestamp_seconds'), '{{source}} {{instance}}')).datasource(source).unit('s'))
    .withPanel(lines('Canary', 'With canary: the latency of its last Event through the watch, and until it was found in Loki.', { w: 6 },
      query('A', gauge('canary_watch_seconds'), 'watch'),
      query('B', gauge('canary_loki_seconds'), 'Loki')).datasource(source).unit('s').noValue('no canary'))
    .withPanel(bars('Lists', 'By cause; and lists that exceeded the spool.', { w: 6 },
      query('A', increase('watch_relists_total', 'reason'), '{{reason}}'),
      query('B', increase('watch_spool_overflows_total', 'job'), 'spool overflow')).datasource(source))
    .withPanel(bars('Gaps', 'By cause; and watches that delivered nothing while lists showed newer Events.', { w: 6 },
      query('A', increase('watch_gaps_total', 'cause'), '{{cause}}'),
      query('B', increase('watch_stalls_total', 'job'), 'silent watch')).datasource(source))

    .withRow(new dashboard.RowBuilder('Lease and process'))
    .withPanel(lines('Leader', 'With leader election: the leading replica.', { w: 6 },
      over(gauge('lease_leader'), '{{instance}}')).datasource(source).max(1).decimals(0))
    .withPanel(lines('Lease', 'Since the last renewal, and failed requests for it.', { w: 6 },
      query('A', since('lease_last_renewal_timestamp_seconds'), 'renewed {{instance}}'),
      query('B', `increase(${gauge('lease_failures_total')}[$__rate_interval])`, 'failures {{instance}}')).datasource(source)
      .unit('s').overrideByQuery('B', [{ id: 'unit', value: 'short' }, { id: 'custom.axisPlacement', value: 'right' }]))
    .withPanel(lines('Positions in the Lease', 'Kubernetes allows 256 KiB of annotations.', { w: 6 },
      over(gauge('lease_checkpoint_bytes'), '{{instance}}')).datasource(source).unit('bytes'))
    .withPanel(lines('Memory and CPU', 'Resident memory; CPU in cores.', { w: 6 },
      query('A', `process_resident_memory_bytes{${chosen}} and on (job, instance) ${gauge('journal_bytes')}`, 'memory {{instance}}'),
      query('B', `rate(process_cpu_seconds_total{${chosen}}[$__rate_interval]) and on (job, instance) ${gauge('journal_bytes')}`, 'CPU {{instance}}')).datasource(source)
      .unit('bytes').overrideByQuery('B', [{ id: 'unit', value: 'short' }, { id: 'custom.axisPlacement', value: 'right' }]));
}
