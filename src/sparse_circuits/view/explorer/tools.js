// Small things that everything else uses. Text always goes in as text, never as markup.

const D = JSON.parse(document.getElementById('data').textContent);
const SVG_SPACE = 'http://www.w3.org/2000/svg';
const $ = (id) => document.getElementById(id);

/** An HTML element; properties that start with "on" are listeners, null ones are left out. */
function el(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [key, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false) continue;
    if (key.startsWith('on')) made.addEventListener(key.slice(2), value);
    else if (key === 'style') Object.assign(made.style, value);
    else made.setAttribute(key, value === true ? '' : value);
  }
  made.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined));
  return made;
}

/** An SVG element. */
function sv(tag, attributes = {}, ...children) {
  const made = document.createElementNS(SVG_SPACE, tag);
  for (const [key, value] of Object.entries(attributes)) if (value !== null) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

/** A number in a few digits with a real minus sign. */
function brief(value, digits = 3) {
  if (value === null || value === undefined || Number.isNaN(value)) return 'none';
  const size = Math.abs(value);
  const text = size === 0 ? '0' : size >= 1e6 || size < 1e-4 ? size.toExponential(digits - 1) : plain(size, digits);
  return value < 0 ? '\u2212' + text : text;
}

function plain(size, digits) {
  return size >= 1000 ? Math.round(size).toLocaleString('en') : Number.isInteger(size) ? String(size) : size.toPrecision(digits);
}

/** The same with its sign always there: colour is never the only thing that says it. */
const signed = (value, digits = 2) =>
  value === null || value === undefined ? '' : (value > 0 ? '+' : '') + brief(value, digits);

const clip = (text, length) => (text.length > length ? text.slice(0, length - 1) + '\u2026' : text);
const plural = (n, thing) => `${n.toLocaleString('en')} ${thing}${n === 1 ? '' : 's'}`;
const percent = (share) => `${Number((100 * share).toPrecision(2))}%`;

let sayTimer = 0;
/** Tell what happened, also to screen readers. */
function say(text) {
  $('status').textContent = text;
  $('status').classList.add('on');
  clearTimeout(sayTimer);
  sayTimer = setTimeout(() => $('status').classList.remove('on'), 4000);
}

/** Let the browser save a file. */
function download(name, blob) {
  const url = URL.createObjectURL(blob);
  const link = el('a', { href: url, download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(url), 1000);
}

const fileName = () => (D.title.replace(/[^\p{L}\p{N}]+/gu, '-').replace(/^-+|-+$/g, '').slice(0, 60) || 'circuit').toLowerCase();
