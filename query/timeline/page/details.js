// ---- details: the pane with the overview, or with what is selected ----

const pane = byId('pane');
const PAGE = 50; // Events of a row that are listed at once

const field = (name, value) => (value === '' || value === undefined || value === null || value === false || (Array.isArray(value) && !value.length) ? [] : [h('dt', {}, name), h('dd', {}, value)]);
const rowLink = (i, text) => h('button', {type: 'button', class: 'link', onclick: (e) => selectRow(i, {byKey: e.detail === 0})}, text);
const laneLink = (object) => {
  const lane = lanes.find((l) => l.object === object && l.kind !== 'gap');
  return lane ? h('button', {type: 'button', class: 'link', title: 'Show only this lane', onclick: () => setLane(lane.index)}, fullName(object)) : h('span', {}, fullName(object));
};
const listOf = (items, one) => items.flatMap((item, i) => (i ? [h('br'), one(item)] : [one(item)]));

const EVIDENCE = {recorded: 'as recorded', stated: 'an Event says so', inferred: 'inferred from its name'};
const ownerChain = (i) => {
  const out = [];
  const seen = new Set([i]);
  for (let o = objectAt(i); o && o.owner >= 0 && !seen.has(o.owner); o = objectAt(o.owner)) {
    seen.add(o.owner);
    out.push(`${titleOf(o.owner)}${o.evidence ? ` (${EVIDENCE[o.evidence] ?? line(o.evidence, 40)})` : ''}`);
  }
  return out;
};

const eventFields = (e) => {
  const o = objectAt(e.object);
  return h('dl', {class: 'fields'},
    field('Time', stored(e.time)), field('First', stored(e.first)),
    field('Object', o ? fullName(e.object) : ''), field('Object uid', line(o?.uid, 100)),
    field('Owner', listOf(ownerChain(e.object), (s) => s)),
    field('Node', e.node >= 0 ? laneLink(e.node) : ''),
    field('Pod ran on', o?.nodes?.length ? o.nodes.map(nameOf).join(', ') : ''),
    field('Type', line(e.type, 80)), field('Level', line(e.level, 40)), field('Reason', line(e.reason, 200)), field('Component', line(e.component, 200)),
    field('Count', e.count > 1 ? number(e.count) : ''),
    field('Message', e.message ? h('div', {class: 'message'}, show(e.resolved || e.message)) : ''),
    field('As stored', e.resolved && e.resolved !== e.message ? h('div', {class: 'message'}, show(e.message)) : ''),
    field('Event uid', line(e.uid, 100)));
};

// eventItem is an Event in a list; its fields are made when it is opened.
const eventItem = (i, opened) => {
  const e = events[i];
  const item = h('details', {class: 'event', 'data-event': i, open: opened},
    h('summary', {}, h('span', {class: 'time'}, when(e.t)), h('span', {class: 'object'}, nameOf(e.object) || '–'), e.count > 1 ? h('span', {class: 'muted'}, `×${number(e.count)}`) : null, e.node >= 0 && e.node !== e.object ? h('span', {class: 'muted'}, nameOf(e.node)) : null));
  const openFields = () => { if (item.open && item.children.length === 1) item.append(eventFields(e)); };
  item.addEventListener('toggle', () => { openFields(); if (item.open) { ui.event = i; saveHash(); } });
  openFields();
  return item;
};

// eventList lists Events in pages.
const eventList = (list, opened) => {
  const pages = Math.ceil(list.length / PAGE);
  const box = h('div', {class: 'events'});
  const showPage = (p) => {
    const part = list.slice(p * PAGE, (p + 1) * PAGE);
    const go = (to, text) => h('button', {type: 'button', class: 'tool wide', disabled: to < 0 || to >= pages, onclick: () => showPage(to)}, text);
    box.replaceChildren(
      pages > 1 ? h('div', {class: 'pages'}, go(p - 1, 'Previous'), h('span', {role: 'status'}, `${number(p * PAGE + 1)}–${number(p * PAGE + part.length)} of ${number(list.length)}`), go(p + 1, 'Next')) : '',
      ...part.map((i) => eventItem(i, i === opened || list.length === 1)));
  };
  showPage(Math.max(0, Math.floor(list.indexOf(opened) / PAGE)));
  return box;
};

const steps = (i, to, by) => h('button', {type: 'button', class: 'tool', disabled: to === undefined, 'aria-label': by, title: by, onclick: () => selectRow(to.index, {byKey: true})}, i);

const rowDetails = (r, cluster) => {
  const at = storyRows.findIndex((o) => o.index === r.index);
  const list = cluster ? cluster.marks.find((m) => m.row === r)?.list ?? r.events : r.shown ? r.matches : r.events;
  const hidden = r.events.length - list.length;
  const nodes = r.nodes ?? [];
  return [
    h('div', {class: 'pane-head'},
      h('h2', {tabindex: -1, id: 'details-title'}, icon(kindOf(r)), whatOf(r)),
      h('div', {class: 'tools'}, steps('↑', storyRows[at - 1], 'Previous row'), steps('↓', at >= 0 ? storyRows[at + 1] : undefined, 'Next row'),
        h('button', {type: 'button', class: 'tool wide', onclick: () => zoomTo(r.t0, r.t1)}, 'Zoom to it'))),
    h('p', {class: 'summary'}, line(r.summary || fullName(r.workload), 400)),
    h('dl', {class: 'fields'},
      field('Time', r.t1 > r.t0 ? `${when(r.t0)} – ${when(r.t1)} (${duration(r.t1 - r.t0)})` : when(r.t0)),
      field('Type', r.gap ? 'gap record' : line(r.type, 80)),
      field('Reason', r.routine ? line(r.reason, 80) : ''),
      field('Workload', r.workload >= 0 ? laneLink(r.workload) : ''),
      field('By', r.by >= 0 ? laneLink(r.by) : ''),
      field('After', r.after ? `${line(r.after, 80)} on the node` : ''),
      field('Steps', r.steps?.length ? stepText(r) : ''),
      field('Events', number(r.eventCount) + (r.occurrences > r.eventCount ? `, ${count(r.occurrences, 'occurrence')}` : '') + (r.objectCount > 1 ? ` of ${count(r.objectCount, 'object')}` : '')),
      field('Nodes', nodes.length ? h('details', {class: 'inline', open: nodes.length <= 6}, h('summary', {}, count(nodes.length, 'node')), listOf(nodes, laneLink)) : ''),
      field('Component', line(r.component, 100)),
      r.eventCount > 1 && r.message ? field('Message', h('div', {class: 'message'}, show(r.message))) : []),
    h('h3', {}, hidden ? `${number(list.length)} of ${count(r.events.length, 'Event')}` : count(list.length, 'Event')),
    hidden ? h('p', {class: 'muted'}, `${cluster ? 'Those of this mark. ' : 'Those that pass the filters. '}`, h('button', {type: 'button', class: 'link', onclick: () => drawPane(r.events)}, 'Show all')) : null,
    r.events.length < r.eventCount ? h('p', {class: 'muted'}, `${number(r.eventCount - r.events.length)} further Events of this row are counted, and not in this file.`) : null,
    eventList(list, ui.event),
  ];
};

const clusterDetails = (c) => {
  const list = c.marks.map((m) => m.row);
  const MANY = 200;
  return [
    h('div', {class: 'pane-head'}, h('h2', {tabindex: -1, id: 'details-title'}, `${count(list.length, 'row')} of ${laneName(c.lane)}`),
      h('div', {class: 'tools'}, h('button', {type: 'button', class: 'tool wide', onclick: () => zoomTo(c.marks[0].t0, Math.max(...c.marks.map((m) => m.t0)))}, 'Zoom to them'))),
    h('p', {class: 'summary'}, `${count(c.n, 'Event')}, from ${when(c.marks[0].t0)}`),
    h('ol', {class: 'rows'}, c.marks.slice(0, MANY).map(({row: r, n}) => h('li', {}, h('button', {type: 'button', class: 'row-item', onclick: (e) => selectRow(r.index, {byKey: e.detail === 0, cluster: n < r.n ? c : null})},
      icon(kindOf(r)), h('span', {class: 'time'}, when(r.t0)), h('b', {}, whatOf(r)), h('span', {class: 'rest'}, line(r.summary, 160)), n > 1 ? h('span', {class: 'muted'}, `×${number(n)}`) : null)))),
    list.length > MANY ? h('p', {class: 'muted'}, `${number(list.length - MANY)} further rows: zoom to see them.`) : null,
  ];
};

// drawPane shows the overview or the selection; all is a list of Events to show instead of those that match.
const drawPane = (all) => {
  const tab = (id, text, on) => h('button', {type: 'button', role: 'tab', id: `pane-${id}`, 'aria-selected': String(on), 'aria-controls': 'pane-panel', tabindex: on ? 0 : -1, onclick: () => { ui.pane = id; drawPane(); if (id === 'details') byId('details-title')?.focus(); }}, text);
  const details = ui.pane === 'details';
  let content;
  if (!details) content = overviewContent();
  else if (ui.row >= 0) content = rowDetails(rows[ui.row], all ? {marks: [{row: rows[ui.row], list: all}]} : ui.cluster);
  else if (ui.cluster) content = clusterDetails(ui.cluster);
  else content = [h('h2', {tabindex: -1, id: 'details-title'}, 'Nothing is selected'), h('p', {class: 'muted'}, 'Choose a mark in the lanes or a row of the story.')];
  pane.replaceChildren(
    h('div', {class: 'tabs'},
      h('div', {role: 'tablist', 'aria-label': 'Overview or details', onkeydown: tabKeys}, tab('overview', 'Overview', !details), tab('details', 'Details', details)),
      details ? h('button', {type: 'button', class: 'tool close', 'aria-label': 'Close the details', onclick: closeDetails}, '×') : ''),
    h('div', {class: 'scroll', role: 'tabpanel', id: 'pane-panel', 'aria-labelledby': details ? 'pane-details' : 'pane-overview', tabindex: 0}, content));
  pane.classList.toggle('open', details);
};

// tabKeys moves between the tabs of a tablist.
const tabKeys = (e) => {
  if (e.key !== 'ArrowLeft' && e.key !== 'ArrowRight') return;
  const tabs = [...e.currentTarget.querySelectorAll('[role=tab]')];
  const next = tabs[(tabs.indexOf(document.activeElement) + (e.key === 'ArrowRight' ? 1 : tabs.length - 1)) % tabs.length];
  e.preventDefault();
  const id = next?.id;
  next?.click();
  byId(id)?.focus();
};

let opener = null; // what had the focus when the details were opened by key

const closeDetails = () => {
  ui.row = ui.event = -1;
  ui.cluster = null;
  ui.pane = 'overview';
  invalidate('selection');
  if (opener === 'story') storyBody.querySelector('button[tabindex="0"]')?.focus();
  else if (opener) focusActive();
  opener = null;
};

const announce = (text) => { byId('live').textContent = text; };

// afterSelection draws the selection; after a key, the focus goes to the details.
const afterSelection = (byKey, from) => {
  ui.pane = 'details';
  hideTip();
  render();
  drawPane();
  if (byKey) {
    opener ??= from ?? 'lanes';
    byId('details-title')?.focus();
  } else opener = null;
};

// selectRow opens a row: cluster narrows its Events to those of a mark.
const selectRow = (index, {cluster = null, byKey = false, from} = {}) => {
  const r = rows[index];
  if (!r) return;
  ui.row = index;
  ui.event = r.events.length === 1 ? r.events[0] : -1;
  ui.cluster = cluster;
  if (!isWhole()) bringIntoView(r.t0, r.t1);
  if (from !== 'story' || !isWhole()) { updateStory(); revealInStory(index); }
  const active = lanes[ui.activeLane];
  if (!active || !active.rows.includes(index)) ui.activeLane = r.lanes[0] ?? ui.activeLane;
  ui.activeRow = index;
  invalidate('selection');
  afterSelection(byKey, from);
};

const selectCluster = (c, byKey) => {
  ui.row = ui.event = -1;
  ui.cluster = c;
  invalidate('selection');
  afterSelection(byKey);
};
