// ---- model: the Timeline, what the filters leave of it, and the range in view ----

const data = JSON.parse(byId('data').textContent);
const objects = data.objects ?? [];
const events = data.events ?? [];
const rows = data.rows ?? [];
const lanes = data.lanes ?? [];

for (const e of events) {
  e.t = parseTime(e.time);
  e.f = e.first ? parseTime(e.first) : e.t;
  if (Number.isNaN(e.t)) e.t = e.f;
  if (Number.isNaN(e.f)) e.f = e.t;
}
rows.forEach((r, i) => {
  r.index = i;
  r.t0 = parseTime(r.first);
  r.t1 = parseTime(r.last);
  if (Number.isNaN(r.t1)) r.t1 = r.t0;
  r.events ??= [];
  r.lanes = [];
});
// A node's lane has all that happened on the node, also what is normal: node → row → Events.
const onNodes = new Map(lanes.filter((l) => l.kind === 'node').map((l) => [l.object, new Map()]));
events.forEach((e, i) => {
  for (const node of e.node === e.object ? [e.node] : [e.node, e.object]) {
    const here = onNodes.get(node);
    if (!here) continue;
    if (here.has(e.row)) here.get(e.row).push(i); else here.set(e.row, [i]);
  }
});
lanes.forEach((l, i) => {
  l.index = i;
  l.rows ??= [];
  if (l.kind === 'node') l.rows = [...new Set([...l.rows, ...onNodes.get(l.object).keys()])].sort((a, b) => a - b);
  for (const r of l.rows) rows[r]?.lanes.push(i);
});

// The range of all rows, with some space at both ends.
const whole = (() => {
  let from = Infinity;
  let to = -Infinity;
  for (const r of rows) {
    if (r.t0 < from) from = r.t0;
    if (r.t1 > to) to = r.t1;
  }
  if (!(from <= to)) {
    from = parseTime(data.query.from) || 0;
    to = parseTime(data.query.to) || from + 60000;
  }
  const space = Math.max((to - from) * 0.015, 250);
  return {from: from - space, to: to + space};
})();
const MIN_SPAN = 20; // ms
const digits = whole.to - whole.from < 3600000 ? 3 : 0;
const several = {zone: '', days: false};
const manyDays = () => {
  if (several.zone !== zone.name) { several.zone = zone.name; several.days = isoDay(whole.from) !== isoDay(whole.to); }
  return several.days;
};
// when returns a time with the fraction of a second that it has, if the range is short enough for that to matter.
const when = (ms) => (Number.isNaN(ms) ? '' : (manyDays() ? day(ms) + ' ' : '') + clock(ms, digits && Math.floor(ms) % 1000 ? digits : 0));

// ---- names ----

const objectAt = (i) => (i >= 0 ? objects[i] : undefined);
const nameOf = (i) => { const o = objectAt(i); return o ? line(o.name, 200) : ''; };
const titleOf = (i) => { const o = objectAt(i); return o ? line(`${(o.kind || 'object').toLowerCase()}/${o.name}`, 260) : ''; };
const namespaceOf = (i) => line(objectAt(i)?.namespace ?? '', 200);
const fullName = (i) => { const n = namespaceOf(i); return titleOf(i) + (n ? ` in ${n}` : ''); };

const laneName = (l) => (l.kind === 'gap' ? 'Gaps' : l.object >= 0 ? nameOf(l.object) : l.kind);
const laneKind = (l) => (l.kind === 'gap' ? '' : l.kind === 'namespace' ? 'Namespace' : line(objectAt(l.object)?.kind ?? l.kind, 60));

// kindOf is the class of a row's mark: its shape and its colour.
const bad = (level) => /^(warn|error|critical|fatal)/.test(level ?? '');
const kindOf = (r) => (r.kind ??= r.gap ? 'gap'
  : r.by >= 0 || /^(Preempted|Evicted|TaintManagerEviction|NodeControllerEviction)$/.test(r.reason ?? '') ? 'caused'
    : r.type === 'Warning' ? 'warning'
      : bad(r.level) ? 'level'
        : r.type && r.type !== 'Normal' ? 'other'
          : r.routine ? 'routine' : 'normal');
const KINDS = {caused: 'preempted or evicted', warning: 'Warning', level: 'Normal, with the level of a warning', normal: 'Normal', routine: 'routine of pods or nodes', other: 'other type', gap: 'gap'};
const BELOW = new Set(['normal', 'routine']); // of the lower track
const ROUTINES = {pods: 'pod routine', node: 'node routine'};
const whatOf = (r) => (r.what ??= r.routine ? ROUTINES[r.routine] ?? line(r.routine, 60) : line(r.reason, 80) || (r.gap ? 'Gap' : '–'));
const typeOf = (e) => (e.gap ? 'gap' : e.type || 'no type'); // of an Event
const reasonOf = (e) => e.reason || '(no reason)';
const times = (r) => when(r.t0) + (r.t1 > r.t0 ? ` – ${when(r.t1)}` : '');

// sentence describes a row for a screen reader.
const sentence = (r) => {
  if (r.sentenceZone === zone.name) return r.sentence;
  const parts = [when(r.t0), r.gap ? 'gap' : r.type || '', whatOf(r), line(r.summary || fullName(r.workload), 200)];
  if (r.eventCount > 1) parts.push(count(r.eventCount, 'Event'));
  if (r.occurrences > r.eventCount) parts.push(count(r.occurrences, 'occurrence'));
  if (r.t1 > r.t0) parts.push('over ' + duration(r.t1 - r.t0));
  r.sentenceZone = zone.name;
  r.sentence = parts.filter(Boolean).join(', ');
  return r.sentence;
};

// ---- filters ----

const filter = {text: '', types: new Set(), reasons: new Set(), lane: -1, routine: true}; // empty sets: all
const view = {from: whole.from, to: whole.to};

const words = [];
const textOf = (i) => {
  let s = words[i];
  if (s === undefined) {
    const e = events[i];
    const o = objectAt(e.object);
    const w = objectAt(o?.workload ?? -1);
    s = [e.message, e.resolved, e.reason, e.component, e.uid, o && `${o.kind}/${o.name}`, o?.namespace, o?.uid, w && `${w.kind}/${w.name}`, w?.namespace, objectAt(e.node)?.name].filter(Boolean).join('\n').toLowerCase();
    words[i] = s;
  }
  return s;
};

// matched returns the Events of a row that pass the filters.
const matched = (r, needle, lane) => {
  let list = lane?.kind === 'node' ? onNodes.get(lane.object).get(r.index) ?? [] : r.events;
  if (filter.types.size) list = list.filter((i) => filter.types.has(typeOf(events[i])));
  if (filter.reasons.size) list = list.filter((i) => filter.reasons.has(reasonOf(events[i])));
  return needle ? list.filter((i) => textOf(i).includes(needle)) : list;
};

const spanOf = (list) => {
  let t0 = Infinity;
  let t1 = -Infinity;
  for (const i of list) { t0 = Math.min(t0, events[i].f); t1 = Math.max(t1, events[i].t); }
  return [t0, t1];
};

let round = 0; // of applyFilter

// applyFilter decides which rows are shown, and with which Events: r.shown, r.matches, and their number r.n, which
// for a whole row has also those that are not in this file.
const applyFilter = () => {
  const needle = filter.text.trim().toLowerCase();
  const lane = lanes[filter.lane];
  const inLane = lane && new Set(lane.rows);
  round++;
  for (const r of rows) {
    r.shown = (filter.routine || !r.routine) && (!inLane || inLane.has(r.index));
    if (!r.shown) continue;
    r.matches = matched(r, needle, lane);
    if (r.matches.length < r.events.length) for (const i of r.matches) events[i].passes = round;
    r.n = r.matches.length === r.events.length ? r.eventCount : r.matches.length;
    r.shown = r.n > 0;
    r.m0 = r.t0;
    r.m1 = r.t1;
    if (r.shown && r.matches.length && r.matches.length < r.events.length) {
      [r.m0, r.m1] = spanOf(r.matches);
    }
  }
};

const inView = (r) => r.shown && r.m0 <= view.to && r.m1 >= view.from;
const isWhole = () => view.from <= whole.from && view.to >= whole.to;
const isFiltered = () => Boolean(filter.text.trim() || filter.types.size || filter.reasons.size || filter.lane >= 0 || !filter.routine);

// laneMarks returns what a lane shows of its rows, in order of time: of a node's lane, the Events on that node.
const laneMarks = (l) => {
  const marks = [];
  for (const i of l.rows) {
    const r = rows[i];
    if (!r?.shown) continue;
    let list = r.matches;
    let n = r.n;
    let t0 = r.m0;
    let t1 = r.m1;
    if (l.kind === 'node' && !r.gap) {
      let here = onNodes.get(l.object).get(i) ?? [];
      if (here.length && r.matches.length < r.events.length) here = here.filter((e) => events[e].passes === round);
      else if (!here.length && r.matches.length < r.events.length) continue;
      if (here.length) {
        list = here;
        n = here.length;
        [t0, t1] = spanOf(here);
      }
    }
    marks.push({row: r, list, n, t0, t1, kind: kindOf(r)});
  }
  return marks.sort((a, b) => a.t0 - b.t0);
};

const gaps = rows.filter((r) => r.gap);

// tally counts the Events by a key, the most frequent first.
const tally = (key) => {
  const m = new Map();
  for (const e of events) m.set(key(e), (m.get(key(e)) ?? 0) + 1);
  return [...m].sort((a, b) => b[1] - a[1]);
};
