// What is known of a node: token strips, lists of tokens, a histogram; anything else as name and value.

const KNOWN = ['label', 'density', 'fired', 'tokens', 'histogram', 'contexts', 'top', 'quantiles', 'promoted', 'suppressed', 'similar', 'looks_at', 'prompts', 'link', 'name'];
const list = (value) => (Array.isArray(value) ? value : []);

function meaningOf(thing) {
  const meaning = D.meanings[thing.name];
  if (!meaning) return null;
  const rest = Object.entries(meaning).filter(([key, value]) => !KNOWN.includes(key) && value !== null && value !== '');
  const of = typeof meaning.tokens === 'number' ? `${meaning.tokens.toLocaleString('en')} tokens` : 'tokens', strong = list(meaning.contexts ?? meaning.top);
  const mean = list(meaning.prompts).length ? ', on average over prompts' : '';
  return el('section', { class: 'meaning' },
    typeof meaning.label === 'string' && meaning.label ? el('p', { class: 'label' }, meaning.label) : null,
    typeof meaning.density === 'number' && meaning.tokens !== 0 ? facts([['fires on', `${percent(meaning.density)} of ${of}`]]) : null,
    facts(rest.filter(([, value]) => typeof value !== 'object').map(([key, value]) => [key.replaceAll('_', ' '), typeof value === 'number' ? brief(value) : String(value)])),
    histogram(meaning.histogram),
    patterns(meaning.prompts),
    weights(`Promotes${mean}`, meaning.promoted),
    weights(`Suppresses${mean}`, meaning.suppressed),
    contexts('Fires on', strong),
    list(meaning.quantiles).map((band) => contexts(`Among the ${percent(band.from ?? 0)} to ${percent(band.to ?? 1)} strongest`, band.contexts, true)),
    weights(`Looks at${mean}`, meaning.looks_at),
    similar(meaning.similar),
    rest.filter(([, value]) => typeof value === 'object').map(([key, value]) =>
      el('details', {}, el('summary', {}, key.replaceAll('_', ' ')), el('pre', {}, clip(JSON.stringify(value, null, 1), 4000)))),
    safeLink(meaning.link),
  );
}

const facts = (pairs, look = null) =>
  pairs.length ? el('dl', { class: look }, pairs.map(([key, value]) => [el('dt', {}, key), el('dd', {}, value)])) : null;

/** Spaces at a token's ends, line breaks and what has no shape are part of it; one that runs the other way stays by itself. */
const visibleToken = (token) => el('bdi', {}, String(token).replaceAll('\n', '\u21b5').replaceAll('\t', '\u21e5').replace(/^ | $/g, '\u00b7')
  .replace(/[\u0000-\u001f\u007f-\u009f]/g, (c) => `\\x${c.charCodeAt(0).toString(16).padStart(2, '0')}`));
/** Tokens of whole words come without the spaces between them. */
const gapOf = (rows) => (rows.some((tokens) => tokens.some((token) => /\s/.test(String(token)))) ? '' : ' ');

function weights(title, tokens) {
  const all = list(tokens).map((one) => (Array.isArray(one) ? one : [one, null])).slice(0, 20);
  if (!all.length) return null;
  const most = Math.max(1e-30, ...all.map(([, value]) => Math.abs(value ?? 0)));
  return el('div', {}, el('h4', {}, title), el('ul', { class: 'tokens' }, all.map(([token, value]) =>
    el('li', { style: { background: mix('neutral', 0.08 + 0.3 * Math.abs(value ?? 0) / most) }, title: value === null ? null : brief(value) },
      el('code', {}, visibleToken(token)), typeof value === 'number' ? el('small', {}, ` ${signed(value)}`) : null))));
}

const valuesOf = (one) => list(one.activations ?? one.values);
function contexts(title, given, folded = false) {
  const all = list(given).filter((one) => one && Array.isArray(one.tokens)).slice(0, 12);
  if (!all.length) return null;
  const most = Math.max(1e-30, ...all.flatMap((one) => valuesOf(one).map((a) => Math.abs(a ?? 0))));
  const gap = gapOf(all.map((one) => one.tokens));
  const strips = el('ol', { class: 'contexts' }, all.map((one) =>
    el('li', {}, one.tokens.map((token, i) => {
      const before = i ? gap : '';
      const activation = valuesOf(one)[i] ?? 0, share = Math.min(1, Math.abs(activation) / most);
      const shade = mix(activation < 0 ? 'below' : 'above', 0.12 + 0.75 * share), look = share > 0.02 ? {
        background: shade, color: inkOn(shade),
        textDecoration: activation < 0 ? 'underline' : 'none', fontWeight: one.peak === i ? '600' : 'inherit',
      } : {};
      return [before, el('span', { class: 'token', style: look, title: activation ? brief(activation) : null }, String(token).replaceAll('\n', '\u21b5'))];
    }))));
  if (folded) return el('details', {}, el('summary', {}, title), strips);
  return el('div', {}, el('h4', {}, title), strips);
}

/** What a head looks at in some prompts: from each token (row) to each before it (column). */
function patterns(given) {
  const all = list(given).filter((one) => one && Array.isArray(one.pattern) && Array.isArray(one.tokens)).slice(0, 4);
  const gap = gapOf(all.map((one) => one.tokens));
  return all.map((one, k) => {
    const n = one.tokens.length, size = Math.min(14, 290 / n);
    const cells = one.pattern.flatMap((row, i) => list(row).map((share, j) => (share < 0.02 ? null : sv('rect', {
      x: j * size, y: i * size, width: size, height: size, fill: mix('above', Math.min(1, 0.1 + 0.9 * share)),
    }, sv('title', {}, `${one.tokens[i]} looks at ${one.tokens[j]}: ${percent(share)}`))))).filter(Boolean);
    const frame = sv('rect', { width: n * size, height: n * size, fill: 'none', stroke: 'var(--border)' });
    const picture = sv('svg', { viewBox: `-1 -1 ${n * size + 2} ${n * size + 2}`, width: n * size + 2, height: n * size + 2, role: 'img', 'aria-label': 'Attention pattern' }, frame, ...cells);
    return el('details', { open: k === 0 }, el('summary', {}, clip(one.tokens.join(gap), 44)), picture, weights('Promotes here', list(one.promoted).slice(0, 6)));
  });
}

/** Counts, with the bins' edges if there are any. */
function histogram(given) {
  const counts = list(Array.isArray(given) ? given : given?.counts).map(Number).filter(Number.isFinite);
  if (counts.length < 2) return null;
  const bounds = list(given?.edges ?? given?.bins), most = Math.max(...counts, 1e-30), width = 300 / counts.length;
  const bars = counts.map((count, i) => sv('rect', {
    x: i * width + 0.5, width: Math.max(1, width - 1), y: 40 - 38 * Math.sqrt(count / most), height: 38 * Math.sqrt(count / most), fill: 'var(--above)',
  }));
  const picture = sv('svg', { viewBox: '0 0 300 42', class: 'histogram', role: 'img', 'aria-label': 'Histogram of activations', preserveAspectRatio: 'none' }, ...bars);
  const ends = bounds.length > 1 ? el('p', { class: 'ends' }, el('span', {}, brief(bounds[0])), el('span', {}, brief(bounds.at(-1)))) : null;
  return el('div', {}, el('h4', {}, 'Activations'), picture, ends);
}

function similar(given) {
  const all = list(given).map((one) => (Array.isArray(one) ? one : [one, null])).slice(0, 12);
  if (!all.length) return null;
  return el('div', {}, el('h4', {}, 'Similar'), el('ul', { class: 'tokens' }, all.map(([name, value]) => {
    const node = byName.get(String(name)), text = [String(name), typeof value === 'number' ? el('small', {}, ` ${brief(value, 2)}`) : null];
    return el('li', {}, node ? el('button', { class: 'plain', onclick: () => pick({ node: node.name }, true) }, text) : text);
  })));
}

/** A link is only one if it leads to the web: no scripts. */
function safeLink(link) {
  if (typeof link !== 'string' || !/^https?:\/\//i.test(link)) return null;
  return el('p', {}, el('a', { href: link, target: '_blank', rel: 'noopener noreferrer' }, 'More about it'));
}
