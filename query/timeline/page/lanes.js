// ---- lanes: one for each workload, node and namespace; marks are SVG elements ----

const LANE = 38; // px
const HEADING = 22;
const TRACKS = [10, 27]; // y of what is bad, and of what is normal
const NEAR = 13; // px: marks that are nearer than this become one
const ORDER = ['gap', 'caused', 'warning', 'level', 'other', 'normal', 'routine'];
const SHAPES = {
  warning: 'M0-5.6L5.6 4.6H-5.6z',
  level: 'M0-5.6L5.6 4.6H-5.6z',
  caused: 'M0-6L6 0L0 6L-6 0z',
  normal: 'M-4.2 0a4.2 4.2 0 1 0 8.4 0a4.2 4.2 0 1 0-8.4 0z',
  routine: 'M-4.4-3.2h8.8v6.4h-8.8z',
  other: 'M-4-4.5h8l2.4 4.5l-2.4 4.5h-8l-2.4-4.5z',
  gap: 'M-4.6-4.6h9.2v9.2h-9.2zM-4.6-4.6l9.2 9.2M4.6-4.6l-9.2 9.2',
};
const shape = (kind, className = 'shape') => svg('path', {class: className, d: SHAPES[kind]});
const icon = (kind) => svg('svg', {class: `icon ${kind}`, width: 14, height: 14, viewBox: '-7 -7 14 14', 'aria-hidden': 'true', focusable: 'false'}, shape(kind));

const ui = {row: -1, event: -1, cluster: null, activeLane: -1, activeRow: -1, tab: 'story', pane: 'overview'};

let layout = []; // {y, height, heading} or {y, height, lane}
let layoutHeight = 0;
let laneData = new Map(); // lane → its marks, until the filter changes

const marksOf = (l) => {
  if (!laneData.has(l.index)) laneData.set(l.index, laneMarks(l));
  return laneData.get(l.index);
};

const GROUPS = {workload: ['Workloads', 'Other workloads'], node: ['Nodes', 'Other nodes'], namespace: ['Namespaces', 'Other namespaces'], gap: ['Gaps', 'Gaps']};

// layLanes places the lanes that have marks.
const layLanes = () => {
  laneData = new Map();
  layout = [];
  const seen = new Set();
  let kind = '';
  let y = 0;
  for (const lane of lanes) {
    if (!lane.rows.some((i) => rows[i]?.shown) || (lane.kind === 'node' && !marksOf(lane).length)) continue;
    if (lane.kind !== kind) {
      kind = lane.kind;
      layout.push({y, height: HEADING, heading: (GROUPS[kind] ?? [kind, kind])[seen.has(kind) ? 1 : 0]});
      seen.add(kind);
      y += HEADING;
    }
    layout.push({y, height: LANE, lane});
    y += LANE;
  }
  layoutHeight = y;
};

const ruler = document.createElement('canvas').getContext('2d');
const widths = new Map();
const widthOf = (s) => {
  if (!widths.has(s)) {
    if (!widths.size) ruler.font = '10.5px ' + getComputedStyle(document.body).fontFamily;
    widths.set(s, ruler.measureText(s).width);
  }
  return widths.get(s);
};

// clusters returns the marks of a lane as drawn: neighbours on one track that would overlap are one.
const clusters = (l) => {
  const out = [[], []];
  for (const m of marksOf(l)) {
    if (m.t1 < view.from || m.t0 > view.to) continue;
    const track = BELOW.has(m.kind) ? 1 : 0;
    const x = Math.max(xOf(m.t0), 0);
    const end = Math.min(xOf(m.t1), plotWidth);
    const last = out[track].at(-1);
    if (last && x - last.x < NEAR) {
      last.marks.push(m);
      last.n += m.n;
      last.end = Math.max(last.end, end);
      if (ORDER.indexOf(m.kind) < ORDER.indexOf(last.kind)) last.kind = m.kind;
    } else out[track].push({lane: l, track, x, end, marks: [m], n: m.n, kind: m.kind});
  }
  return out;
};
const has = (c, row) => c.marks.some((m) => m.row.index === row);
const inOrder = (l) => clusters(l).flat().sort((a, b) => a.x - b.x || a.track - b.track);

const reasonsOf = (c) => {
  const m = new Map();
  for (const { row, n } of c.marks) m.set(whatOf(row), (m.get(whatOf(row)) ?? 0) + n);
  return [...m].sort((a, b) => b[1] - a[1]).map(([what]) => what);
};

const clusterLabel = (c) => (c.marks.length === 1
  ? sentence(c.marks[0].row) + (c.n < c.marks[0].row.n ? `; ${number(c.n)} of them here` : '')
  : `${count(c.marks.length, 'row')}, ${count(c.n, 'Event')}, from ${when(c.marks[0].t0)}: ${reasonsOf(c).slice(0, 5).join(', ')}`);

const drawCluster = (c, next) => {
  const y = TRACKS[c.track];
  const active = c.lane.index === ui.activeLane && has(c, ui.activeRow);
  const chosen = ui.row >= 0 && has(c, ui.row);
  const g = svg('g', {class: `mark ${c.kind}${chosen ? ' chosen' : ''}`, role: 'button', tabindex: active ? 0 : -1, transform: `translate(${c.x.toFixed(1)} ${y})`});
  if (c.end - c.x > 7) {
    g.append(svg('rect', {class: 'span', x: 0, y: 6.5, width: (c.end - c.x).toFixed(1), height: 2}));
    let d = '';
    let at = -10;
    for (const m of c.marks) {
      for (const i of m.list) {
        const x = xOf(events[i].t) - c.x;
        if (x > at + 2 && x <= c.end - c.x) { at = x; d += `M${x.toFixed(1)} 5.5v4`; }
      }
    }
    if (d) g.append(svg('path', {class: 'times', d}));
  }
  g.append(svg('circle', {class: 'hit', r: 9}), shape(c.kind));
  const room = (next ? next.x : plotWidth) - c.x - 18;
  const names = reasonsOf(c);
  const times = c.n > 1 ? ` ×${number(c.n)}` : '';
  const text = [names.length > 2 ? `${names[0]}, ${names[1]} +${names.length - 2}${times}` : '', names.length > 1 ? `${names[0]} +${names.length - 1}${times}` : names[0] + times, c.n > 1 ? number(c.n) : ''].find((s) => s && widthOf(s) <= room);
  if (text) g.append(svg('text', {x: 11, y: 3.5}, text));
  g.setAttribute('aria-label', (text ? text + ': ' : '') + clusterLabel(c)); // begins with what is visible
  drawn.set(g, c);
  return g;
};

let drawn = new Map(); // element → cluster

const drawLane = ({y, lane}, lines) => {
  const selected = objectAt(lane.object)?.relation === 'selected';
  const notes = [lane.kind === 'gap' ? '' : namespaceOf(lane.object), lane.preempted ? `${number(lane.preempted)} preempted` : '', lane.evicted ? `${number(lane.evicted)} evicted` : '', lane.warnings ? count(lane.warnings, 'Warning') : count(lane.events, 'Event')].filter(Boolean).join(' · ');
  const only = filter.lane === lane.index;
  const box = h('div', {class: 'lane' + (selected ? ' selected' : ''), role: 'group', 'aria-label': `${laneKind(lane)} ${laneName(lane)}, ${notes}`},
    h('button', {type: 'button', class: 'lane-name', 'data-lane': lane.index, 'aria-pressed': String(only), title: `${laneKind(lane)} ${laneName(lane)}\n${notes}\n${only ? 'Show all lanes' : 'Show only this lane'}`},
      h('span', {class: 'name'}, laneName(lane), h('span', {class: 'kind'}, laneKind(lane))), h('span', {class: 'notes'}, notes)));
  const drawing = svg('svg', {class: 'drawing', width: plotWidth, height: LANE});
  drawing.append(...lines.map((x) => svg('line', {class: 'grid', x1: x, x2: x, y1: 0, y2: LANE})),
    ...gaps.filter((g) => g.shown && g.t1 >= view.from && g.t0 <= view.to).map((g) => svg('rect', {class: 'band', x: xOf(g.t0), y: 0, width: Math.max(3, xOf(g.t1) - xOf(g.t0)), height: LANE})));
  for (const track of clusters(lane)) track.forEach((c, i) => drawing.append(drawCluster(c, track[i + 1])));
  box.append(drawing);
  box.style.top = y + 'px';
  return box;
};

const lanesBox = h('div', {class: 'lanes-box', role: 'group', 'aria-label': 'Marks', 'aria-describedby': 'lanes-help'});
const brush = h('div', {class: 'brush', hidden: true});

// What is in sight, as of the last scroll or resize: to ask for it while drawing would lay out the page in between.
const sight = {lanesTop: 0, lanesHeight: 600, storyTop: 0, storyHeight: 600};

const visible = () => {
  if (printing || layout.length < 40) return layout;
  const top = sight.lanesTop - 2 * LANE;
  const bottom = sight.lanesTop + sight.lanesHeight + 2 * LANE;
  return layout.filter((l) => l.y + l.height >= top && l.y <= bottom);
};

// ensureActive keeps exactly one mark in the order of the Tab key.
const ensureActive = () => {
  const lane = lanes[ui.activeLane];
  if (lane && layout.some((l) => l.lane === lane) && inOrder(lane).some((c) => has(c, ui.activeRow))) return;
  for (const l of visible()) {
    const first = l.lane && inOrder(l.lane)[0];
    if (first) {
      ui.activeLane = l.lane.index;
      ui.activeRow = first.marks[0].row.index;
      return;
    }
  }
};

const drawLanes = () => {
  const focused = document.activeElement;
  const onMark = drawn.has(focused);
  const onName = focused?.classList?.contains('lane-name') ? focused.dataset.lane : undefined;
  drawn = new Map();
  ensureActive();
  const lines = ticks().map((t) => t.x);
  lanesBox.style.height = Math.max(layoutHeight, 30) + 'px';
  const content = visible().map((l) => {
    if (l.lane) return drawLane(l, lines);
    const heading = h('h3', {class: 'group'}, l.heading);
    heading.style.top = l.y + 'px';
    return heading;
  });
  if (!layout.length) content.push(h('p', {class: 'nothing'}, events.length || rows.length ? 'No Event passes the filters.' : 'There are no Events in this range.'));
  lanesBox.replaceChildren(...content);
  if (onMark) focusActive(false);
  if (onName !== undefined) lanesBox.querySelector(`.lane-name[data-lane="${Number(onName)}"]`)?.focus({preventScroll: true});
};

const focusActive = (scroll = true) => {
  for (const [g, c] of drawn) {
    if (c.lane.index === ui.activeLane && has(c, ui.activeRow)) {
      g.focus({preventScroll: !scroll});
      return;
    }
  }
};

// goTo makes a mark the active one, scrolls to it and focuses it.
const goTo = (lane, mark) => {
  ui.activeLane = lane.index;
  ui.activeRow = mark.row.index;
  bringIntoView(mark.t0, mark.t1);
  const l = layout.find((p) => p.lane === lane);
  if (l.y < plot.scrollTop + HEADING) plot.scrollTop = Math.max(0, l.y - HEADING);
  else if (l.y + LANE > plot.scrollTop + plot.clientHeight) plot.scrollTop = l.y + LANE - plot.clientHeight + 6;
  sight.lanesTop = plot.scrollTop;
  dirty.lanes = true;
  render();
  focusActive(false);
};

const open = (c, byKey) => {
  ui.activeLane = c.lane.index;
  ui.activeRow = c.marks[0].row.index;
  if (c.marks.length === 1) selectRow(c.marks[0].row.index, {cluster: c.n < c.marks[0].row.n ? c : null, byKey});
  else selectCluster(c, byKey);
};

const onLaneKey = (e) => {
  const c = drawn.get(e.target);
  if (e.key === '+' || e.key === '=') zoomAt(1.6, c ? Math.max(view.from, c.marks[0].t0) : undefined);
  else if (e.key === '-' || e.key === '_') zoomAt(1 / 1.6, c ? Math.max(view.from, c.marks[0].t0) : undefined);
  else if (e.key === '0') showWhole();
  else if (e.shiftKey && e.key === 'ArrowLeft') pan(-0.3);
  else if (e.shiftKey && e.key === 'ArrowRight') pan(0.3);
  else if (!c) return;
  else if (e.key === 'Enter' || e.key === ' ') open(c, true);
  else if (e.key === 'ArrowLeft' || e.key === 'ArrowRight' || e.key === 'Home' || e.key === 'End') {
    const all = marksOf(c.lane);
    const shown = inOrder(c.lane);
    const i = shown.findIndex((o) => has(o, ui.activeRow));
    let target;
    if (e.key === 'Home') target = all[0];
    else if (e.key === 'End') target = all.at(-1);
    else if (e.key === 'ArrowLeft') target = shown[i - 1]?.marks[0] ?? all.findLast((m) => m.t1 < view.from || m.t0 < Math.min(view.from, c.marks[0].t0));
    else target = shown[i + 1]?.marks[0] ?? all.find((m) => m.t0 > view.to);
    if (target) goTo(c.lane, target);
  } else if (e.key === 'ArrowUp' || e.key === 'ArrowDown') {
    const order = layout.filter((l) => l.lane);
    const step = e.key === 'ArrowUp' ? -1 : 1;
    for (let i = order.findIndex((l) => l.lane === c.lane) + step; order[i]; i += step) {
      const near = inOrder(order[i].lane).reduce((best, o) => (!best || Math.abs(o.x - c.x) < Math.abs(best.x - c.x) ? o : best), null);
      if (near) { goTo(order[i].lane, near.marks[0]); break; }
    }
  } else return;
  e.preventDefault();
  e.stopPropagation();
};
