// Panes: a canvas for edges between two SVGs: stripes and names below, above it all that can be focused or clicked on.

let zoomed = d3.zoomIdentity;
const panes = [];

function makePane(i) {
  const canvas = el('canvas', { 'aria-hidden': 'true' });
  const world = sv('g', { class: 'world' }), ground = sv('g', {}, backdrop());
  const svg = sv('svg', { class: 'graph', role: 'group', 'font-family': FONT, 'aria-label': 'Circuit graph' }, world);
  const name = el('h2', {});
  const root = el('div', { class: 'pane', id: `pane-${i ? 'b' : 'a'}` }, sv('svg', { class: 'ground', 'font-family': FONT, 'aria-hidden': 'true' }, ground), canvas, svg, name);
  const pane = { i, root, canvas, svg, world, ground, name, side: i ? 'b' : 'a', width: 0, height: 0, marks: new Map() };
  for (const event of ['pointerdown', 'focusin']) root.addEventListener(event, () => { S.pane = i ? 'b' : 'a'; });
  pane.layer = sv('g', { class: 'nodes' });
  world.append(pane.layer);
  for (const node of nodes) addMark(pane, node);
  $('panes').append(root);
  panes.push(pane);
  return pane;
}

/** Names of layers, columns and sites, and the stripes between them. */
function backdrop() {
  const { frame } = D, made = sv('g', { class: 'backdrop', 'aria-hidden': 'true' });
  const text = (x, y, size, content, more = {}) =>
    made.append(sv('text', { x, y, 'font-size': size, fill: 'var(--faint)', 'dominant-baseline': 'middle', ...more }, content));
  frame.layers.forEach((layer, i) => {
    if (i % 2 === 0) {
      const box = { x: 0, y: layer.top, width: frame.width, height: layer.bottom - layer.top };
      made.append(sv('rect', { ...box, fill: 'var(--stripe)' }));
    }
    text(10, (layer.top + layer.bottom) / 2, 12, layer.name, layer.bottom - layer.top < 20 ? { 'font-size': 8 } : {});
  });
  for (const x of frame.borders) {
    made.append(sv('line', { x1: x, x2: x, y1: 0, y2: frame.height, stroke: 'var(--line)', 'stroke-dasharray': '2 4' }));
  }
  for (const column of frame.columns) text(column.x, -12, 12, column.name, { 'text-anchor': 'middle' });
  for (const lane of frame.lanes) text(92, lane.y, 11, lane.name);
  for (const [left, right, y, x] of frame.rails) {
    const line = { stroke: 'var(--quiet)', 'stroke-width': 1.2 };
    made.append(sv('line', { x1: left, x2: right, y1: y, y2: y, ...line }), sv('line', { x1: x, x2: x, y1: y, y2: y + 13, ...line }));
  }
  return made;
}

/** A node or group in a pane: its box, two lines of text, its ports, and marks for pins and notes. */
function addMark(pane, thing) {
  const { x, y, w, h } = thing, key = keyOf(thing);
  const box = sv('rect', { x: -w / 2, y: -h / 2, width: w, height: h, rx: thing.role === 'mlp' || isEnd(thing) ? 2 : 6 });
  const size = Math.min(13, Math.max(9, (w - 6) / (0.6 * Math.max(4, thing.label.length))));
  const text = (dy, px, content) =>
    sv('text', { y: dy, 'font-size': px, 'text-anchor': 'middle', 'dominant-baseline': 'central' }, content);
  const two = h >= 34, label = text(two ? -h / 5 : 0, size, clip(thing.label, 30)), second = text(h / 4.4, 9, '');
  const ring = sv('rect', { class: 'ring', x: -w / 2 - 4, y: -h / 2 - 4, width: w + 8, height: h + 8, rx: 8, fill: 'none', display: 'none' });
  const pin = sv('path', { class: 'pin', d: `M${w / 2 - 3},${-h / 2 - 7}l2.2,4.4 4.8,.7 -3.5,3.4 .8,4.8 -4.3,-2.3 -4.3,2.3 .8,-4.8 -3.5,-3.4 4.8,-.7z`, fill: 'var(--ink)', display: 'none' });
  const note = sv('path', { class: 'note', d: `M${-w / 2},${-h / 2}h9l-9,9z`, fill: 'var(--ink)', display: 'none' });
  const dot = sv('circle', { r: 2.2, fill: 'var(--quiet)', opacity: 0.7 });
  const full = sv('g', {}, ring, box, label, second, ...portsOf(thing), note, pin);
  const root = sv('g', {
    class: 'node', transform: `translate(${x},${y})`, tabindex: -1, role: 'button', 'data-name': key, 'aria-label': describe(thing),
  }, dot, full);
  root.addEventListener('click', (event) => {
    event.stopPropagation();
    if (event.shiftKey) choose(thing);
    else pick(pickOf(thing));
  });
  root.addEventListener('pointerenter', (event) => showTip(tipOf(thing, pane.side), event));
  root.addEventListener('pointerleave', hideTip);
  const mark = { thing, root, full, dot, box, label, second, ring, pin, note, two };
  pane.marks.set(key, mark);
  pane.layer.append(root);
  return mark;
}

/** The small boxes at a head's foot where its query, key and value are read. */
function portsOf(thing) {
  if (thing.role === 'group') return [];
  const own = ports.filter((port) => port.w && port.owners[0] === thing.i);
  return own.map((port) => {
    const x = port.x - thing.x, y = port.y - thing.y;
    return sv('g', { class: 'port' },
      sv('rect', { x: x - port.w / 2, y: y - port.h / 2, width: port.w, height: port.h, fill: 'var(--page)', stroke: 'var(--quiet)', rx: 2 }),
      sv('text', { x, y, 'font-size': 9.5, fill: 'var(--faint)', 'text-anchor': 'middle', 'dominant-baseline': 'central' }, port.label));
  });
}

const pickOf = (thing) => (thing.role === 'group' ? { group: thing.group.id } : { node: thing.name });
function pickedThing(pick) {
  if (!pick || pick.edge) return null;
  if (pick.group !== undefined) return boxes.get(pick.group) ?? null;
  const node = byName.get(pick.node);
  return node ? shownAs(node) : null;
}

/** Groups that were closed, opened or renamed: their boxes made anew. */
function remakeGroups() {
  for (const pane of panes) {
    for (const [key, mark] of pane.marks) {
      if (mark.thing.role !== 'group') continue;
      mark.root.remove();
      pane.marks.delete(key);
    }
    for (const box of boxes.values()) addMark(pane, box);
  }
}

function drawNodes(pane) {
  const picked = pickedThing(S.pick), edge = S.pick && S.pick.edge;
  const drawn = edgesInSight(pane.side), near = new Set();
  if (picked || edge) {
    const lit = litBy(S.pick);
    for (const one of drawn) if (lit(one)) near.add(one.u).add(one.d);
    if (picked) near.add(picked);
  }
  for (const [key, mark] of pane.marks) {
    const { thing } = mark;
    const away = thing.role !== 'group' && shownAs(thing) !== thing;
    const sight = !away && inSight(thing, pane.side);
    const hidden = away || S.hidden.has(key) || (S.onlyPins && S.pins.size && !sight);
    set(mark.root, 'display', hidden ? 'none' : null);
    if (hidden) continue;
    set(mark.full, 'display', sight ? null : 'none');
    set(mark.dot, 'display', sight ? 'none' : null);
    set(mark.root, 'aria-hidden', sight ? null : 'true');
    if (!sight) continue;
    const look = boxLook(thing, pane.side), absent = thing.role !== 'group' && !present(thing, pane.side);
    set(mark.box, 'fill', absent ? 'var(--page)' : look.fill);
    set(mark.box, 'stroke', look.stroke);
    set(mark.box, 'stroke-width', look.width);
    set(mark.box, 'stroke-dasharray', absent ? '1 3' : look.dash);
    set(mark.label, 'fill', absent ? 'var(--faint)' : look.ink);
    set(mark.second, 'fill', absent ? 'var(--faint)' : look.ink);
    if (mark.two || thing.role === 'group') mark.second.textContent = secondLine(thing, pane.side);
    if (thing.role === 'group') set(mark.label, 'y', -h4(thing));
    set(mark.full, 'opacity', near.size && !near.has(thing) ? 0.35 : 1);
    set(mark.pin, 'display', S.pins.has(key) ? null : 'none');
    set(mark.note, 'display', S.notes[key] ? null : 'none');
    const chosen = S.chosen.has(key);
    set(mark.ring, 'display', thing === picked || chosen ? null : 'none');
    set(mark.ring, 'stroke', 'var(--ink)');
    set(mark.ring, 'stroke-width', 2.4);
    set(mark.ring, 'stroke-dasharray', chosen && thing !== picked ? '4 3' : null);
    set(mark.root, 'aria-pressed', thing === picked ? 'true' : 'false');
  }
  keepTabStop(pane, picked);
}
/** One node of each pane takes the keyboard; where that one went out of sight, another does. */
function keepTabStop(pane, picked) {
  const open = (mark) => !mark.root.hasAttribute('display') && !mark.root.hasAttribute('aria-hidden');
  const marks = [...pane.marks.values()], stop = marks.find((mark) => mark.root.tabIndex === 0);
  if (stop && open(stop)) return;
  if (stop) set(stop.root, 'tabindex', -1);
  const first = picked ?? startNode(pane.side), next = marks.find((mark) => mark.thing === first && open(mark)) ?? marks.find(open);
  if (next) set(next.root, 'tabindex', 0);
}
const h4 = (thing) => thing.h / 5;

/** Below a node's name: what it means if that is known, or its score, or of two circuits whose it is. */
function secondLine(thing, side) {
  if (thing.role === 'group') return plural(thing.members.length, 'node');
  const { label } = toldOf(thing);
  if (typeof label === 'string' && label) return clip(label, Math.max(8, Math.floor(thing.w / 4.8)));
  if (side === 'diff') return { both: 'both', a: `only ${clip(D.labels[0], 8)}`, b: `only ${clip(D.labels[1], 8)}`, none: '' }[whose(thing)];
  return D.level === 'edges' || isEnd(thing) ? '' : signed(score(thing, side));
}

/** Set an attribute only where it changes: most of a slider step changes little. */
function set(element, name, value) {
  const text = value === null || value === undefined ? null : String(value);
  if (element.getAttribute(name) === text) return;
  if (text === null) element.removeAttribute(name);
  else element.setAttribute(name, text);
}

// --- what is under the pointer ---

function tipOf(thing, side) {
  const lines = [describe(thing)];
  if (thing.role === 'group') lines.push(thing.members.map((node) => clip(node.name, 24)).slice(0, 8).join(', '));
  else if (score(thing, side) !== null) lines.push(`${D.level === 'edges' ? 'its edges sum to' : 'effect'} ${signed(score(thing, side), 3)}`);
  return lines;
}
function edgeTip(edge, side) {
  const value = side === 'diff'
    ? `${clip(D.labels[0], 20)} ${edge.a ? signed(edge.s, 3) : 'not in it'}, ${clip(D.labels[1], 20)} ${edge.b ? signed(edge.s2, 3) : 'not in it'}`
    : edgeScore(edge, side) === null ? '' : signed(edgeScore(edge, side), 3);
  return [edgeTitle(edge), value];
}
function showTip(lines, event) {
  const tip = $('tip');
  tip.replaceChildren(...lines.filter(Boolean).map((line) => el('div', {}, clip(line, 160))));
  tip.hidden = false;
  const x = Math.min(event.clientX + 14, window.innerWidth - tip.offsetWidth - 8);
  const y = event.clientY + 16 + tip.offsetHeight > window.innerHeight ? event.clientY - tip.offsetHeight - 8 : event.clientY + 16;
  Object.assign(tip.style, { left: `${Math.max(4, x)}px`, top: `${Math.max(4, y)}px` });
}
const hideTip = () => { $('tip').hidden = true; };
