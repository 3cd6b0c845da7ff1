// Panels shared by both dashboards.
import * as common from '@grafana/grafana-foundation-sdk/common';
import * as dashboard from '@grafana/grafana-foundation-sdk/dashboard';
import * as stat from '@grafana/grafana-foundation-sdk/stat';
import * as table from '@grafana/grafana-foundation-sdk/table';
import * as timeseries from '@grafana/grafana-foundation-sdk/timeseries';
import type { Builder, Dataquery } from '@grafana/grafana-foundation-sdk/cog';

export type Query = Builder<Dataquery>;

// Width and height of a panel; a row has 24 columns.
export interface Size {
  w: number;
  h?: number;
}

// datasource is the variable for the data source, so that a dashboard is bound to none.
export function datasource(name: string, type: string): dashboard.DatasourceVariableBuilder {
  return new dashboard.DatasourceVariableBuilder(name).label('Data source').type(type);
}

export const all = { selected: true, text: 'All', value: '$__all' };

// A number for the whole range. Where it is coloured, zero is green.
export function number(title: string, description: string, size: Size, query: Query, warn = true): stat.PanelBuilder {
  const steps: dashboard.Threshold[] = [{ value: null, color: warn ? 'green' : 'blue' }];
  if (warn) {
    steps.push({ value: 1, color: 'orange' });
  }
  return new stat.PanelBuilder()
    .title(title).description(description).span(size.w).height(size.h ?? 4)
    .withTarget(query)
    .noValue('0').decimals(0)
    .graphMode(common.BigValueGraphMode.None)
    .colorMode(common.BigValueColorMode.Value)
    .reduceOptions(new common.ReduceDataOptionsBuilder().calcs(['lastNotNull']))
    .thresholds(new dashboard.ThresholdsConfigBuilder().mode(dashboard.ThresholdsMode.Absolute).steps(steps));
}

// Stacked bars: counts per interval.
export function bars(title: string, description: string, size: Size, ...queries: Query[]): timeseries.PanelBuilder {
  return lines(title, description, size, ...queries)
    .drawStyle(common.GraphDrawStyle.Bars)
    .fillOpacity(80).lineWidth(0).decimals(0)
    .stacking(new common.StackingConfigBuilder().mode(common.StackingMode.Normal));
}

export function lines(title: string, description: string, size: Size, ...queries: Query[]): timeseries.PanelBuilder {
  return new timeseries.PanelBuilder()
    .title(title).description(description).span(size.w).height(size.h ?? 8)
    .targets(queries)
    .min(0).fillOpacity(10).lineWidth(1)
    .showPoints(common.VisibilityMode.Never)
    .legend(new common.VizLegendOptionsBuilder()
      .displayMode(common.LegendDisplayMode.List).placement(common.LegendPlacement.Bottom).showLegend(true).calcs([]))
    .tooltip(new common.VizTooltipOptionsBuilder().mode(common.TooltipDisplayMode.Multi).sort(common.SortOrder.Descending));
}

// A table of a query's labels, greatest value first.
export function ranking(title: string, description: string, size: Size, columns: string[], query: Query): table.PanelBuilder {
  const indexByName = Object.fromEntries([...columns, 'Value #A'].map((name, i) => [name, i]));
  return new table.PanelBuilder()
    .title(title).description(description).span(size.w).height(size.h ?? 9)
    .withTarget(query)
    .sortBy([new common.TableSortByFieldStateBuilder().displayName('count').desc(true)])
    .transformations([{
      id: 'organize',
      options: { excludeByName: { Time: true }, indexByName, renameByName: { 'Value #A': 'count', Value: 'count' } },
    }]);
}
