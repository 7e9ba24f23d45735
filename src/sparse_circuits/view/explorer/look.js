// How scores look: colour and dashes by sign, width and opacity by size; two circuits by their own colours.

const FONT = 'system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif';

const crowding = (n) => 60 / Math.max(60, n);

/** Grows with the score; seen from afar, edges do not thin out as fast as the rest shrinks. */
function widthOf(edge, n) {
  const near = Math.sqrt(Math.min(1, zoomed.k));
  return (edge.scored ? 0.7 + 0.5 * crowding(n) + 4.6 * edge.share : 1.3) / near;
}
function opacityOf(edge, n) {
  const faint = 0.5 * crowding(n) ** 0.36;
  return edge.scored ? faint + (0.92 - faint) * Math.sqrt(edge.share) : 0.3 + 0.4 * crowding(n);
}

const shades = new Map();
/** A colour by its name in page.css, as the theme has it: for the canvas, and to be mixed; elsewhere var() does. */
function colour(name) {
  if (!shades.has(name)) shades.set(name, getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim());
  return shades.get(name);
}
const hueOf = (value) => (!D.signed || !value ? 'neutral' : value < 0 ? 'carries' : 'opposes');

const edgeScore = (edge, side) => (side === 'b' ? edge.s2 : edge.s);
function colourOf(edge, side) {
  if (side === 'diff') {
    if (!edge.a || !edge.b) return colour(edge.a ? 'only-a' : 'only-b');
    // in both: the greyer, the more alike
    const one = Math.abs(edge.s ?? 0) / strongest[0], two = Math.abs(edge.s2 ?? 0) / strongest[1];
    const lean = (two - one) / Math.max(one, two, 1e-30);
    return blend(colour('both'), colour(lean < 0 ? 'only-a' : 'only-b'), Math.abs(lean));
  }
  return colour(hueOf(edgeScore(edge, side)));
}
/** How many edges of a pane are drawn each on its own: further ones are too thin for dashes to be seen, and dashes cost time. */
const finely = () => 400 / (S.mode === 'side' ? 2 : 1);
/** Dashed is what works against the behaviour; of two circuits what only the second has. As long on screen at any zoom. */
function dashOf(edge, side, fromTop = 0) {
  const dashed = side === 'diff' ? edge.b && !edge.a : D.signed && edgeScore(edge, side) > 0;
  const long = 1 / Math.min(1, zoomed.k);
  return dashed && fromTop < finely() ? [6 * long, 4 * long] : null;
}

const channels = (hex) => [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16));
function blend(from, to, depth) {
  const end = channels(to), mixed = channels(from).map((at, i) => Math.round(at + depth * (end[i] - at)));
  return `#${mixed.map((at) => at.toString(16).padStart(2, '0')).join('')}`;
}
/** A colour by its name on the page's own, as a shade of it. */
const mix = (name, depth) => blend(colour('page'), colour(name), depth);
/** By relative luminance: whether dark text is easier to read on it than light text. */
const bright = (hex) => channels(hex).reduce((sum, at, i) => sum + [0.2126, 0.7152, 0.0722][i] * (at / 255) ** 2.2, 0) > 0.2;
const inkOn = (fill) => colour(bright(fill) === bright(colour('page')) ? 'ink' : 'page');

/** Fill, border, text colour and border dashes of a node's box. */
function boxLook(thing, side) {
  const look = { fill: 'var(--page)', stroke: 'var(--box)', ink: 'var(--ink)', dash: null, width: 1.1 };
  if (isEnd(thing)) return { ...look, fill: 'var(--end)', stroke: 'var(--border)' };
  if (thing.role === 'error') look.dash = '2 2.5';
  if (thing.role === 'whole' || thing.role === 'group') look.width = 2.2;
  if (side === 'diff') {
    const of = whose(thing);
    if (of === 'a') return { ...look, stroke: 'var(--only-a)', width: 2.2 };
    if (of === 'b') return { ...look, stroke: 'var(--only-b)', width: 2.2, dash: '6 3' };
    return look;
  }
  if (thing.role === 'mlp') look.fill = 'var(--raised)';
  // where edges are chosen, a node's sum over its edges is no score of its own
  if (D.level === 'edges') return look;
  const value = score(thing, side);
  if (value === null || !value) return look;
  const depth = 0.06 + 0.84 * Math.min(1, Math.abs(value) / strongestNode[side === 'b' ? 1 : 0]) ** 0.7;
  const hue = hueOf(value), fill = mix(hue, depth);
  return { ...look, fill, stroke: mix(hue, Math.min(1, depth + 0.35)), ink: inkOn(fill) };
}

/** What stands for an edge's kind at its end: q a triangle, k a square, v a disc; others have an arrowhead. */
function headOf(kind, x, y, width) {
  const r = 2.6 + 0.55 * width;
  if (kind === 1) return `M${x - r},${y + 2 * r}L${x + r},${y + 2 * r}L${x},${y}Z`;
  if (kind === 2) return `M${x - r},${y}H${x + r}V${y + 2 * r}H${x - r}Z`;
  if (kind === 3) return `M${x - r},${y + r}A${r},${r} 0 1 0 ${x + r},${y + r}A${r},${r} 0 1 0 ${x - r},${y + r}Z`;
  return `M${x - 0.8 * r},${y + 1.7 * r}L${x + 0.8 * r},${y + 1.7 * r}L${x},${y}Z`;
}
