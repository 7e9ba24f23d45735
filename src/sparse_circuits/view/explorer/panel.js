// The panel: what is selected, the numbers behind it, and what leads into it and out of it.

const ROWS = 60; // edges listed at once
let unfolded = false;

function drawPanel() {
  const panel = $('panel'), typing = panel.contains(document.activeElement) && document.activeElement.tagName === 'TEXTAREA';
  if (typing) return;
  const { pick: at } = S, held = panel.contains(document.activeElement) ? document.activeElement.dataset.key : null;
  const found = at && (at.edge ? edgePanel(at.edge) : thingPanel(pickedThing(at)));
  panel.replaceChildren(...(found || overview()));
  if (held) (panel.querySelector(`[data-key="${CSS.escape(held)}"]`) || panel).focus({ preventScroll: true });
}

const button = (text, key, action, more = {}) => el('button', { 'data-key': key, onclick: action, ...more }, text);

function overview() {
  const several = S.chosen.size ? chosenPanel() : null;
  return [
    several,
    el('h3', {}, 'Circuit'),
    facts([
      ...D.sizes.map((sizes, i) => [D.two ? clip(D.labels[i], 24) : 'size', `${plural(sizes[S.step], D.thing)} of ${D.total.toLocaleString('en')}`]),
      ...SIDES.flatMap(qualityOf),
      ...ablations(),
      ...(D.random ? [[`${whoseIs(0)}random circuits`, `${faith(D.random.value)}${range(D.random)}`]] : []),
      ...D.leftOut.map((at) => at[S.step]).filter(Boolean).map((n) => ['not drawn', plural(n, 'weaker edge')]),
    ], D.two ? 'two' : null),
    D.sizes.some((sizes) => sizes[S.step] > 0) ? null : el('p', { class: 'hint' }, lastStep ? 'Nothing is left of a circuit of this size: its parts do not connect the tokens to the logits.' : 'This circuit is empty.'),
    el('p', { class: 'hint' }, 'Click a node or an edge; Shift and click to choose several nodes, then group them. Press ? for all keys.'),
    strongestNodes(),
    noteOf('circuit', 'Notes on this circuit'),
  ].filter(Boolean);
}

/** How good a circuit is where it was evaluated. */
function qualityOf(i) {
  const known = D.evaluations[i];
  const of = known && D.steps.length > 1 && known.x !== D.steps[S.step] ? ` of ${plural(known.size, D.thing)}` : '';
  return [
    known ? [`${whoseIs(i)}faithfulness${of}`, `${faith(known.value)}${range(known)}`] : null,
    known && known.completeness !== null ? [`${whoseIs(i)}completeness${of}`, faith(known.completeness)] : null,
  ].filter(Boolean);
}
function ablations() {
  const found = SIDES.map((i) => (D.evaluations[i] ?? D.curves[i])?.ablation).filter(Boolean);
  return found.length ? [['ablation', [...new Set(found)].join(', ')]] : [];
}

/** Of two, which one a list is of. */
const inWhich = () => (S.mode === 'side' ? ` in ${clip(D.labels[S.pane === 'b' ? 1 : 0], 24)}` : S.mode === 'diff' ? `, by their score in ${clip(D.labels[0], 20)} or else in ${clip(D.labels[1], 20)}` : '');

function strongestNodes() {
  const side = sideOf(S.mode), differ = S.mode === 'diff';
  const value = (node) => (differ ? (within(node.at2) ? node.s2 ?? 0 : 0) - (within(node.at) ? node.s ?? 0 : 0) : score(node, side));
  const all = nodes.filter((node) => node.role !== 'logits' && present(node, side) && score(node, side) !== null && (!differ || value(node) !== 0));
  if (!all.length) return null;
  all.sort((a, b) => Math.abs(value(b)) - Math.abs(value(a)));
  const most = Math.abs(value(all[0])) || 1, title = differ ? `Largest differences, ${clip(D.labels[1], 24)} less ${clip(D.labels[0], 24)}` : `Strongest nodes${inWhich()}`;
  return el('section', {}, el('h4', {}, `${title}${D.level === 'edges' ? ' (sum of their edges)' : ''}`), el('ul', { class: 'edges' },
    all.slice(0, 12).map((node) => row(node.name, describe(node), value(node), most, () => pick({ node: node.name }, true)))));
}

function row(key, text, value, most, action, badge = null) {
  const bar = el('span', { class: 'bar', style: { width: `${Math.round(100 * Math.min(1, Math.abs(value ?? 0) / (most || 1)))}%`, background: `var(--${hueOf(value)})` } });
  return el('li', {}, el('button', { class: 'row', 'data-key': `row ${key}`, onclick: action, title: text },
    el('span', { class: 'what' }, badge, clip(text, 60)), el('span', { class: 'number' }, signed(value, 3)), bar));
}

function thingPanel(thing) {
  if (!thing) return null;
  const key = keyOf(thing), group = thing.role === 'group' ? thing.group : null, side = sideOf(S.mode);
  const layer = thing.name.match(/^(?:a|m|[a-z_]+_)(\d+)/);
  const inside = !group && thing.group ? el('p', { class: 'hint' }, 'In group ', thing.group.name, '. ') : null;
  return [
    el('h3', {}, thing.name),
    el('p', { class: 'role' }, ROLES[thing.role] || thing.role, layer && !group ? `, layer ${layer[1]}` : '', present(thing, side) || group ? '' : ', not in the circuit at this size'),
    numbersOf(thing, side),
    inside,
    actions(thing, key, group),
    noteOf(key, `Notes on ${thing.name}`),
    group ? el('section', {}, el('h4', {}, 'Members'), el('ul', { class: 'edges' }, thing.members.map((node) =>
      row(node.name, describe(node), score(node, side), strongestNode[0], () => { openGroup(group, true); pick({ node: node.name }, true); })))) : null,
    group ? null : meaningOf(thing),
    unitsOf(thing),
    ...edgeLists(thing, side),
  ].filter(Boolean);
}

function numbersOf(thing, side) {
  const what = D.level === 'edges' ? 'edges out, summed' : 'effect', pairs = [];
  if (D.two) {
    const has = (part, i) => (within(i ? part.at2 : part.at) ? signed(i ? part.s2 : part.s, 4) || 'in it' : 'not in it');
    D.labels.forEach((label, i) => pairs.push([`${what}, ${clip(label, 22)}`, has(thing, i)]));
    if (thing.s !== null && thing.s2 !== null) pairs.push(['difference', signed(thing.s2 - thing.s, 4)]);
  } else if (thing.s !== null) pairs.push([what, signed(score(thing, side), 4)]);
  const at = side === 'b' ? thing.at2 : thing.at;
  if (at >= 0 && !isEnd(thing) && D.steps.length > 1) pairs.push(['in circuits of', `${D.steps[at].toLocaleString('en')} or more`]);
  return facts(pairs);
}

function actions(thing, key, group) {
  const pinned = S.pins.has(key);
  return el('div', { class: 'actions' },
    button(pinned ? 'Unpin' : 'Pin', 'pin', () => togglePin(key), { 'aria-pressed': String(pinned), title: 'p' }),
    isEnd(thing) ? null : button('Hide', 'hide', () => hide(key), { title: 'h' }),
    group ? button('Open', 'open', () => openGroup(group, true), { title: 'Show its members (g)' }) : null,
    group ? button('Rename', 'rename', () => renameGroup(group)) : null,
    group ? button('Ungroup', 'ungroup', () => ungroup(group)) : null,
    !group && !isEnd(thing) ? button(S.chosen.has(key) ? 'Leave out' : 'Choose', 'choose', () => choose(thing), { title: 'Choose for a group (Space)' }) : null,
    !group && thing.group ? button('Close group', 'close', () => openGroup(thing.group, false)) : null,
    S.chosen.size ? button(`Group ${S.chosen.size}`, 'group', askGroup, { title: 'g' }) : null,
  );
}

function unitsOf(thing) {
  const side = sideOf(S.mode), both = S.mode === 'side' || S.mode === 'diff';
  const units = (thing.units || []).filter((unit) => present(unit, both ? 'diff' : side));
  if (!units.length) return null;
  const valueIn = (unit) => (both && !within(unit.at) ? unit.s2 : score(unit, side)), most = Math.max(1e-30, ...units.map((unit) => Math.abs(valueIn(unit) ?? 0)));
  const badge = (unit) => (D.two && both && whose(unit) !== 'both' ? onlyIn(whose(unit)) : null), open = S.pick?.unit;
  const first = units.findIndex((unit) => unit.name === open), shown = first < ROWS ? units.slice(0, ROWS) : [units[first], ...units.slice(0, ROWS)];
  return el('section', {}, el('h4', {}, `Its ${plural(units.length, D.thing)}`), el('ul', { class: 'edges units' }, shown.map((unit) => {
    const one = row(unit.name, describe(unit), valueIn(unit), most, () => openUnit(thing, unit.name === open ? null : unit.name), badge(unit));
    one.firstChild.setAttribute('aria-expanded', String(unit.name === open));
    if (unit.name === open) one.append(...[meaningOf(unit), noteOf(unit.name, `Notes on ${unit.name}`)].filter(Boolean));
    return one;
  })));
}
/** What is known of a neuron or the like opens below it. */
function openUnit(thing, name) {
  leaveNote();
  S.pick = { ...pickOf(thing), unit: name };
  drawPanel();
}
const onlyIn = (side) => el('b', { class: 'badge', title: `only in ${D.labels[side === 'a' ? 0 : 1]}`, style: { background: `var(--only-${side})` } }, side.toUpperCase());

function edgeLists(thing, side) {
  const { into, out } = edgesOf(thing, side), most = Math.max(1e-30, ...[...into, ...out].map((e) => Math.abs(valueOf(e, side) ?? 0)));
  const one = (title, all, far) => {
    if (!all.length) return null;
    const shown = unfolded ? all : all.slice(0, ROWS);
    return el('section', {}, el('h4', {}, `${title} (${all.length.toLocaleString('en')})`), el('ul', { class: 'edges' },
      shown.map((edge) => row(edge.key, far(edge), valueOf(edge, side), most, () => pick({ edge: edge.key }), kindBadge(edge)))),
      shown.length < all.length ? button(`All ${all.length.toLocaleString('en')}`, 'all', () => { unfolded = true; drawPanel(); }) : null);
  };
  return [one(`Incoming edges${inWhich()}`, into, (edge) => describe(edge.u)), one(`Outgoing edges${inWhich()}`, out, (edge) => describe(edge.d))];
}
const valueOf = (edge, side) => (side === 'diff' ? (edge.a ? edge.s : edge.s2) : edgeScore(edge, side));

function kindBadge(edge) {
  const whoseMark = S.mode === 'diff' && !(edge.a && edge.b) ? onlyIn(edge.a ? 'a' : 'b') : null;
  const kind = edge.port && edge.kind ? el('b', { class: 'badge kind' }, D.kinds[edge.kind]) : null;
  return [whoseMark, kind].filter(Boolean);
}
const edgeTitle = (edge) => `${edge.u.name} \u2192 ${edge.port ? edge.port.name : edge.d.name}`;
const findEdge = (key, side) => edgesInSight(side).find((edge) => edge.key === key) || null;
/** The side whose edge of that name the panel tells of. */
const sideWith = (key) => [sideOf(S.mode), ...sidesShown()].find((side) => findEdge(key, side));

function edgePanel(key) {
  const side = sideWith(key);
  if (!side) return null;
  const edge = findEdge(key, side), drawn = [...edgesInSight(side)].reverse(), rank = drawn.indexOf(edge) + 1, base = edge.parts.length === 1 ? edge.parts[0] : null;
  const share = (all) => {
    const sum = all.reduce((total, one) => total + Math.abs(valueOf(one, side) ?? 0), 0);
    return sum ? percent(Math.abs(valueOf(edge, side) ?? 0) / sum) : null;
  };
  const pairs = [];
  if (D.two) {
    pairs.push([`score, ${clip(D.labels[0], 22)}`, edge.a ? signed(edge.s, 4) || 'in it' : 'not in it']);
    pairs.push([`score, ${clip(D.labels[1], 22)}`, edge.b ? signed(edge.s2, 4) || 'in it' : 'not in it']);
    if (edge.s !== null && edge.s2 !== null) pairs.push(['difference', signed(edge.s2 - edge.s, 4)]);
  } else if (edge.s !== null) pairs.push(['score', signed(edge.s, 4)]);
  if (edge.scored) {
    const value = valueOf(edge, side);
    if (D.signed) pairs.push(['meaning of its sign', value < 0 ? 'carries the behaviour' : value > 0 ? 'works against it' : 'neither']);
    pairs.push(['rank', `${rank.toLocaleString('en')} of ${drawn.length.toLocaleString('en')} drawn`]);
    pairs.push([`of all out of ${clip(edge.u.name, 18)}`, share(edgesOf(edge.u, side).out)], [`of all into ${clip(edge.d.name, 18)}`, share(edgesOf(edge.d, side).into)]);
  }
  if (edge.port && edge.kind) pairs.push(['read as', { q: 'query', k: 'key', v: 'value' }[D.kinds[edge.kind]]]);
  if (base && D.steps.length > 1 && (edge.a ? base.at : base.at2) >= 0) pairs.push(['in circuits of', `${D.steps[edge.a ? base.at : base.at2].toLocaleString('en')} or more`]);
  const owners = edge.port && edge.port.owners.length > 1 ? el('p', { class: 'hint' }, `Read by ${edge.port.owners.map((i) => nodes[i].name).join(', ')}, which share it.`) : null;
  return [
    el('h3', {}, edgeTitle(edge)),
    el('p', { class: 'role' }, edge.parts.length > 1 ? `${plural(edge.parts.length, 'edge')} of a group, summed` : 'edge'),
    facts(pairs.filter(([, value]) => value)), owners,
    el('div', { class: 'actions' },
      button(`From ${clip(edge.u.name, 20)}`, 'from', () => pick(pickOf(edge.u), true)),
      button(`To ${clip(edge.d.name, 20)}`, 'to', () => pick(pickOf(edge.d), true)),
      button('Hide', 'hide', () => hide(edge.key), { title: 'h' })),
    edge.parts.length > 1 ? el('section', {}, el('h4', {}, 'Edges in it'), el('ul', { class: 'edges' },
      edge.parts.map((part) => row(part.name, part.name, score(part, side), strongest[0], () => pickPart(part))))) : null,
    noteOf(edge.key, 'Notes on this edge'),
  ].filter(Boolean);
}

/** Select one of the edges of a closed group, which opens it. */
function pickPart(edge) {
  for (const node of [edge.u, edge.d]) if (shownAs(node) !== node) openGroup(node.group, true);
  pickEdge(edge.name);
}

function chosenPanel() {
  return el('section', {}, el('h3', {}, plural(S.chosen.size, 'chosen node')), el('p', {}, [...S.chosen].slice(0, 12).join(', ')),
    el('div', { class: 'actions' }, button('Group', 'group', askGroup, { title: 'g' }), button('Clear', 'clear', () => { S.chosen.clear(); refresh(); })));
}

function noteOf(key, label) {
  const area = el('textarea', { rows: 2, 'aria-label': label, placeholder: `${label} (n)`, 'data-key': 'note', class: 'note' });
  area.value = S.notes[key] || '';
  area.addEventListener('input', () => {
    if (area.value) S.notes[key] = area.value;
    else delete S.notes[key];
    keep();
    panes.forEach(drawNodes);
    drawLists();
  });
  return area;
}
