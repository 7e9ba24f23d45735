// The keyboard: everything the mouse can do.

const KEYS = [
  ['Tab', 'into the graph, the panel, the slider'],
  ['\u2191 \u2193', 'from a node along its strongest edge, towards the logits or the tokens'],
  ['\u2190 \u2192', 'to the node beside it'],
  ['[ ]', 'through the edges of the selected node; Enter goes to the far end'],
  ['Space', 'choose a node for a group (also Shift and click)'],
  ['g', 'group what is chosen; open or close a group'],
  ['p', 'pin or unpin'], ['o', 'show only what is pinned'], ['h', 'hide the node, group or edge'], ['u', 'show all that is hidden'],
  ['n', 'write a note'], ['/', 'search'],
  ['+ \u2212', 'larger or smaller circuit'], ['> <', 'the same, five steps at once'],
  ['v', 'next view, where two circuits are compared'],
  ['z Shift+z', 'zoom in, out'], ['0', 'show all'],
  ['e Shift+E', 'export SVG, PNG'], ['s', 'save notes to a file'], ['Esc', 'select nothing'], ['?', 'these keys'],
];

function focusOn(thing) {
  const open = panes.filter((one) => !one.root.hidden && inSight(thing, one.side));
  const pane = open.find((one) => one.side === sideOf(S.mode)) ?? open[0] ?? panes[0], mark = pane.marks.get(keyOf(thing));
  for (const other of pane.marks.values()) set(other.root, 'tabindex', -1);
  if (!mark) return;
  set(mark.root, 'tabindex', 0);
  mark.root.focus({ preventScroll: true });
}

/** The nearest node beside one, in its row or the next. */
function beside(thing, direction, side) {
  const all = things().filter((one) => inSight(one, side)).sort((a, b) => b.y - a.y || a.x - b.x);
  return all[(all.indexOf(thing) + direction + all.length) % all.length];
}

function along(direction, side) {
  const thing = pickedThing(S.pick);
  if (!thing) return startNode(side);
  if (direction === 'left' || direction === 'right') return beside(thing, direction === 'left' ? -1 : 1, side);
  const { into, out } = edgesOf(thing, side), edge = (direction === 'up' ? out : into)[0];
  if (edge) return direction === 'up' ? edge.d : edge.u;
  const others = things().filter((one) => inSight(one, side) && (direction === 'up' ? one.y < thing.y - 4 : one.y > thing.y + 4));
  others.sort((a, b) => Math.abs(a.y - thing.y) - Math.abs(b.y - thing.y) || Math.abs(a.x - thing.x) - Math.abs(b.x - thing.x));
  return others[0] ?? thing;
}
const startNode = (side) => things().find((one) => one.role === 'logits') ?? things().find((one) => inSight(one, side));

/** Through the edges of a node, in their order in the panel. */
let around = null;
function throughEdges(step, side) {
  const thing = pickedThing(S.pick);
  if (thing) around = { thing, i: step > 0 ? -1 : 0 };
  if (!around) return;
  const { into, out } = edgesOf(around.thing, side), all = [...into, ...out];
  if (!all.length) return say('No edges in sight here');
  around.i = (around.i + step + all.length) % all.length;
  const edge = all[around.i];
  pick({ edge: edge.key });
  say(`${edgeTitle(edge)} ${signed(valueOf(edge, side), 3)}`);
}

const typing = (target) => target.closest('textarea, input[type="text"], input[type="search"], dialog');
const ARROWS = { ArrowUp: 'up', ArrowDown: 'down', ArrowLeft: 'left', ArrowRight: 'right' };

function onKey(event) {
  const { key, target } = event, side = sideOf(S.mode), composed = event.altKey && '[]'.includes(key); // where AltGr or Option makes them
  if (event.metaKey || ((event.ctrlKey || event.altKey) && !composed)) return;
  if (typing(target)) {
    if (key === 'Escape' && target.tagName === 'TEXTAREA') {
      target.blur();
      const at = pickedThing(S.pick);
      if (at) focusOn(at);
    }
    return;
  }
  const at = pickedThing(S.pick), inGraph = target.closest('.graph') || target === document.body;
  const pressed = target.tagName === 'BUTTON' || target.tagName === 'SUMMARY' || target.type === 'checkbox';
  const own = {
    '/': () => $('search').focus(),
    '?': showKeys,
    p: () => at && togglePin(keyOf(at)),
    h: () => (S.pick?.edge ? hide(S.pick.edge) : at && !isEnd(at) && hide(keyOf(at))),
    u: () => { S.hidden.clear(); done(); },
    g: askGroup,
    n: () => $('panel').querySelector('textarea')?.focus(),
    o: () => { S.onlyPins = !S.onlyPins && S.pins.size > 0; done(); },
    '+': () => setStep(S.step + 1), '=': () => setStep(S.step + 1), '-': () => setStep(S.step - 1), '>': () => setStep(S.step + 5), '<': () => setStep(S.step - 5),
    '[': () => throughEdges(-1, side), ']': () => throughEdges(1, side),
    e: exportSvg, E: exportPng, s: saveFile,
    v: () => D.two && setMode(MODES[(MODES.indexOf(S.mode) + 1) % MODES.length]),
    z: () => zoomBy(1.3), Z: () => zoomBy(1 / 1.3), 0: layOut,
    Escape: () => { S.chosen.clear(); pick(null); },
  };
  if (inGraph && ARROWS[key]) {
    const next = along(ARROWS[key], side);
    if (next) pick(pickOf(next), true);
  } else if (key === ' ' && inGraph && at) choose(at);
  else if (key === 'Enter' && inGraph && S.pick?.edge) {
    const at = sideWith(S.pick.edge), edge = at && findEdge(S.pick.edge, at);
    if (edge) pick(pickOf(around && around.thing === edge.d ? edge.u : edge.d), true);
  } else if (key === 'Enter' && target.classList.contains('node')) {
    const mark = panes.flatMap((pane) => [...pane.marks.values()]).find((one) => one.root === target);
    pick(pickOf(mark.thing), true);
  } else if (Object.hasOwn(own, key) && !(pressed && key === ' ')) {
    own[key]();
  } else return;
  event.preventDefault();
}

function showKeys() {
  const box = $('keys');
  box.replaceChildren(el('h3', {}, 'Keys'), el('dl', {}, KEYS.map(([key, what]) => [el('dt', {}, key), el('dd', {}, what)])),
    el('button', { onclick: () => box.close() }, 'Close'));
  box.showModal();
}

function onSearchKey(event) {
  const { key } = event;
  if (key === 'Escape') {
    $('search').value = '';
    drawFound(false);
    $('search').blur();
  } else if (key === 'Enter') takeFound(marked);
  else if (key === 'ArrowDown' || key === 'ArrowUp') {
    if (found.length) marked = (marked + (key === 'ArrowDown' ? 1 : -1) + found.length) % found.length;
    drawFound(Boolean($('search').value.trim()));
    $(`found-${marked}`)?.scrollIntoView({ block: 'nearest' });
  } else return;
  event.preventDefault();
}
