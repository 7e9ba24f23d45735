// What there is, what the reader has done to it, and what of it is in sight.

const nodes = D.nodes.map((node, i) => ({ ...node, i, group: null }));
const ports = D.ports;
const byName = new Map(nodes.map((node) => [node.name, node]));
/** Neurons and the like, which have no place of their own: the nodes that they are of. */
const ownerOf = new Map(nodes.flatMap((node) => (node.units ?? []).map((unit) => [unit.name, node])));
const edges = D.edges.u.map((u, i) => {
  const port = ports[D.edges.p[i]];
  const at = (key) => D.edges[key][i];
  return {
    i, port, u: nodes[u], kind: port.kind, name: `${nodes[u].name}->${port.name}`,
    s: at('s'), at: at('at'), s2: at('s2'), at2: at('at2'), course: at('course'),
  };
});
const edgeByName = new Map(edges.map((edge) => [edge.name, edge]));
/** The node that an edge's port hangs on; of a shared key or value the first head that has it. */
for (const edge of edges) edge.d = nodes[edge.port.owners[0]] ?? edge.u;

const strongest = [
  Math.max(1e-30, ...edges.map((edge) => Math.abs(edge.s ?? 0))),
  Math.max(1e-30, ...edges.map((edge) => Math.abs(edge.s2 ?? 0))),
];
const strongestNode = [
  Math.max(1e-30, ...nodes.map((node) => Math.abs(node.s ?? 0))),
  Math.max(1e-30, ...nodes.map((node) => Math.abs(node.s2 ?? 0))),
];

/** What the reader sees and did; pins, hidden, groups, notes are kept, by name. */
const S = {
  step: D.start,
  mode: 'a', // a, b, side, diff
  pane: 'a', // of two side by side the one that the reader was in last
  pick: null, // { node }, perhaps with one of its units opened, { edge } or { group }
  chosen: new Set(), // several nodes, to be grouped
  pins: new Set(),
  hidden: new Set(), // nodes, groups and edges
  groups: [], // { id, name, members: [names], open }
  notes: {},
  kinds: D.kinds.map(() => true),
  faintest: D.faintest,
  onlyPins: false,
};

let version = 0;
/** Something changed that decides what is in sight. */
const changed = () => { version += 1; };

// --- sides: "a", "b", or "diff" for both at once ---

const lastStep = D.steps.length - 1;
const within = (at) => at >= 0 && at <= S.step;
function present(part, side) {
  if (side === 'a') return within(part.at);
  if (side === 'b') return within(part.at2);
  return within(part.at) || within(part.at2);
}
/** A node's or edge's score; where single units are chosen, the sum of those that are in at this size. */
function score(part, side) {
  if (part.units && !D.two && part.s !== null) return part.units.reduce((sum, unit) => sum + (within(unit.at) ? unit.s ?? 0 : 0), 0);
  return side === 'b' ? part.s2 : side === 'a' || part.s !== null ? part.s : part.s2;
}
/** "both", "a" or "b": whose part it is at this size. */
function whose(part) {
  const a = within(part.at), b = within(part.at2);
  return a && b ? 'both' : a ? 'a' : b ? 'b' : 'none';
}
const isEnd = (node) => node.role === 'input' || node.role === 'logits';

// --- groups ---

/** The groups as things to draw: a closed one stands in its members' middle. */
function groupBox(group) {
  const members = group.members.map((name) => byName.get(name)).filter(Boolean);
  const mean = (key) => members.reduce((sum, node) => sum + node[key], 0) / Math.max(1, members.length);
  const within = (key) => members.some((node) => node[key] >= 0);
  const first = (key) => (within(key) ? Math.min(...members.filter((n) => n[key] >= 0).map((n) => n[key])) : -1);
  const sum = (key) => (members.some((n) => n[key] !== null) ? members.reduce((t, n) => t + (n[key] ?? 0), 0) : null);
  return {
    group, members, name: group.name, label: group.name, role: 'group',
    x: mean('x'), y: mean('y'), w: Math.max(70, 7 * Math.min(26, group.name.length) + 34), h: 30,
    s: sum('s'), s2: sum('s2'), at: first('at'), at2: first('at2'),
  };
}

let boxes = new Map();
/** Which group each node is in, and the closed groups' boxes; after every change of groups. */
function regroup() {
  for (const node of nodes) node.group = null;
  boxes = new Map();
  for (const group of S.groups) {
    for (const name of group.members) if (byName.has(name)) byName.get(name).group = group;
    if (!group.open) boxes.set(group.id, groupBox(group));
  }
  changed();
}
/** What stands for a node on screen: itself, or its closed group. */
const shownAs = (node) => (node.group && boxes.get(node.group.id)) || node;
const things = () => [...nodes.filter((node) => shownAs(node) === node), ...boxes.values()];

const keyOf = (thing) => (thing.role === 'group' ? `group ${thing.group.id}` : thing.name);

function inSight(thing, side) {
  if (S.hidden.has(keyOf(thing))) return false;
  if (S.onlyPins && S.pins.size) return S.pins.has(keyOf(thing));
  if (thing.role === 'group') return thing.members.some((node) => present(node, side));
  return present(thing, side) || (S.pins.has(thing.name) && !isEnd(thing));
}

// --- edges in sight ---

const seen = new Map();
/** The edges that are drawn, the weakest first: { key, u, d, port, kind, s, s2, a, b, share, parts }. */
function edgesInSight(side) {
  const key = side;
  const kept = seen.get(key);
  if (kept && kept.version === version) return kept.edges;
  const sight = new Map();
  const visible = (thing) => {
    if (!sight.has(thing)) sight.set(thing, inSight(thing, side));
    return sight.get(thing);
  };
  const merged = new Map(), found = [];
  for (const edge of edges) {
    if (!present(edge, side) || !S.kinds[edge.kind] || (S.hidden.size && S.hidden.has(edge.name))) continue;
    const u = shownAs(edge.u), d = readerOf(edge, visible);
    if (!d || u === d || !visible(u)) continue;
    const a = within(edge.at) && side !== 'b', b = within(edge.at2) && side !== 'a';
    if (u === edge.u && d.role !== 'group') {
      found.push({ key: edge.name, u, d, port: edge.port, kind: edge.kind, s: edge.s, s2: edge.s2, a, b, parts: [edge] });
      continue;
    }
    const name = `${keyOf(u)}->${d.role === 'group' ? keyOf(d) : edge.port.name}`;
    if (!merged.has(name)) {
      const port = d.role === 'group' ? null : edge.port;
      merged.set(name, { key: name, u, d, port, kind: port ? edge.kind : 0, s: null, s2: null, a: false, b: false, parts: [] });
      found.push(merged.get(name));
    }
    const one = merged.get(name);
    one.parts.push(edge);
    one.a ||= a;
    one.b ||= b;
    if (a && edge.s !== null) one.s = (one.s ?? 0) + edge.s;
    if (b && edge.s2 !== null) one.s2 = (one.s2 ?? 0) + edge.s2;
  }
  const left = merged.size && S.hidden.size ? found.filter((edge) => !S.hidden.has(edge.key)) : found;
  for (const edge of left) {
    const one = edge.a || side === 'a' ? Math.abs(edge.s ?? 0) / strongest[0] : 0;
    const two = edge.b ? Math.abs(edge.s2 ?? 0) / strongest[1] : 0;
    edge.share = Math.min(1, Math.max(one, two));
    edge.scored = (edge.a && edge.s !== null) || (edge.b && edge.s2 !== null);
  }
  const strong = left.filter((edge) => !edge.scored || edge.share >= S.faintest).reverse(); // all but in order now
  strong.sort((one, two) => one.share - two.share);
  seen.set(key, { version, edges: strong, all: left });
  return strong;
}
/** What in sight an edge leads to: of a shared key or value the first head that is. */
function readerOf(edge, visible) {
  const { owners } = edge.port;
  if (owners.length > 1) return owners.map((i) => shownAs(nodes[i])).find(visible);
  const d = shownAs(edge.d);
  return visible(d) ? d : undefined;
}

/** How many there would be without the filter for weak ones. */
const countAll = (side) => (edgesInSight(side), seen.get(side).all.length);

/** Edges into and out of a thing, the strongest first. */
function edgesOf(thing, side) {
  const drawn = edgesInSight(side);
  const reads = (edge) =>
    edge.d === thing || (edge.port && edge.port.owners.some((i) => shownAs(nodes[i]) === thing));
  return { into: drawn.filter(reads).reverse(), out: drawn.filter((edge) => edge.u === thing).reverse() };
}

/** The side that the panel tells of, and those that are on screen. */
const sideOf = (mode) => (mode === 'side' ? S.pane : mode);
const sidesShown = () => (S.mode === 'side' ? ['a', 'b'] : [S.mode]);
const onScreen = (thing) => sidesShown().some((side) => inSight(thing, side));

/** What was found of a node; people may call a group like one. */
const toldOf = (thing) => (thing.role !== 'group' && D.meanings[thing.name]) || {};
const describe = (thing) => (typeof toldOf(thing).label === 'string' ? `${thing.name}: ${toldOf(thing).label}` : thing.name);
const ROLES = {
  head: 'attention head', mlp: 'MLP', input: 'input: the tokens', logits: 'logits', feature: 'feature',
  error: 'error term: what no feature has', whole: 'whole site', group: 'group',
};
