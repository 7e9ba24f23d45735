// How scores look: colour and dashes by sign, width and opacity by size; two circuits by their own colours.

const INK = '#1F2933', FAINT = '#616B77', BOTH = '#8A939D';
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
const edgeScore = (edge, side) => (side === 'b' ? edge.s2 : edge.s);
function colourOf(edge, side) {
  if (side === 'diff') {
    if (!edge.a || !edge.b) return edge.a ? D.colours.onlyA : D.colours.onlyB;
    // in both: the greyer, the more alike
    const one = Math.abs(edge.s ?? 0) / strongest[0], two = Math.abs(edge.s2 ?? 0) / strongest[1];
    const lean = (two - one) / Math.max(one, two, 1e-30);
    return blend(BOTH, lean < 0 ? D.colours.onlyA : D.colours.onlyB, Math.abs(lean));
  }
  const value = edgeScore(edge, side);
  if (!D.signed || !value) return D.colours.neutral;
  return value < 0 ? D.colours.carries : D.colours.opposes;
}
/** How many edges of a pane are drawn each on its own: further ones are too thin for dashes to be seen, and dashes cost time. */
const finely = () => 400 / (S.mode === 'side' ? 2 : 1);
/** Dashed is what works against the behaviour; of two circuits what only the second has. As long on screen at any zoom. */
function dashOf(edge, side, fromTop = 0) {
  const dashed = side === 'diff' ? edge.b && !edge.a : D.signed && edgeScore(edge, side) > 0;
  const long = 1 / Math.min(1, zoomed.k);
  return dashed && fromTop < finely() ? [6 * long, 4 * long] : null;
}

function blend(from, to, depth) {
  const at = (hex, i) => parseInt(hex.slice(i, i + 2), 16);
  return `rgb(${[1, 3, 5].map((i) => Math.round(at(from, i) + depth * (at(to, i) - at(from, i)))).join(',')})`;
}
const mix = (hex, depth) => blend('#FFFFFF', hex, depth);
/** Fill, border, text colour and border dashes of a node's box. */
function boxLook(thing, side) {
  const look = { fill: '#FFFFFF', stroke: '#7A8490', ink: INK, dash: null, width: 1.1 };
  if (isEnd(thing)) return { ...look, fill: '#E4E7EB', stroke: '#B4BBC4' };
  if (thing.role === 'error') look.dash = '2 2.5';
  if (thing.role === 'whole' || thing.role === 'group') look.width = 2.2;
  if (side === 'diff') {
    const of = whose(thing);
    if (of === 'a') return { ...look, stroke: D.colours.onlyA, width: 2.2 };
    if (of === 'b') return { ...look, stroke: D.colours.onlyB, width: 2.2, dash: '6 3' };
    return look;
  }
  if (thing.role === 'mlp') look.fill = '#F3F4F6';
  // where edges are chosen, a node's sum over its edges is no score of its own
  if (D.level === 'edges') return look;
  const value = score(thing, side);
  if (value === null || !value) return look;
  const depth = 0.06 + 0.84 * Math.min(1, Math.abs(value) / strongestNode[side === 'b' ? 1 : 0]) ** 0.7;
  const hue = !D.signed ? D.colours.neutral : value < 0 ? D.colours.carries : D.colours.opposes;
  return { ...look, fill: mix(hue, depth), stroke: mix(hue, Math.min(1, depth + 0.35)), ink: depth > 0.55 ? '#FFFFFF' : INK };
}

/** What stands for an edge's kind at its end: q a triangle, k a square, v a disc; others have an arrowhead. */
function headOf(kind, x, y, width) {
  const r = 2.6 + 0.55 * width;
  if (kind === 1) return `M${x - r},${y + 2 * r}L${x + r},${y + 2 * r}L${x},${y}Z`;
  if (kind === 2) return `M${x - r},${y}H${x + r}V${y + 2 * r}H${x - r}Z`;
  if (kind === 3) return `M${x - r},${y + r}A${r},${r} 0 1 0 ${x + r},${y + r}A${r},${r} 0 1 0 ${x - r},${y + r}Z`;
  return `M${x - 0.8 * r},${y + 1.7 * r}L${x + 0.8 * r},${y + 1.7 * r}L${x},${y}Z`;
}
