// ---- text: how what is stored becomes text, and text becomes elements ----

// What could hide or reorder text, or is not visible, is shown by its number.
const INVISIBLE = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\u{e0000}-\u{e007f}\p{Cs}]/gu;

// show returns stored text for textContent, with its line breaks.
const PLAIN = /^[\x20-\x7e]*$/; // most text; the test is cheaper
const show = (s) => PLAIN.test(s ?? '') ? s ?? '' : String(s).replace(INVISIBLE, (c) => '\\u' + c.codePointAt(0).toString(16).padStart(4, '0'));

// line returns stored text as one line of at most max characters.
const line = (s, max = 400) => {
  s = String(s ?? '');
  const cut = s.length > max ? s.slice(0, max) + '…' : s;
  return show(cut.replace(/[\n\t\r]+/g, ' '));
};

const plain = new Intl.NumberFormat('en-US');
const number = (n) => (n < 1000 ? String(n) : plain.format(n));
const count = (n, one, many = one + 's') => `${number(n)} ${n === 1 ? one : many}`;

const byteSize = (n) => (n >= 1e9 ? (n / 1e9).toFixed(1) + ' GB' : n >= 1e6 ? (n / 1e6).toFixed(1) + ' MB' : n >= 1e3 ? Math.round(n / 1e3) + ' kB' : n + ' B');

const byId = (id) => document.getElementById(id);

// Attributes that build() may set. None can load or run anything.
const ATTRIBUTES = new Set(['class', 'id', 'role', 'type', 'tabindex', 'for', 'hidden', 'title', 'scope', 'colspan', 'placeholder',
  'autocomplete', 'spellcheck', 'value', 'name', 'disabled', 'checked', 'open', 'selected',
  'd', 'x', 'y', 'x1', 'x2', 'y1', 'y2', 'cx', 'cy', 'r', 'rx', 'width', 'height', 'transform', 'text-anchor', 'focusable', 'viewBox']);

const fill = (e, attributes, children) => {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith('on')) e.addEventListener(name.slice(2), value);
    else if (ATTRIBUTES.has(name) || name.startsWith('aria-') || name.startsWith('data-')) e.setAttribute(name, value === true ? '' : value);
    else throw new Error('attribute ' + name);
  }
  e.append(...children.flat(Infinity).filter((c) => c !== null && c !== undefined && c !== false)); // strings become text nodes
  return e;
};
const h = (tag, attributes, ...children) => fill(document.createElement(tag), attributes, children);
const svg = (tag, attributes, ...children) => fill(document.createElementNS('http://www.w3.org/2000/svg', tag), attributes, children);

// ---- times: milliseconds since 1970, with a fraction ----

const parseTime = (s) => {
  if (!s) return NaN;
  const ms = Date.parse(s);
  const digits = /\.\d{3}(\d+)/.exec(s);
  return digits ? ms + Number('0.' + digits[1]) : ms;
};

const zone = {name: 'UTC', format: null, offsets: new Map()};

// setZone shows times in an IANA zone from now on; "Local" is the browser's. It reports whether the browser knows it.
const setZone = (name) => {
  zone.offsets.clear();
  zone.name = name;
  zone.format = null;
  if (name === 'UTC' || name === 'Etc/UTC') return true;
  try {
    const timeZone = name === 'Local' ? undefined : name;
    zone.format = new Intl.DateTimeFormat('en-US', {timeZone, hourCycle: 'h23', year: 'numeric', month: 'numeric', day: 'numeric', hour: 'numeric', minute: 'numeric', second: 'numeric'});
    zone.abbreviation = new Intl.DateTimeFormat('en-GB', {timeZone, timeZoneName: 'short'});
    return true;
  } catch {
    zone.name = 'UTC';
    return false;
  }
};

// offset returns what to add to UTC; it can change each quarter of an hour at most.
const offset = (ms) => {
  if (!zone.format) return 0;
  const quarter = Math.floor(ms / 900000);
  let o = zone.offsets.get(quarter);
  if (o === undefined) {
    const p = {};
    for (const part of zone.format.formatToParts(quarter * 900000)) p[part.type] = Number(part.value);
    o = Date.UTC(p.year, p.month - 1, p.day, p.hour, p.minute, p.second) - quarter * 900000;
    zone.offsets.set(quarter, o);
  }
  return o;
};

const zoneName = (ms) => {
  if (!zone.format) return 'UTC';
  const short = zone.abbreviation.formatToParts(ms).find((p) => p.type === 'timeZoneName')?.value ?? '';
  return zone.name === 'Local' ? (short === 'UTC' ? short : `${short} (of this browser)`) : short.startsWith('GMT') ? `${zone.name}, ${short}` : `${short} (${zone.name})`;
};

const two = (n) => String(n).padStart(2, '0');
const MONTHS = ['Jan', 'Feb', 'Mar', 'Apr', 'May', 'Jun', 'Jul', 'Aug', 'Sep', 'Oct', 'Nov', 'Dec'];
const DAYS = ['Sun', 'Mon', 'Tue', 'Wed', 'Thu', 'Fri', 'Sat'];

const inZone = (ms) => new Date(Math.floor(ms) + offset(ms));
const day = (ms) => { const d = inZone(ms); return `${DAYS[d.getUTCDay()]} ${d.getUTCDate()} ${MONTHS[d.getUTCMonth()]}`; };
const isoDay = (ms) => inZone(ms).toISOString().slice(0, 10);
const clock = (ms, digits = 0) => {
  const d = inZone(ms);
  const s = `${two(d.getUTCHours())}:${two(d.getUTCMinutes())}:${two(d.getUTCSeconds())}`;
  return digits ? `${s}.${String(d.getUTCMilliseconds()).padStart(3, '0').slice(0, digits)}` : s;
};

// stored returns a stored time in full, in the zone shown.
const stored = (s) => {
  const ms = parseTime(s);
  if (Number.isNaN(ms)) return '';
  return `${isoDay(ms)} ${clock(ms)}${/\.\d+/.exec(s)?.[0] ?? ''} ${zoneName(ms)}`;
};

const duration = (ms) => {
  if (ms < 1000) return `${Math.round(ms)} ms`;
  if (ms < 10000) return `${(ms / 1000).toFixed(1)} s`;
  const s = Math.round(ms / 1000);
  if (s < 120) return `${s} s`;
  if (s < 7200) return `${Math.floor(s / 60)} min ${s % 60 ? (s % 60) + ' s' : ''}`.trim();
  if (s < 172800) return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
  return `${Math.floor(s / 86400)} d ${Math.floor((s % 86400) / 3600)} h`;
};
