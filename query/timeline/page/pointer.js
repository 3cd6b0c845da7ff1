// ---- pointer: drag, wheel, pinch, and the tip beside the pointer ----

const tip = byId('tip');

const hideTip = () => { tip.hidden = true; };
const showTip = (c, x, y) => {
  const items = c.marks.slice(0, 6).map(({row, n}) => h('div', {class: 'tip-row'},
    icon(kindOf(row)), h('span', {class: 'tip-time'}, times(row)), h('b', {}, whatOf(row)), ` ${line(row.summary, 160)}`, n > 1 ? h('span', {class: 'muted'}, ` ${count(n, 'Event')}`) : null));
  if (c.marks.length > 6) items.push(h('div', {class: 'muted'}, `and ${count(c.marks.length - 6, 'more row', 'more rows')}`));
  else if (c.marks.length === 1 && c.marks[0].row.message) items.push(h('div', {class: 'tip-message'}, line(c.marks[0].row.message, 240)));
  tip.replaceChildren(...items);
  tip.hidden = false;
  const box = tip.getBoundingClientRect();
  tip.style.left = Math.max(4, Math.min(x + 14, innerWidth - box.width - 8)) + 'px';
  tip.style.top = (y + 18 + box.height > innerHeight ? Math.max(4, y - box.height - 10) : y + 18) + 'px';
};

// light marks a row in the lanes and in the story, there also by its line.
const light = (row) => {
  for (const [g, c] of drawn) g.classList.toggle('lit', row >= 0 && has(c, row));
  for (const tr of storyBody.querySelectorAll('tr[data-item]')) tr.classList.toggle('lit', row >= 0 && (tr.dataset.row ? Number(tr.dataset.row) === row : !opened.has(rows[row].line) && Number(tr.dataset.line) === rows[row].line?.index));
};

const listenToPointers = () => {
  const pointers = new Map();
  let drag = null; // {x, mode: 'brush' | 'pan', from, to, moved}
  let pinch = null;
  let dragged = -1000; // the click that ends a drag opens nothing
  const areaX = (e) => e.clientX - lanesBox.getBoundingClientRect().left - LABEL;
  const overX = (e) => e.clientX - byId('axis-drawing').getBoundingClientRect().left;

  plot.addEventListener('pointerdown', (e) => {
    const x = areaX(e);
    if (x < 0 || e.button !== 0 || e.clientX > plot.getBoundingClientRect().left + plot.clientWidth) return;
    pointers.set(e.pointerId, e);
    if (pointers.size === 2) {
      const [a, b] = [...pointers.values()].map(areaX);
      pinch = {a: msAt(a), b: msAt(b)};
      drag = null;
      brush.hidden = true;
    } else drag = {x, mode: e.shiftKey || e.pointerType === 'touch' ? 'pan' : 'brush', from: view.from, to: view.to, moved: false, id: e.pointerId};
  });
  plot.addEventListener('pointermove', (e) => {
    if (pointers.has(e.pointerId)) pointers.set(e.pointerId, e);
    if (pinch && pointers.size === 2) {
      const [xa, xb] = [...pointers.values()].map(areaX);
      if (Math.abs(xb - xa) > 10) {
        const perPixel = (pinch.b - pinch.a) / (xb - xa);
        if (perPixel > 0) setView(pinch.a - xa * perPixel, pinch.a + (plotWidth - xa) * perPixel);
      }
      return;
    }
    if (!drag) return;
    const x = Math.min(plotWidth, Math.max(0, areaX(e)));
    if (!drag.moved && Math.abs(x - drag.x) < 5) return;
    if (!drag.moved) {
      drag.moved = true;
      plot.setPointerCapture(drag.id);
      hideTip();
    }
    if (drag.mode === 'pan') {
      const d = ((drag.x - x) / plotWidth) * (drag.to - drag.from);
      setView(drag.from + d, drag.to + d);
    } else {
      brush.hidden = false;
      brush.style.left = LABEL + Math.min(x, drag.x) + 'px';
      brush.style.width = Math.abs(x - drag.x) + 'px';
      brush.style.height = Math.max(layoutHeight, plot.clientHeight) + 'px';
    }
  });
  const end = (e) => {
    pointers.delete(e.pointerId);
    if (pointers.size < 2) pinch = null;
    if (drag?.moved && drag.mode === 'brush' && e.type === 'pointerup') {
      const x = Math.min(plotWidth, Math.max(0, areaX(e)));
      setView(msAt(Math.min(x, drag.x)), msAt(Math.max(x, drag.x)));
    }
    if (drag?.moved) dragged = performance.now();
    drag = null;
    brush.hidden = true;
  };
  plot.addEventListener('pointerup', end);
  plot.addEventListener('pointercancel', end);

  const wheel = (e, x, always) => {
    const sideways = e.shiftKey || Math.abs(e.deltaX) > Math.abs(e.deltaY);
    if (sideways) pan(((e.deltaX || e.deltaY) / plotWidth) * 0.8);
    else if (always || e.ctrlKey || e.metaKey || e.altKey) zoomAt(Math.exp(-Math.max(-100, Math.min(100, e.deltaY)) * 0.006), msAt(Math.min(plotWidth, Math.max(0, x))));
    else return; // scrolls the lanes
    e.preventDefault();
  };
  plot.addEventListener('wheel', (e) => wheel(e, areaX(e), false), {passive: false});
  axisBox.addEventListener('wheel', (e) => wheel(e, overX(e), true), {passive: false});

  // In the overview, dragging chooses a range and a click centres the view.
  const drawing = byId('axis-drawing');
  let start = null;
  const msWhole = (x) => whole.from + (Math.min(plotWidth, Math.max(0, x)) / plotWidth) * (whole.to - whole.from);
  drawing.addEventListener('pointerdown', (e) => { if (e.button === 0) { start = overX(e); drawing.setPointerCapture(e.pointerId); } });
  drawing.addEventListener('pointermove', (e) => { if (start !== null && Math.abs(overX(e) - start) > 4) { const [a, b] = [start, overX(e)].sort((p, q) => p - q); setView(msWhole(a), msWhole(b)); } });
  drawing.addEventListener('pointerup', (e) => {
    if (start !== null && Math.abs(overX(e) - start) <= 4) { const span = view.to - view.from; setView(msWhole(start) - span / 2, msWhole(start) + span / 2); }
    start = null;
  });
  drawing.addEventListener('pointercancel', () => { start = null; });

  plot.addEventListener('click', (e) => {
    if (performance.now() - dragged < 80) return;
    const g = e.target.closest?.('.mark');
    const name = e.target.closest?.('.lane-name');
    if (g && drawn.has(g)) open(drawn.get(g), false);
    else if (name) setLane(Number(name.dataset.lane));
  });
  plot.addEventListener('dblclick', (e) => { if (areaX(e) >= 0) zoomAt(2, msAt(areaX(e))); });
  plot.addEventListener('pointerover', (e) => {
    const c = drawn.get(e.target.closest?.('.mark'));
    if (!c || drag?.moved) return hideTip();
    showTip(c, e.clientX, e.clientY);
    light(c.marks.length === 1 ? c.marks[0].row.index : -1);
  });
  plot.addEventListener('pointerleave', () => { hideTip(); light(-1); });
  plot.addEventListener('scroll', () => { hideTip(); sight.lanesTop = plot.scrollTop; if (layout.length >= 40) invalidate('lanes'); });
  plot.addEventListener('keydown', onLaneKey);
  plot.addEventListener('focusin', (e) => {
    const c = drawn.get(e.target);
    if (!c) return;
    ui.activeLane = c.lane.index;
    if (!has(c, ui.activeRow)) ui.activeRow = c.marks[0].row.index;
    if (e.target.matches(':focus-visible')) { const b = e.target.getBoundingClientRect(); showTip(c, b.left, b.bottom - 10); light(c.marks[0].row.index); }
  });
  plot.addEventListener('focusout', hideTip);
};
