// ---- story: what happened in lines, as text and Markdown have it, that open into their rows ----

const ROW = 27; // px
const FEW = 400; // rows of the table that are in the page at once; of more, those in sight
const DIRECT = 60; // rows that a filter or a zoom leaves, which are shown without lines
const MOST_PRINTED = 5000;

const lines = (data.story ?? []).map((l) => ({...l, rows: [...l.rows].sort((a, b) => a - b).map((i) => rows[i])}));
const told = new Set(lines.flatMap((l) => l.rows));
const untold = rows.filter((r) => !told.has(r));
if (untold.length) lines.push({rows: untold, what: count(untold.length, 'further row'), rest: true});
lines.forEach((l, i) => {
  l.index = i;
  l.eventCount = l.rows.reduce((n, r) => n + r.eventCount, 0);
  for (const r of l.rows) r.line = l;
});
const opened = new Set(); // lines

let storyRows = []; // in view, in the order of the story
let storyItems = []; // what the table has: headings, lines, rows
let storySize = 0; // lines, or rows without lines
let activeStory = ''; // the item that is in the order of the Tab key

const storyHead = h('thead', {}, h('tr', {}, ['Time', 'What', 'Events', 'To whom, by whom; message'].map((t, i) => h('th', {scope: 'col', class: `c${i}`}, t))));
const storyBody = h('tbody', {});
const storyTable = h('table', {class: manyDays() ? 'story days' : 'story', 'aria-label': 'The story: what happened, and what recurs throughout'}, storyHead, storyBody);
const storyBox = h('div', {class: 'scroll', id: 'story', tabindex: -1}, storyTable, h('p', {class: 'nothing', id: 'story-nothing', hidden: true}));

const stepText = (r) => r.steps.map((s) => `${line(s.reason, 60)} ${number(s.events)}${s.occurrences > s.events ? ` ×${number(s.occurrences)}` : ''}`).join(', ');

// rowItem is a row in the table; inside is set if it is below its line.
const rowItem = (r, inside = false) => ({id: `row-${r.index}`, row: r, inside, m0: r.m0, m1: r.m1, n: r.n, of: r.eventCount, occurrences: r.occurrences, kind: kindOf(r), name: whatOf(r), label: sentence(r),
  what: line(r.summary || fullName(r.workload), 200), said: r.steps?.length ? stepText(r) : line(r.message ?? '')});

// lineItem is a line with what is in view of its rows; a line of one row is that row.
const lineItem = (l) => {
  const list = l.rows.filter(inView);
  if (!list.length) return [];
  const item = list.length === 1 ? rowItem(list[0]) : {
    id: `line-${l.index}`, list, n: list.reduce((n, r) => n + r.n, 0), of: l.eventCount,
    m0: list.reduce((t, r) => Math.min(t, r.m0), Infinity), m1: list.reduce((t, r) => Math.max(t, r.m1), -Infinity),
    kind: ORDER.find((k) => list.some((r) => kindOf(r) === k)), name: l.rest ? 'Further rows' : whatOf(list[0]),
  };
  const whole = item.n === l.eventCount;
  item.line = l;
  if (whole) item.every = l.every;
  if (whole || item.list) {
    item.what = (list.length < l.rows.length ? `${number(list.length)} of ${count(l.rows.length, 'row')} in view: ` : '') + line(l.what, 200);
    item.said = line(l.message ?? '');
    item.label = `${list.some((r) => r.type === 'Warning') ? 'Warning, ' : ''}${item.name}, ${item.what}, ${item.n < item.of ? `${number(item.n)} of ` : ''}${count(item.of, 'Event')}${item.list ? ` in ${count(list.length, 'row')}` : ''}`;
  }
  return item;
};

const storyRow = (it) => {
  if (it.heading) return h('tr', {class: 'part', 'aria-rowindex': it.at + 2}, h('th', {colspan: 4, scope: 'rowgroup'}, it.heading));
  const {row: r, line: l} = it;
  const open = it.list && opened.has(l);
  const chosen = r ? r.index === ui.row : !open && rows[ui.row]?.line === l;
  const span = it.every ? '' : it.m1 - it.m0 >= 1 ? ` +${duration(it.m1 - it.m0)}` : '';
  const time = it.every ?? when(it.m0);
  return h('tr', {'data-item': it.id, 'data-row': r?.index, 'data-line': l?.index, class: [it.kind, it.list ? 'line' : '', it.inside ? 'inside' : '', chosen ? 'chosen' : ''].join(' '), 'aria-rowindex': it.at + 2},
    h('td', {class: 'c0'}, h('button', {type: 'button', class: 'row-button', tabindex: it.id === activeStory ? 0 : -1, 'aria-label': `${time}${span}: ${it.label}`, 'aria-pressed': r && String(chosen), 'aria-expanded': it.list && String(open)}, time, span && h('span', {class: 'muted'}, span))),
    h('td', {class: 'c1'}, icon(it.kind), h('span', {}, it.name)),
    h('td', {class: 'c2'}, it.n < it.of ? `${number(it.n)} of ${number(it.of)}` : number(it.n), it.n === it.of && it.occurrences > it.of ? h('span', {class: 'muted', title: count(it.occurrences, 'occurrence')}, ` ×${number(it.occurrences)}`) : null),
    h('td', {class: 'c3', title: `${it.what} ${it.said}`}, h('span', {class: 'to'}, it.what), h('span', {class: 'said'}, it.said)));
};

const spacer = (height) => {
  const td = h('td', {colspan: 4, class: 'spacer'});
  td.style.height = height + 'px';
  return h('tr', {'aria-hidden': 'true'}, td);
};

let storyRange = '';

// drawStory draws the rows in sight. Unless forced, it does nothing if those are drawn already.
const drawStory = (force = true) => {
  const n = storyItems.length;
  let from = 0;
  let to = n;
  if (n > FEW && !printing) {
    const space = Math.ceil(sight.storyHeight / ROW);
    from = Math.max(0, Math.min(Math.floor(sight.storyTop / ROW), n - space) - 10);
    from -= from % 10;
    to = Math.min(n, from + space + 25);
  }
  const range = `${from} ${to} ${n}`;
  if (!force && range === storyRange) return;
  storyRange = range;
  const focused = storyBody.contains(document.activeElement);
  const content = storyItems.slice(from, to).map(storyRow);
  if (from > 0) content.unshift(spacer(from * ROW));
  if (to < n) content.push(spacer((n - to) * ROW));
  storyBody.replaceChildren(...content);
  storyTable.setAttribute('aria-rowcount', n + 1);
  storyTable.hidden = n === 0;
  const nothing = byId('story-nothing');
  if (nothing) {
    const more = printing ? storyRows.length - MOST_PRINTED : 0;
    nothing.hidden = n > 0 && more <= 0;
    nothing.textContent = n > 0 ? `${number(more)} further rows are not printed: filter or zoom first.` : rows.length ? 'No row passes the filters in this range.' : 'There are no Events in this range.';
  }
  if (focused) storyBody.querySelector('button[tabindex="0"]')?.focus({preventScroll: true});
};

// layStory places lines and rows: first what happened, then what recurs throughout.
const layStory = () => {
  storyRows = rows.filter(inView);
  if (!lines.length || (storyRows.length <= DIRECT && (isFiltered() || !isWhole()))) {
    storyItems = storyRows.slice(0, printing ? MOST_PRINTED : undefined).map((r) => rowItem(r));
    storySize = storyRows.length;
  } else {
    const items = lines.flatMap(lineItem);
    const usual = items.filter((it) => it.line.usual);
    const happened = items.filter((it) => !it.line.usual && !it.line.rest).sort((a, b) => a.m0 - b.m0).concat(items.filter((it) => it.line.rest));
    const section = (heading, list) => (list.length ? [{heading}, ...list.flatMap((it) => [it, ...(it.list && opened.has(it.line) && !printing ? it.list.map((r) => rowItem(r, true)) : [])])] : []);
    storyItems = [...(usual.length ? section('What happened', happened) : section('', happened).slice(1)), ...section('Throughout, before and after alike', usual)];
    storySize = items.length;
    if (printing && storySize < storyRows.length) storyItems.push({heading: 'Rows'}, ...storyRows.slice(0, MOST_PRINTED).map((r) => rowItem(r)));
    storyRows = [...happened, ...usual].flatMap((it) => it.list ?? [it.row]);
  }
  storyItems.forEach((it, i) => { it.at = i; });
  if (!storyItems.some((it) => it.id === activeStory)) activeStory = storyItems.find((it) => it.id)?.id ?? '';
};

const updateStory = () => { layStory(); drawStory(); };

const revealItem = (it) => {
  activeStory = it.id;
  const top = it.at * ROW;
  const height = storyBox.clientHeight - 60;
  if (top < storyBox.scrollTop || top > storyBox.scrollTop + height) storyBox.scrollTop = Math.max(0, top - height / 3);
  sight.storyTop = storyBox.scrollTop;
};

// revealInStory scrolls the story to a row, or to its line.
const revealInStory = (index) => {
  const r = rows[index];
  const it = storyItems.find((o) => o.row === r) ?? storyItems.find((o) => o.list?.includes(r));
  if (it) revealItem(it);
};

const openLine = (l, open) => {
  if (open) opened.add(l); else opened.delete(l);
  updateStory();
  saveHash();
};

const onStoryKey = (e) => {
  const items = storyItems.filter((it) => it.id);
  const at = items.findIndex((it) => it.id === activeStory);
  const now = items[at];
  if (now?.list && (e.key === 'ArrowRight' || e.key === 'ArrowLeft')) {
    e.preventDefault();
    openLine(now.line, e.key === 'ArrowRight');
    return;
  }
  const page = Math.max(1, Math.floor(storyBox.clientHeight / ROW) - 2);
  const to = {ArrowDown: at + 1, ArrowUp: at - 1, PageDown: at + page, PageUp: at - page, Home: 0, End: items.length - 1,
    ArrowLeft: now?.inside ? items.findLastIndex((it, i) => i < at && it.list) : undefined}[e.key];
  if (to === undefined || !items.length) return;
  e.preventDefault();
  const target = items[Math.max(0, Math.min(items.length - 1, to))];
  revealItem(target);
  drawStory();
  storyBody.querySelector('button[tabindex="0"]')?.focus({preventScroll: true});
  light(target.row?.index ?? -1);
};

const listenToStory = () => {
  storyBox.addEventListener('scroll', () => { sight.storyTop = storyBox.scrollTop; requestAnimationFrame(() => drawStory(false)); });
  storyBox.addEventListener('keydown', onStoryKey);
  storyBody.addEventListener('click', (e) => {
    const it = storyItems.find((o) => o.id && o.id === e.target.closest('tr')?.dataset.item);
    if (!it || String(getSelection()).length > 0) return;
    activeStory = it.id;
    if (it.row) selectRow(it.row.index, {byKey: e.detail === 0, from: 'story'});
    else openLine(it.line, !opened.has(it.line));
  });
  storyBody.addEventListener('pointerover', (e) => { const tr = e.target.closest('tr[data-row]'); light(tr ? Number(tr.dataset.row) : -1); });
  storyBody.addEventListener('pointerleave', () => light(-1));
};
