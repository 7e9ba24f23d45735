// Putting it together: the legend, zooming, views of two circuits, and drawing after every change.

const MODES = ['side', 'diff', 'a', 'b'];
let due = 0, later = 0;
/** Draw all that may have changed, once per frame; while the slider moves, the panel when it rests. */
function refresh(moving = false) {
  clearTimeout(later);
  later = setTimeout(drawWords, moving ? 90 : 0);
  if (due) return;
  due = requestAnimationFrame(() => {
    due = 0;
    for (const pane of panes) {
      if (pane.root.hidden) continue;
      drawEdges(pane);
      drawNodes(pane);
    }
    drawHere();
  });
}
function drawWords() {
  drawPanel();
  drawLists();
}
function redrawEdges() {
  for (const pane of panes) if (!pane.root.hidden) drawEdges(pane);
}
/** The theme is another one: what was mixed from its colours is mixed again. */
function themed() {
  shades.clear();
  for (const pane of panes) if (!pane.root.hidden) drawNodes(pane);
}

/** Another size of the window: all of the graph in it. */
function resized() {
  const pane = panes[0], { width, height } = pane;
  if (pane.root.clientWidth !== width || pane.root.clientHeight !== height) layOut();
}

// --- zoom ---

const zoom = d3.zoom().scaleExtent([0.08, 8]).filter((event) => (!event.ctrlKey || event.type === 'wheel') && !event.button && !event.shiftKey);
let moving = 0;
function onZoom(event) {
  zoomed = event.transform;
  for (const pane of panes) {
    pane.world.setAttribute('transform', String(zoomed));
    pane.ground.setAttribute('transform', String(zoomed));
    pane.svg.__zoom = zoomed; // both panes show the same part
    pane.svg.classList.toggle('far', zoomed.k < 0.3); // what is too small to be read takes time to be drawn all the same
    pane.svg.classList.toggle('remote', zoomed.k < 0.18);
  }
  if (!moving) moving = requestAnimationFrame(() => { moving = 0; redrawEdges(); });
}
const zoomTo = (transform) => d3.select(panes[0].svg).call(zoom.transform, transform);
function zoomBy(factor) {
  const { width, height } = panes[0], x = width / 2, y = height / 2, k = Math.max(0.08, Math.min(8, zoomed.k * factor));
  const [gx, gy] = zoomed.invert([x, y]);
  zoomTo(d3.zoomIdentity.translate(x - k * gx, y - k * gy).scale(k));
}
/** Pan so that something is in view. */
function moveTo(thing) {
  const pane = panes[0], [x, y] = zoomed.apply([thing.x, thing.y]), margin = 22;
  const dx = x < margin ? margin - x : x > pane.width - margin ? pane.width - margin - x : 0;
  const dy = y < margin ? margin - y : y > pane.height - margin ? pane.height - margin - y : 0;
  if (dx || dy) zoomTo(d3.zoomIdentity.translate(zoomed.x + dx, zoomed.y + dy).scale(zoomed.k));
}

/** What a pane's name takes away above the graph. */
const nameHeight = () => (D.two ? 22 : 0);

/** Sizes of everything, and the whole graph in view. */
function layOut() {
  setModeClasses();
  drawCurve(); // its height decides what is left for the graph
  for (const pane of panes) {
    if (pane.root.hidden) continue;
    pane.width = pane.root.clientWidth;
    pane.height = pane.root.clientHeight;
  }
  const { width, height } = panes[0], { frame } = D, above = frame.columns.length ? 26 : 6, top = nameHeight();
  const k = Math.max(0.08, Math.min(1.6, (width - 16) / frame.width, (height - top - above - 14) / frame.height));
  const x = (width - k * frame.width) / 2, y = top + above * k + (height - top - k * (frame.height + above)) / 2;
  zoomTo(d3.zoomIdentity.translate(x, y).scale(k));
  refresh();
}
/** At first of a large graph the part below the logits, of a wide one where its strongest node is, large enough to be read. */
function firstLook() {
  layOut();
  if (zoomed.k > 0.36) return;
  const { width, height } = panes[0], { frame } = D;
  const k = Math.max(0.42, Math.min(0.7, Math.max((width - 16) / frame.width, (height - 40) / frame.height))), spare = width - k * frame.width;
  const strong = [...nodes].sort((a, b) => Math.abs(b.s ?? 0) - Math.abs(a.s ?? 0)).find((node) => onScreen(node) && !isEnd(node));
  const x = spare > 0 || !strong ? spare / 2 : Math.max(spare - 8, Math.min(8, width / 2 - k * strong.x));
  zoomTo(d3.zoomIdentity.translate(x, nameHeight() + 26 * k + 8).scale(k));
}

// --- two circuits ---

function setMode(mode) {
  S.mode = mode;
  changed();
  layOut();
  drawLegend();
  keep();
}
function setModeClasses() {
  const [a, b] = panes, both = S.mode === 'side';
  a.side = both ? 'a' : S.mode;
  if (b) {
    b.side = 'b';
    b.root.hidden = !both;
  }
  for (const pane of panes) {
    pane.name.textContent = D.two ? { a: D.labels[0], b: D.labels[1], diff: 'Difference' }[pane.side] : '';
    pane.name.hidden = !D.two;
    pane.svg.setAttribute('aria-label', `Circuit graph${D.two ? `, ${pane.name.textContent}` : ''}`);
  }
  const names = { side: 'Side by side', diff: 'Difference', a: clip(D.labels[0], 18), b: clip(D.labels[1], 18) };
  $('modes').replaceChildren(...(D.two ? MODES.map((mode) =>
    el('button', { 'data-mode': mode, 'aria-pressed': String(S.mode === mode), onclick: () => setMode(mode), title: mode === 'a' || mode === 'b' ? D.labels[mode === 'a' ? 0 : 1] : null }, names[mode])) : []));
}

// --- legend ---

function legendLines() {
  if (S.mode === 'diff') {
    return [
      { colour: 'var(--only-a)', dash: false, text: `only or stronger in ${clip(D.labels[0], 30)}` },
      { colour: 'var(--only-b)', dash: true, text: `only or stronger in ${clip(D.labels[1], 30)}` },
      { colour: 'var(--both)', dash: false, text: 'alike in both' },
    ];
  }
  const bare = D.sizes.some((_, i) => !D.scored[i]) ? [{ colour: 'var(--neutral)', dash: false, text: 'no scores' }] : [];
  if (!D.scored.some(Boolean)) return bare;
  if (!D.signed) return [{ colour: 'var(--neutral)', dash: false, text: 'score (no sign); wider: stronger' }];
  return [
    { colour: 'var(--carries)', dash: false, text: '\u2212 carries the behaviour' },
    { colour: 'var(--opposes)', dash: true, text: '+ works against it' },
    ...bare,
  ];
}

function drawLegend() {
  const marks = legendLines().map(({ colour, dash, text }) => el('span', { class: 'entry' },
    sv('svg', { width: 34, height: 10, 'aria-hidden': 'true' }, sv('path', { d: 'M1,5h32', stroke: colour, 'stroke-width': 3, 'stroke-dasharray': dash ? '6 4' : null })), text));
  const used = new Set(edges.map((edge) => edge.kind)), names = ['MLPs, logits', 'query', 'key', 'value'];
  const kinds = used.size < 2 ? [] : D.kinds.map((kind, i) => {
    if (!used.has(i)) return null;
    const box = el('input', { type: 'checkbox', 'data-kind': kind, onchange: () => { S.kinds[i] = box.checked; changed(); refresh(); } });
    box.checked = S.kinds[i];
    const mark = sv('svg', { width: 14, height: 14, viewBox: '-7 -7 14 14', 'aria-hidden': 'true' }, sv('path', { d: headOf(i, 0, -4, 3), fill: 'var(--ink)' }));
    return el('label', { class: 'entry' }, box, mark, names[i]);
  });
  const faint = el('input', { type: 'range', min: 0, max: 60, step: 0.5, id: 'faint', 'aria-label': 'Weakest edge that is drawn, in percent of the strongest' });
  faint.value = 100 * S.faintest;
  const told = el('output', {}, percent(S.faintest));
  faint.addEventListener('input', () => {
    S.faintest = Number(faint.value) / 100;
    told.textContent = percent(S.faintest);
    changed();
    refresh();
  });
  const filter = D.scored.some(Boolean) && edges.length ? el('label', { class: 'entry' }, 'edges above', faint, told, 'of the strongest') : null;
  const roles = D.kind === 'features' ? el('span', { class: 'entry' }, sv('svg', { width: 30, height: 14, 'aria-hidden': 'true' }, sv('rect', { x: 1, y: 1, width: 28, height: 12, rx: 4, fill: 'var(--page)', stroke: 'var(--box)', 'stroke-dasharray': '2 2.5' })), 'error term') : null;
  $('legend').replaceChildren(...[...marks, roles, ...kinds, filter].filter(Boolean));
}

// --- pointer ---

function listen(pane) {
  const { svg } = pane, at = (event) => zoomed.invert(d3.pointer(event, svg));
  let waiting = false;
  svg.addEventListener('pointermove', (event) => {
    if (event.target.closest('.node') || event.buttons || waiting) return;
    waiting = true;
    requestAnimationFrame(() => {
      waiting = false;
      const edge = edgeAt(pane.side, ...at(event));
      svg.classList.toggle('over', Boolean(edge));
      if (edge) showTip(edgeTip(edge, pane.side), event);
      else hideTip();
    });
  });
  svg.addEventListener('pointerleave', hideTip);
  svg.addEventListener('click', (event) => {
    if (event.defaultPrevented) return;
    const edge = edgeAt(pane.side, ...at(event));
    pick(edge ? { edge: edge.key } : null);
  });
  d3.select(svg).call(zoom).on('dblclick.zoom', null);
}

function start() {
  $('title').textContent = D.title;
  $('subtitle').textContent = $('subtitle').title = D.subtitle.join(' \u00b7 ');
  makePane(0);
  if (D.two) {
    makePane(1);
    S.mode = 'side';
  }
  zoom.on('zoom', onZoom);
  panes.forEach(listen);
  regroup();
  recall();
  $('size').max = lastStep;
  $('size').addEventListener('input', () => setStep(Number($('size').value)));
  $('smaller').addEventListener('click', () => setStep(S.step - 1));
  $('larger').addEventListener('click', () => setStep(S.step + 1));
  $('fit').addEventListener('click', layOut);
  $('save').addEventListener('click', saveFile);
  $('load').addEventListener('click', () => $('file').click());
  $('file').addEventListener('change', () => {
    if ($('file').files[0]) loadFile($('file').files[0]);
    $('file').value = '';
  });
  $('svg').addEventListener('click', exportSvg);
  $('png').addEventListener('click', exportPng);
  $('help').addEventListener('click', showKeys);
  $('search').addEventListener('input', () => search($('search').value));
  $('search').addEventListener('keydown', onSearchKey);
  $('search').addEventListener('blur', () => drawFound(false));
  document.addEventListener('keydown', onKey);
  window.addEventListener('pagehide', () => { if (kept) keepNow(); });
  window.addEventListener('storage', takeOver);
  matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => { themed(); refresh(); });
  drawLegend();
  firstLook();
  new ResizeObserver(resized).observe($('panes'));
  const first = startNode('a');
  for (const pane of panes) if (first) pane.marks.get(keyOf(first))?.root.setAttribute('tabindex', '0');
}
start();
