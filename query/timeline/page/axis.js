// ---- axis: the scale of the view, ticks, and the whole range as a histogram ----

const LABEL = 232; // px of the column of lane names
const axisBox = byId('axis');
const plot = byId('plot');
let plotWidth = 600; // px of the drawing area
let printing = false;

const xOf = (ms) => ((ms - view.from) / (view.to - view.from)) * plotWidth;
const msAt = (x) => view.from + (x / plotWidth) * (view.to - view.from);

const S = 1000, M = 60 * S, H = 60 * M, D = 24 * H;
const STEPS = [1, 2, 5, 10, 20, 50, 100, 200, 500, S, 2 * S, 5 * S, 10 * S, 15 * S, 30 * S, M, 2 * M, 5 * M, 10 * M, 15 * M, 30 * M, H, 2 * H, 3 * H, 6 * H, 12 * H, D, 2 * D, 7 * D, 14 * D, 28 * D];

// ticks returns where the axis has lines, and their texts.
const ticks = () => {
  const perPixel = (view.to - view.from) / plotWidth;
  const step = STEPS.find((s) => s / perPixel >= 84) ?? 28 * D;
  const o = offset(view.from);
  const out = [];
  let last = '';
  for (let t = Math.ceil((view.from + o) / step) * step - o; t <= view.to && out.length < 100; t += step) {
    const date = isoDay(t);
    const text = step >= D ? day(t) : clock(t, step < S ? 3 : 0).slice(0, step < S ? 12 : step < M ? 8 : 5);
    out.push({t, x: xOf(t), text: manyDays() && step < D && date !== last ? `${day(t)} ${text}` : text});
    last = date;
  }
  return out;
};

const HISTOGRAM = 32; // px
const overview = {bars: [], width: 0};

// countBars counts the shown Events of the whole range in bars of some pixels.
const countBars = () => {
  const n = Math.max(20, Math.floor(plotWidth / 5));
  const bars = Array.from({length: n}, () => [0, 0, 0]);
  for (const r of rows) {
    if (!r.shown) continue;
    const above = kindOf(r) === 'caused' ? 2 : Number(!BELOW.has(kindOf(r)));
    if (!r.matches.length) bars[Math.min(n - 1, Math.max(0, Math.floor(((r.t0 - whole.from) / (whole.to - whole.from)) * n)))][above] += r.n;
    for (const i of r.matches) bars[Math.min(n - 1, Math.max(0, Math.floor(((events[i].t - whole.from) / (whole.to - whole.from)) * n)))][above]++;
  }
  overview.bars = bars;
  overview.width = plotWidth;
};

const drawAxis = () => {
  if (overview.width !== plotWidth) countBars();
  const most = Math.max(1, ...overview.bars.map(([a, b, c]) => a + b + c));
  const w = plotWidth / overview.bars.length;
  const paths = ['', '', ''];
  overview.bars.forEach((bar, i) => {
    const n = bar[0] + bar[1] + bar[2];
    const all = n && Math.max(2, Math.sqrt(n / most) * HISTOGRAM); // the root keeps single Events visible beside thousands
    let y = HISTOGRAM;
    for (const k of [2, 1, 0]) { // what was done to others at the bottom
      if (!bar[k]) continue;
      const part = Math.max(1.5, (all * bar[k]) / n);
      paths[k] += `M${(i * w).toFixed(1)} ${y.toFixed(1)}h${(w - 1).toFixed(1)}v${(-part).toFixed(1)}h${(1 - w).toFixed(1)}z`;
      y -= part;
    }
  });
  const at = (ms) => Math.min(plotWidth, Math.max(0, ((ms - whole.from) / (whole.to - whole.from)) * plotWidth));
  const x0 = at(view.from);
  const x1 = Math.max(x0 + 2, at(view.to));
  const chart = svg('svg', {class: 'overview', width: plotWidth, height: HISTOGRAM + 2, 'aria-hidden': 'true', focusable: 'false'},
    ['normal', 'warning', 'caused'].map((k, i) => svg('path', {class: 'bar ' + k, d: paths[i]})),
    gaps.filter((g) => g.shown).map((g) => svg('rect', {class: 'band', x: at(g.t0), y: 0, width: Math.max(2, at(g.t1) - at(g.t0)), height: HISTOGRAM})),
    isWhole() ? null : [
      svg('rect', {class: 'outside', x: 0, y: 0, width: x0, height: HISTOGRAM + 2}),
      svg('rect', {class: 'outside', x: x1, y: 0, width: Math.max(0, plotWidth - x1), height: HISTOGRAM + 2}),
      svg('rect', {class: 'window', x: x0, y: 0.5, width: x1 - x0, height: HISTOGRAM + 1}),
    ]);
  const scale = svg('svg', {class: 'scale', width: plotWidth, height: 18, 'aria-hidden': 'true', focusable: 'false'},
    ticks().map((t) => svg('g', {}, svg('line', {x1: t.x, x2: t.x, y1: 13, y2: 18}), t.x + t.text.length * 6.2 < plotWidth ? svg('text', {x: t.x + 3, y: 12}, t.text) : null)));
  byId('axis-drawing').replaceChildren(chart, scale);
};

// ---- zoom ----

// setView shows a range. It stays within the whole range.
const setView = (from, to) => {
  let span = Math.min(Math.max(to - from, MIN_SPAN), whole.to - whole.from);
  if (!Number.isFinite(span)) span = whole.to - whole.from;
  const start = Math.min(Math.max(from, whole.from), whole.to - span);
  view.from = start;
  view.to = start + span;
  invalidate('view');
};

const zoomAt = (factor, ms = (view.from + view.to) / 2) => setView(ms - (ms - view.from) / factor, ms + (view.to - ms) / factor);
const pan = (part) => { const d = (view.to - view.from) * part; setView(view.from + d, view.to + d); };
const showWhole = () => setView(whole.from, whole.to);

// bringIntoView moves or widens the view so that it holds a range, or its beginning.
const bringIntoView = (t0, t1) => {
  if (t0 >= view.from && t0 <= view.to) return;
  const span = view.to - view.from;
  const middle = Math.min((t0 + t1) / 2, t0 + span / 3);
  setView(middle - span / 2, middle + span / 2);
};
const zoomTo = (t0, t1) => { const space = Math.max((t1 - t0) * 0.15, 200); setView(t0 - space, t1 + space); };

const buildAxis = () => {
  const tool = (text, label, action) => h('button', {type: 'button', class: 'tool', 'aria-label': label, title: label, onclick: action}, text);
  axisBox.append(
    h('div', {class: 'zoom', role: 'group', 'aria-label': 'Zoom'},
      tool('−', 'Zoom out', () => zoomAt(1 / 1.6)), tool('+', 'Zoom in', () => zoomAt(1.6)),
      tool('‹', 'Earlier', () => pan(-0.4)), tool('›', 'Later', () => pan(0.4)),
      h('button', {type: 'button', class: 'tool wide', id: 'whole', title: 'Show the whole range', onclick: showWhole}, 'Whole range')),
    h('div', {class: 'axis-drawing', id: 'axis-drawing'}));
};
