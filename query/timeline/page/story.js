// ---- story: the rows in view as a table in order of time ----

const ROW = 27; // px
const FEW = 400; // rows that are in the page at once; of more, those in sight
const MOST_PRINTED = 5000;

let storyRows = [];
let activeStory = -1; // index in rows, in the order of the Tab key

const storyHead = h('thead', {}, h('tr', {}, ['Time', 'What', 'Events', 'To whom, by whom; message'].map((t, i) => h('th', {scope: 'col', class: `c${i}`}, t))));
const storyBody = h('tbody', {});
const storyTable = h('table', {class: manyDays() ? 'story days' : 'story', 'aria-label': 'The story: rows in order of time'}, storyHead, storyBody);
const storyBox = h('div', {class: 'scroll', id: 'story', tabindex: -1}, storyTable, h('p', {class: 'nothing', id: 'story-nothing', hidden: true}));

const stepText = (r) => r.steps.map((s) => `${line(s.reason, 60)} ${number(s.events)}${s.occurrences > s.events ? ` ×${number(s.occurrences)}` : ''}`).join(', ');

const storyRow = (r) => {
  const span = r.m1 - r.m0 >= 1 ? ` +${duration(r.m1 - r.m0)}` : '';
  return h('tr', {'data-row': r.index, class: [kindOf(r), r.index === ui.row ? 'chosen' : ''].join(' '), 'aria-rowindex': r.at + 2},
  h('td', {class: 'c0'}, h('button', {type: 'button', class: 'row-button', tabindex: r.index === activeStory ? 0 : -1, 'aria-label': `${when(r.m0)}${span}: ${sentence(r)}`, 'aria-pressed': String(r.index === ui.row)}, when(r.m0), span && h('span', {class: 'muted'}, span))),
  h('td', {class: 'c1'}, icon(kindOf(r)), h('span', {}, whatOf(r))),
  h('td', {class: 'c2'}, r.n < r.eventCount ? `${number(r.n)} of ${number(r.eventCount)}` : number(r.n), r.occurrences > r.eventCount ? h('span', {class: 'muted', title: count(r.occurrences, 'occurrence')}, ` ×${number(r.occurrences)}`) : null),
  h('td', {class: 'c3', title: line(`${r.summary || fullName(r.workload)} ${r.message ?? ''}`, 600)}, line(r.summary || fullName(r.workload), 200), h('span', {class: 'said'}, r.steps?.length ? stepText(r) : line(r.message ?? ''))));
};

const spacer = (height) => {
  const td = h('td', {colspan: 4, class: 'spacer'});
  td.style.height = height + 'px';
  return h('tr', {'aria-hidden': 'true'}, td);
};

let storyRange = '';

// drawStory draws the rows in sight. Unless forced, it does nothing if those are drawn already.
const drawStory = (force = true) => {
  const n = storyRows.length;
  let from = 0;
  let to = n;
  if (printing) to = Math.min(n, MOST_PRINTED);
  else if (n > FEW) {
    const space = Math.ceil(sight.storyHeight / ROW);
    from = Math.max(0, Math.min(Math.floor(sight.storyTop / ROW), n - space) - 10);
    from -= from % 10;
    to = Math.min(n, from + space + 25);
  }
  const range = `${from} ${to} ${n}`;
  if (!force && range === storyRange) return;
  storyRange = range;
  const focused = storyBody.contains(document.activeElement);
  const content = storyRows.slice(from, to).map(storyRow);
  if (from > 0) content.unshift(spacer(from * ROW));
  if (to < n && !printing) content.push(spacer((n - to) * ROW));
  storyBody.replaceChildren(...content);
  storyTable.setAttribute('aria-rowcount', n + 1);
  storyTable.hidden = n === 0;
  const nothing = byId('story-nothing');
  if (nothing) {
    nothing.hidden = n > 0 && !(printing && to < n);
    nothing.textContent = n > 0 ? `${number(n - to)} further rows are not printed: filter or zoom first.` : rows.length ? 'No row passes the filters in this range.' : 'There are no Events in this range.';
  }
  if (focused) storyBody.querySelector('button[tabindex="0"]')?.focus({preventScroll: true});
};

const updateStory = () => {
  storyRows = rows.filter(inView);
  storyRows.forEach((r, i) => { r.at = i; });
  if (!storyRows.some((r) => r.index === activeStory)) activeStory = storyRows[0]?.index ?? -1;
  drawStory();
};

// revealInStory scrolls the story to a row.
const revealInStory = (index) => {
  const at = storyRows.findIndex((r) => r.index === index);
  if (at < 0) return;
  activeStory = index;
  const top = at * ROW;
  const height = storyBox.clientHeight - 60;
  if (top < storyBox.scrollTop || top > storyBox.scrollTop + height) storyBox.scrollTop = Math.max(0, top - height / 3);
  sight.storyTop = storyBox.scrollTop;
};

const onStoryKey = (e) => {
  const at = storyRows.findIndex((r) => r.index === activeStory);
  const page = Math.max(1, Math.floor(storyBox.clientHeight / ROW) - 2);
  const to = {ArrowDown: at + 1, ArrowUp: at - 1, PageDown: at + page, PageUp: at - page, Home: 0, End: storyRows.length - 1}[e.key];
  if (to === undefined || !storyRows.length) return;
  e.preventDefault();
  const target = storyRows[Math.max(0, Math.min(storyRows.length - 1, to))];
  revealInStory(target.index);
  drawStory();
  storyBody.querySelector('button[tabindex="0"]')?.focus({preventScroll: true});
  light(target.index);
};

const listenToStory = () => {
  storyBox.addEventListener('scroll', () => { sight.storyTop = storyBox.scrollTop; requestAnimationFrame(() => drawStory(false)); });
  storyBox.addEventListener('keydown', onStoryKey);
  storyBody.addEventListener('click', (e) => {
    const tr = e.target.closest('tr[data-row]');
    if (!tr || String(getSelection()).length > 0) return;
    activeStory = Number(tr.dataset.row);
    selectRow(activeStory, {byKey: e.detail === 0, from: 'story'});
  });
  storyBody.addEventListener('pointerover', (e) => { const tr = e.target.closest('tr[data-row]'); light(tr ? Number(tr.dataset.row) : -1); });
  storyBody.addEventListener('pointerleave', () => light(-1));
};
