// ---- tables: who preempted whom, workloads, nodes, what was left out; and the overview ----

const table = (label, heads, body) => h('table', {class: 'plain', 'aria-label': label},
  h('thead', {}, h('tr', {}, heads.map(([text, cls]) => h('th', {scope: 'col', class: cls}, text)))), h('tbody', {}, body));

const preemptions = data.preemptions ?? [];
const omissions = data.omissions ?? [];

const preemptionTable = () => table('Who preempted whom', [['Preemptor'], ['Victim'], ['Pods', 'n'], ['First'], ['Last'], ['Nodes']],
  preemptions.map((p) => h('tr', {},
    h('th', {scope: 'row'}, p.preemptor >= 0 ? laneLink(p.preemptor) : p.preemptorUID ? h('span', {}, 'unknown, uid ', h('code', {}, line(p.preemptorUID, 60))) : 'unknown'),
    h('td', {}, laneLink(p.victim), p.victim === p.preemptor ? h('span', {class: 'muted'}, ' (itself)') : null),
    h('td', {class: 'n'}, number(p.pods)),
    h('td', {class: 't'}, p.events?.length ? rowLink(events[p.events[0]].row, when(parseTime(p.first))) : when(parseTime(p.first))),
    h('td', {class: 't'}, when(parseTime(p.last))),
    h('td', {}, names(p.nodes ?? [])))));

const names = (list) => {
  if (!list.length) return '';
  if (list.length === 1) return nameOf(list[0]);
  return h('details', {class: 'inline'}, h('summary', {}, count(list.length, 'node')), list.map(nameOf).join(', '));
};

// Columns of the tables of workloads and nodes: name, class, value. One without any value is left out.
const LANE_COLUMNS = [
  ['Events', 'n', (l) => laneEvents(l)],
  ['Warnings', 'n', (l) => l.warnings], ['Preempted', 'n', (l) => l.preempted], ['Evicted', 'n', (l) => l.evicted],
  ['First Warning', 't', (l) => l.firstWarning], ['Last Warning', 't', (l) => l.lastWarning],
  ['Started', 'n', (l) => l.started], ['Last start', 't', (l) => l.lastStarted], ['Not scheduled', 'n', (l) => l.waiting],
];

// laneEvents counts the Events of a lane; of a node, with what is normal on it.
const laneEvents = (l) => (l.kind === 'node' ? Math.max(l.events, [...onNodes.get(l.object).values()].reduce((n, list) => n + list.length, 0)) : l.events);

const affected = (l) => (l.preempted || 0) + (l.evicted || 0);

// laneTable has the most affected first.
const laneTable = (label, list) => {
  const columns = LANE_COLUMNS.filter(([, , value]) => list.some(value));
  return table(label, [[label === 'Nodes' ? 'Node' : 'Workload'], ...columns.map(([name, cls]) => [name, cls]), ['What happened']],
    [...list].sort((a, b) => affected(b) - affected(a) || (b.warnings || 0) - (a.warnings || 0)).map((l) => h('tr', {},
      h('th', {scope: 'row'}, l.object >= 0 ? laneLink(l.object) : laneName(l)),
      columns.map(([, cls, value]) => h('td', {class: cls}, cls === 't' ? when(parseTime(value(l))) : value(l) ? number(value(l)) : '–')),
      h('td', {class: 'happened'}, laneReasons(l)))));
};

// ---- reasons: what happened once, and what is so all the time ----

const PARTS = 60; // of the range

const part = (t) => Math.min(PARTS - 1, Math.max(0, Math.floor(((t - whole.from) / (whole.to - whole.from)) * PARTS)));

// spreadOf says in words how a reason is spread over the range.
const spreadOf = (s) => {
  if (s.occurrences === 1) return 'once';
  if (s.spread >= 0.5) return 'throughout';
  const span = s.last - s.first;
  return span < 1000 ? 'at one time' : span < (whole.to - whole.from) / 10 ? `within ${duration(span)}` : 'now and then';
};

const reasonsByName = () => {
  const m = new Map();
  for (const e of events) {
    const r = rows[e.row];
    const key = `${r.gap ? 'gap' : e.type} ${e.reason ?? ''}`;
    let s = m.get(key);
    if (!s) m.set(key, s = {reason: e.reason, row: r, kind: r.routine ? 'routine' : kindOf(r), events: 0, occurrences: 0, workloads: new Set(), nodes: new Set(), first: e.f, last: e.t, parts: new Array(PARTS).fill(0)});
    s.events++;
    s.occurrences += e.count || 1;
    s.workloads.add(objectAt(e.object)?.workload ?? -1);
    if (e.node >= 0) s.nodes.add(e.node);
    s.first = Math.min(s.first, e.f);
    s.last = Math.max(s.last, e.t);
    const from = part(e.f);
    const to = part(e.t);
    for (let i = from; i <= to; i++) s.parts[i] += (e.count || 1) / (to - from + 1); // repeats have no times of their own
  }
  // What is bad and rare comes first.
  const spread = (s) => s.parts.filter(Boolean).length / PARTS;
  return [...m.values()].map((s) => ({...s, spread: spread(s)})).sort((a, b) => Number(BELOW.has(a.kind)) - Number(BELOW.has(b.kind)) || a.spread - b.spread || a.first - b.first);
};

const spark = (s) => {
  const most = Math.max(...s.parts);
  const d = s.parts.map((n, i) => (n ? `M${i * 3} 16v${-Math.max(2, (n / most) * 15).toFixed(1)}h2v${Math.max(2, (n / most) * 15).toFixed(1)}z` : '')).join('');
  return svg('svg', {class: `spark ${s.kind}`, width: PARTS * 3, height: 17, 'aria-hidden': 'true', focusable: 'false'}, svg('path', {class: 'bar', d}));
};

const reasonTable = () => table('Reasons', [['Reason'], ['Over the whole range'], ['Spread'], ['Events', 'n'], ['Occurrences', 'n'], ['Workloads', 'n'], ['Nodes', 'n'], ['First'], ['Last']],
  reasonsByName().slice(0, 500).map((s) => h('tr', {},
    h('th', {scope: 'row'}, icon(s.kind), reasonLink(s)),
    h('td', {}, spark(s)),
    h('td', {class: 't'}, spreadOf(s)),
    [s.events, s.occurrences, s.workloads.size, s.nodes.size].map((n) => h('td', {class: 'n'}, n ? number(n) : '–')),
    h('td', {class: 't'}, when(s.first)), h('td', {class: 't'}, when(s.last)))));

// laneReasons counts the Events of a lane by reason: trouble first, then what is most frequent.
const laneReasons = (l) => {
  const m = new Map();
  for (const i of l.rows) {
    const list = l.kind === 'node' ? onNodes.get(l.object).get(i) ?? [] : rows[i].events;
    for (const e of list) {
      const k = events[e].reason || '(no reason)';
      if (!m.has(k)) m.set(k, {n: 0, below: BELOW.has(kindOf(rows[i]))});
      m.get(k).n++;
    }
  }
  return [...m].sort(([, a], [, b]) => Number(a.below) - Number(b.below) || b.n - a.n).slice(0, 6).map(([reason, {n}]) => `${line(reason, 60)} ${number(n)}`).join(', ') + (m.size > 6 ? ', …' : '');
};

const omissionList = () => h('ul', {class: 'omissions'},
  omissions.map((o) => h('li', {}, o.count ? h('b', {}, number(o.count) + ' ') : null, line(o.text, 2000))),
  gaps.map((g) => h('li', {}, 'Gap: ', rowLink(g.index, times(g)), ' ', line(g.summary || g.message, 500))));

// ---- the tabs below the lanes ----

const TABS = [
  {id: 'story', name: 'Story', size: () => storySize, content: () => storyBox},
  {id: 'preemptions', name: 'Who preempted whom', size: () => preemptions.length, content: () => (preemptions.length ? preemptionTable() : h('p', {class: 'nothing'}, 'No Event of this timeline says that a pod was preempted.'))},
  {id: 'workloads', name: 'Workloads', size: () => lanes.filter((l) => l.kind === 'workload').length, content: () => laneTable('Workloads', lanes.filter((l) => l.kind === 'workload'))},
  {id: 'nodes', name: 'Nodes', size: () => lanes.filter((l) => l.kind === 'node').length, content: () => laneTable('Nodes', lanes.filter((l) => l.kind === 'node'))},
  {id: 'reasons', name: 'Reasons', size: () => new Set(events.map((e) => e.reason)).size, content: () => (events.length ? reasonTable() : h('p', {class: 'nothing'}, 'There are no Events in this range.'))},
  {id: 'omissions', name: 'Left out and gaps', size: () => omissions.length + gaps.length, content: () => (omissions.length + gaps.length ? omissionList() : h('p', {class: 'nothing'}, 'Nothing was left out, and no gap is recorded.'))},
];

const shownCount = h('span', {class: 'shown', id: 'shown', role: 'status'});

const buildTabs = () => {
  fill(byId('tables'), {}, [
    h('div', {class: 'tabs', role: 'tablist', 'aria-label': 'Tables', onkeydown: tabKeys}, TABS.map((t) => h('button', {type: 'button', role: 'tab', id: `tab-${t.id}`, 'data-tab': t.id, 'aria-controls': `panel-${t.id}`, onclick: () => showTab(t.id)}, t.name, h('span', {class: 'badge'})))),
    TABS.map((t) => h('div', {role: 'tabpanel', id: `panel-${t.id}`, class: 'panel', 'aria-labelledby': `tab-${t.id}`, tabindex: t.id === 'story' ? undefined : 0}, h('h2', {class: 'print-only'}, t.name), t.id === 'story' ? storyBox : null))]);
  showTab(ui.tab);
};

const fillTab = (t) => {
  if (t.id !== 'story') byId(`panel-${t.id}`).replaceChildren(h('h2', {class: 'print-only'}, t.name), t.content());
};

const showTab = (id) => {
  ui.tab = id;
  for (const t of TABS) {
    const on = t.id === id;
    const button = byId(`tab-${t.id}`);
    button.setAttribute('aria-selected', String(on));
    button.setAttribute('tabindex', on ? 0 : -1);
    byId(`panel-${t.id}`).classList.toggle('current', on);
    if (on) fillTab(t);
  }
  saveHash();
};

const countTabs = () => { for (const t of TABS) byId(`tab-${t.id}`).querySelector('.badge').textContent = number(t.size()); };

// ---- the overview ----

// evictions joins the rows that tell of evictions by reason and by what came before.
const evictions = () => {
  const m = new Map();
  for (const r of rows) {
    if (kindOf(r) !== 'caused' || r.reason === 'Preempted') continue;
    const key = `${r.reason} ${r.after ?? ''}`;
    if (!m.has(key)) m.set(key, {row: r, pods: 0, workloads: new Set(), nodes: new Set(), t0: r.t0, t1: r.t1});
    const s = m.get(key);
    s.pods += r.objectCount || 1;
    s.workloads.add(r.workload);
    for (const n of r.nodes ?? []) s.nodes.add(n);
    s.t1 = Math.max(s.t1, r.t1);
  }
  return [...m.values()];
};

const reasonLink = (s) => h('button', {type: 'button', class: 'link', title: 'Show only this reason', onclick: () => { filter.reasons = new Set([s.reason || '(no reason)']); invalidate('filter'); }}, line(s.reason, 80).trim() || '(no reason)');

// unusual and usual: reasons of trouble that are rare, and those that are there throughout.
const unusualContent = () => {
  const all = reasonsByName().filter((s) => !BELOW.has(s.kind));
  const throughout = all.filter((s) => s.spread >= 0.5);
  const rare = all.filter((s) => s.spread < 0.5).sort((a, b) => a.first - b.first);
  if (!rare.length || !all.length) return null;
  return [h('h2', {}, 'Unusual, in order of time'),
    h('ul', {class: 'compact'}, rare.slice(0, 12).map((s) => h('li', {}, when(s.first), ' ', reasonLink(s), s.occurrences > 1 ? ` ×${number(s.occurrences)}` : '', h('span', {class: 'muted'}, ` ${spreadOf(s)}`))), rare.length > 12 ? h('li', {class: 'muted'}, `and ${number(rare.length - 12)} more: see Reasons`) : null),
    throughout.length ? h('p', {}, h('span', {class: 'muted'}, 'Throughout: '), throughout.slice(0, 8).flatMap((s, i) => [i ? ', ' : '', reasonLink(s), ` ×${number(s.occurrences)}`])) : null];
};

// busiest returns the tenth of a second, second, minute or hour with most Events.
const busiest = () => {
  const span = whole.to - whole.from;
  const [step, name] = span < 180 * S ? [S, 'second'] : span < 5 * H ? [M, 'minute'] : [H, 'hour'];
  const m = new Map();
  for (const e of events) if (e.t) m.set(Math.floor(e.t / step), (m.get(Math.floor(e.t / step)) ?? 0) + 1);
  let best = [0, 0];
  for (const b of m) if (b[1] > best[1]) best = b;
  return best[1] > 1 ? {t: best[0] * step, n: best[1], step, name} : null;
};

// preemptors are the pairs of who preempted whom; those of a preemptor are together if they are more than two.
const preemptors = () => [...Map.groupBy(preemptions, (p) => `${p.preemptor} ${p.preemptorUID ?? ''}`).values()].flatMap((pairs) => (pairs.length > 2 ? [pairs] : pairs.map((p) => [p])));

const preemptorItem = (pairs) => {
  const [p] = pairs;
  const pods = pairs.reduce((n, o) => n + o.pods, 0);
  const namespaces = new Set(pairs.map((o) => namespaceOf(o.victim)));
  const by = [' by ', p.preemptor >= 0 ? (pairs.length === 1 && p.preemptor === p.victim ? 'itself' : laneLink(p.preemptor)) : 'an unknown pod', h('span', {class: 'muted'}, `, from ${when(parseTime(p.first))}`)];
  if (pairs.length === 1) return h('li', {}, h('b', {}, number(pods)), ' of ', laneLink(p.victim), by);
  return h('li', {}, h('b', {}, number(pods)), ` pods of ${count(pairs.length, 'workload')} in ${namespaces.size === 1 ? [...namespaces][0] : count(namespaces.size, 'namespace')}`, by,
    h('details', {class: 'inline'}, h('summary', {}, count(pairs.length, 'workload')), listOf(pairs, (o) => h('span', {}, h('b', {}, number(o.pods)), ' of ', laneLink(o.victim), o.preemptor === o.victim ? ' (itself)' : ''))));
};

const overviewContent = () => {
  const peak = busiest();
  const pods = preemptions.reduce((n, p) => n + p.pods, 0);
  const q = data.query;
  const waiting = lanes.filter((l) => l.kind === 'workload' && l.waiting);
  const lastStart = lanes.filter((l) => l.kind === 'workload' && affected(l) && l.lastStarted).map((l) => parseTime(l.lastStarted));
  return [
    h('h2', {}, 'At a glance'),
    h('dl', {class: 'glance'},
      (data.marks ?? []).map((m) => { const r = rows[m.row]; const e = events[m.event]; return field(line(m.text, 60), r ? [rowLink(m.row, when(e ? (/^first/i.test(m.text) ? e.f : e.t) : r.t0)), ` ${line(e?.reason ?? r.reason, 60)}, ${line(e ? fullName(e.object) : r.summary, 200)}`] : ''); }),
      peak ? field('busiest ' + peak.name, [h('button', {type: 'button', class: 'link', onclick: () => zoomTo(peak.t, peak.t + peak.step)}, when(peak.t)), ` ${count(peak.n, 'Event')}`]) : [],
      lastStart.length ? field('last start', `${when(Math.max(...lastStart))}, of a pod of what was preempted or evicted`) : [],
      waiting.length ? field('at the end', [waiting.slice(0, 5).map((l, i) => [i ? ', ' : '', `${count(l.waiting, 'pod')} of `, laneLink(l.object)]), waiting.length > 5 ? ` and ${number(waiting.length - 5)} more workloads` : '', ' not scheduled']) : []),
    pods ? [h('h2', {}, 'Who preempted whom'), h('p', {}, `${count(pods, 'pod was', 'pods were')} preempted:`),
      h('ul', {class: 'compact'}, preemptors().slice(0, 8).map(preemptorItem), preemptors().length > 8 ? h('li', {}, `and ${number(preemptors().length - 8)} more`) : null)] : null,
    evictions().length ? [h('h2', {}, 'Evictions'), h('ul', {class: 'compact'}, evictions().slice(0, 8).map((s) => h('li', {}, rowLink(s.row.index, when(s.t0)), ` ${line(s.row.reason, 60)}: `, h('b', {}, number(s.pods)), ` ${s.pods === 1 ? 'pod' : 'pods'} of ${count(s.workloads.size, 'workload')} on ${count(s.nodes.size, 'node')}`, s.t1 > s.t0 ? ` in ${duration(s.t1 - s.t0)}` : '', s.row.after ? `, after ${line(s.row.after, 80)}` : '')))] : null,
    unusualContent(),
    h('h2', {}, 'Marks'),
    h('ul', {class: 'legend'}, Object.entries(KINDS).filter(([k]) => rows.some((r) => kindOf(r) === k)).map(([k, name]) => h('li', {}, icon(k), name))),
    h('p', {class: 'muted'}, 'Upper track: warnings and what was done to a workload. Lower track: normal Events. A mark with several rows names them. A line below a mark is its span, with a tick for each Event.'),
    omissions.length || gaps.length ? [h('h2', {}, 'Left out and gaps'), omissionList()] : null,
    h('h2', {class: 'screen-only'}, 'Moving about'),
    h('dl', {class: 'keys screen-only'},
      field('drag', 'zooms to a range; with Shift, moves it'), field('Ctrl + wheel', 'zooms; pinch does, too'), field('← → ↑ ↓', 'next mark, next lane'), field('Enter', 'opens; Esc closes'), field('+ − 0', 'zoom in, out, whole range'), field('/', 'text filter')),
    h('h2', {}, 'Query'),
    h('dl', {class: 'glance'}, field('from', stored(q.from)), field('to', stored(q.to)), field('around', line(q.around, 100)), field('cluster', line(q.cluster, 100)), field('namespace', line(q.namespace, 100)), field('for', line(q.for, 100)), field('node', line(q.node, 100)), field('filters', (q.filters ?? []).map((s) => line(s, 200)).join(' ')), field('source', line(q.source, 300)),
      field('fetched', data.totals.bytes ? byteSize(data.totals.bytes) + (data.totals.requests ? ` in ${count(data.totals.requests, 'request')}` : '') : ''), field('made', stored(data.generated))),
  ];
};
