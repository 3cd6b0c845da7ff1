// ---- main: head, filters, what is drawn when, the address, printing ----

const dirty = {filter: true, view: true, selection: true, lanes: true};
let scheduled = false;

// rest tells tests whether all changes are drawn and in the address.
const rest = (is) => { document.documentElement.dataset.rest = String(is); };

// invalidate notes what has to be drawn anew before the next frame.
const invalidate = (what) => {
  dirty[what] = true;
  rest(false);
  if (scheduled) return;
  scheduled = true;
  requestAnimationFrame(render);
};

const render = () => {
  scheduled = false;
  if (dirty.filter) {
    applyFilter();
    layLanes();
    overview.width = 0;
  }
  if (dirty.filter || dirty.view) {
    drawAxis();
    updateStory();
    drawCounts();
  } else if (dirty.selection) drawStory();
  if (dirty.filter || dirty.view || dirty.selection || dirty.lanes) drawLanes();
  if (dirty.filter || dirty.selection) drawPane();
  const save = dirty.filter || dirty.view || dirty.selection;
  dirty.filter = dirty.view = dirty.selection = dirty.lanes = false;
  if (save) saveHash();
  else if (!saving) rest(true);
};

// ---- head ----

const drawHead = () => {
  const from = data.first ? parseTime(data.first) : parseTime(data.query.from);
  const to = data.last ? parseTime(data.last) : parseTime(data.query.to);
  const t = data.totals;
  byId('range').textContent = Number.isNaN(from + to) ? '' : `${day(from)} ${inZone(from).getUTCFullYear()}, ${clock(from)} – ${isoDay(from) === isoDay(to) ? '' : day(to) + ', '}${clock(to)} ${zoneName(from)} (${duration(to - from)})`;
  byId('totals').textContent = [count(t.events, 'Event'), t.occurrences > t.events ? count(t.occurrences, 'occurrence') : '', count(t.warnings, 'Warning'), count(t.objects, 'object'), count(t.workloads, 'workload'), count(t.nodes, 'node')].filter(Boolean).join(' · ');
};

const hasZone = !['', 'UTC', 'Etc/UTC'].includes(data.query.zone ?? '');
let theme = '';

const showZone = (utc) => {
  if (utc || !hasZone) setZone('UTC');
  else setZone(data.query.zone);
  drawHead();
  byId('zone')?.setAttribute('aria-pressed', String(Boolean(utc)));
  invalidate('filter');
  if (ui.tab !== 'story') showTab(ui.tab);
};

const showTheme = (name) => {
  theme = name;
  document.documentElement.dataset.theme = name || 'auto';
  byId('theme').value = name;
  saveHash();
};

const buildHead = () => {
  byId('title').textContent = line(data.title, 300);
  const zoneKnown = setZone(data.query.zone || 'UTC');
  byId('switches').append(
    hasZone && zoneKnown ? h('button', {type: 'button', class: 'tool wide', id: 'zone', 'aria-pressed': 'false', onclick: (e) => showZone(e.currentTarget.getAttribute('aria-pressed') !== 'true')}, 'UTC') : h('span', {class: 'muted'}, `times in ${zoneName(whole.from)}`),
    h('label', {class: 'theme'}, h('span', {class: 'hidden'}, 'Colours'), h('select', {id: 'theme', onchange: (e) => showTheme(e.target.value)}, h('option', {value: ''}, 'system colours'), h('option', {value: 'light'}, 'light'), h('option', {value: 'dark'}, 'dark'))),
    h('button', {type: 'button', class: 'tool wide', onclick: () => print()}, 'Print'));
  drawHead();
};

// ---- filters ----

const setLane = (index) => {
  filter.lane = filter.lane === index ? -1 : index;
  invalidate('filter');
};

const clearFilters = () => {
  filter.text = '';
  filter.types.clear();
  filter.reasons.clear();
  filter.lane = -1;
  filter.routine = true;
  showWhole();
  invalidate('filter');
};

const toggle = (set, value) => { if (!set.delete(value)) set.add(value); invalidate('filter'); };

const buildToolbar = () => {
  const types = tally(typeOf);
  const reasons = tally(reasonOf);
  const kind = (type) => (type === 'gap' ? 'gap' : type === 'Warning' ? 'warning' : type === 'Normal' ? 'normal' : 'other');
  fill(byId('toolbar'), {}, [
    h('div', {class: 'types', role: 'group', 'aria-label': 'Types'}, types.map(([type, n]) => h('button', {type: 'button', class: 'chip', 'data-type': type, 'aria-pressed': 'false', onclick: () => toggle(filter.types, type)}, icon(kind(type)), h('span', {}, type === 'gap' ? 'Gap' : line(type, 30)), h('span', {class: 'badge'}, number(n))))),
    rows.some((r) => r.routine) ? h('button', {type: 'button', class: 'chip', id: 'routine', 'aria-pressed': 'false', title: 'Hide the rows of what happens when all is well', onclick: () => { filter.routine = !filter.routine; invalidate('filter'); }}, icon('routine'), 'Hide routine') : [],
    h('details', {class: 'reasons', id: 'reason-menu'}, h('summary', {}, h('span', {id: 'reasons-title'}, 'All reasons')),
      h('div', {class: 'menu', role: 'group', 'aria-label': 'Reasons'}, reasons.slice(0, 300).map(([reason, n]) => h('label', {}, h('input', {type: 'checkbox', 'data-reason': reason, onchange: () => toggle(filter.reasons, reason)}), h('span', {class: 'name'}, line(reason, 60)), h('span', {class: 'muted'}, number(n)))))),
    h('input', {type: 'search', id: 'text', placeholder: 'Text: message, object, node, uid', 'aria-label': 'Text that an Event contains', autocomplete: 'off', spellcheck: 'false', oninput: (e) => { filter.text = e.target.value; invalidate('filter'); }}),
    h('button', {type: 'button', class: 'chip', id: 'lane-filter', hidden: true, 'aria-label': 'Show all lanes', onclick: () => setLane(filter.lane)}),
    shownCount,
    h('button', {type: 'button', class: 'tool wide', id: 'clear', onclick: clearFilters}, 'Reset')]);
};

const drawCounts = () => {
  let n = 0;
  for (const r of storyRows) n += r.n;
  const total = data.totals.events;
  shownCount.textContent = (isWhole() && !isFiltered() ? `${count(total, 'Event')} in ${count(rows.length, 'row')}` : `${number(n)} of ${count(total, 'Event')}, ${number(storyRows.length)} of ${count(rows.length, 'row')}`) + (isWhole() ? '' : ` · ${when(view.from)} – ${when(view.to)}`);
  for (const b of byId('toolbar').querySelectorAll('[data-type]')) b.setAttribute('aria-pressed', String(filter.types.has(b.dataset.type)));
  for (const b of byId('toolbar').querySelectorAll('[data-reason]')) b.checked = filter.reasons.has(b.dataset.reason);
  byId('routine')?.setAttribute('aria-pressed', String(!filter.routine));
  byId('reasons-title').textContent = filter.reasons.size === 0 ? 'All reasons' : filter.reasons.size === 1 ? line([...filter.reasons][0], 40) : `${filter.reasons.size} reasons`;
  if (byId('text').value !== filter.text) byId('text').value = filter.text;
  const chip = byId('lane-filter');
  chip.hidden = filter.lane < 0;
  if (filter.lane >= 0) chip.replaceChildren(`only ${lanes[filter.lane].object >= 0 ? fullName(lanes[filter.lane].object) : laneName(lanes[filter.lane])}`, h('span', {'aria-hidden': 'true'}, ' ×'));
  byId('clear').disabled = isWhole() && !isFiltered();
  byId('whole').disabled = isWhole();
  countTabs();
};

// ---- the address keeps the state ----

let ready = false;

let saving = 0;

// saveHash writes the state once it rests: browsers limit how often.
const saveHash = () => {
  clearTimeout(saving);
  saving = 0;
  rest(!ready || printing);
  if (ready && !printing) saving = setTimeout(writeHash, 50);
};

const writeHash = () => {
  saving = 0;
  rest(true);
  const p = new URLSearchParams();
  if (!isWhole()) { p.set('from', new Date(view.from).toISOString()); p.set('to', new Date(view.to).toISOString()); }
  if (filter.text) p.set('text', filter.text);
  for (const t of filter.types) p.append('type', t);
  for (const r of filter.reasons) p.append('reason', r);
  if (filter.lane >= 0) p.set('lane', filter.lane);
  if (!filter.routine) p.set('routine', 'no');
  if (ui.row >= 0) p.set('row', ui.row);
  if (ui.row >= 0 && ui.event >= 0) p.set('event', ui.event);
  for (const l of opened) p.append('line', l.index);
  if (ui.tab !== 'story') p.set('tab', ui.tab);
  if (byId('zone')?.getAttribute('aria-pressed') === 'true') p.set('zone', 'utc');
  if (theme) p.set('theme', theme);
  try { history.replaceState(null, '', '#' + p); } catch { /* some browsers refuse it for files */ }
};

const readHash = () => {
  const p = new URLSearchParams(location.hash.slice(1));
  filter.text = p.get('text') ?? '';
  filter.types = new Set(p.getAll('type'));
  filter.reasons = new Set(p.getAll('reason'));
  filter.lane = lanes[p.get('lane') ?? -1] ? Number(p.get('lane')) : -1;
  filter.routine = p.get('routine') !== 'no';
  const from = Date.parse(p.get('from'));
  const to = Date.parse(p.get('to'));
  if (from < to) setView(from, to); else setView(whole.from, whole.to);
  ui.row = rows[p.get('row') ?? -1] ? Number(p.get('row')) : -1;
  ui.event = ui.row >= 0 && events[p.get('event') ?? -1] ? Number(p.get('event')) : -1;
  opened.clear();
  for (const l of lines) if (p.getAll('line').includes(String(l.index))) opened.add(l);
  ui.pane = ui.row >= 0 ? 'details' : 'overview';
  ui.tab = TABS.some((t) => t.id === p.get('tab')) ? p.get('tab') : 'story';
  ui.activeRow = ui.row;
  ui.activeLane = ui.row >= 0 ? rows[ui.row].lanes[0] ?? -1 : -1;
  showTheme(['light', 'dark'].includes(p.get('theme')) ? p.get('theme') : '');
  showTab(ui.tab);
  showZone(p.get('zone') === 'utc');
};

// ---- printing: everything that is shown, without scroll boxes ----

const PRINTED = 1020; // px: A4 across

const beforePrint = () => {
  if (printing) return;
  printing = true;
  plotWidth = PRINTED - LABEL;
  for (const t of TABS) fillTab(t);
  ui.pane = 'overview';
  dirty.filter = true;
  render();
  drawPane();
};
const afterPrint = () => {
  if (!printing) return;
  printing = false;
  ui.pane = ui.row >= 0 || ui.cluster ? 'details' : 'overview';
  measure();
  dirty.filter = true;
  render();
  drawPane();
};

const measure = () => {
  if (printing) return;
  Object.assign(sight, {lanesTop: plot.scrollTop, lanesHeight: plot.clientHeight, storyTop: storyBox.scrollTop, storyHeight: storyBox.clientHeight || 600});
  const width = Math.max(200, plot.clientWidth - LABEL);
  if (width !== plotWidth) { plotWidth = width; invalidate('view'); } else if (layout.length >= 40) invalidate('lanes');
};

// ---- start ----

buildHead();
buildToolbar();
buildAxis();
plot.append(lanesBox);
lanesBox.after(brush);
buildTabs();
measure();
readHash();
ready = true;
render();
if (ui.row >= 0) { revealInStory(ui.row); drawStory(); }
listenToPointers();
listenToStory();
new ResizeObserver(measure).observe(plot);
new ResizeObserver(() => { measure(); drawStory(false); }).observe(storyBox);
addEventListener('beforeprint', beforePrint);
addEventListener('afterprint', afterPrint);
matchMedia('print').addEventListener('change', (e) => (e.matches ? beforePrint() : afterPrint()));
addEventListener('hashchange', () => { clearTimeout(saving); saving = 0; ready = false; readHash(); ready = true; });
document.addEventListener('keydown', (e) => {
  if (e.key === 'Escape') {
    if (byId('reason-menu').open) { byId('reason-menu').open = false; byId('reason-menu').querySelector('summary').focus(); }
    else if (ui.pane === 'details') closeDetails();
    hideTip();
  } else if (e.key === '/' && !/^(INPUT|SELECT|TEXTAREA)$/.test(document.activeElement?.tagName)) {
    e.preventDefault();
    byId('text').focus();
  }
});
document.addEventListener('click', (e) => { if (byId('reason-menu').open && !byId('reason-menu').contains(e.target)) byId('reason-menu').open = false; });
// The text that the filter looks through is made when the browser has nothing else to do.
let next = 0;
const prepare = (deadline) => {
  while (next < events.length && deadline.timeRemaining() > 2) textOf(next++);
  if (next < events.length) requestIdleCallback(prepare);
};
globalThis.requestIdleCallback?.(prepare);
document.documentElement.dataset.ready = 'true';
