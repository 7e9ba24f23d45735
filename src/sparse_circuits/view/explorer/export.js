// What is on screen as a picture: the same courses and boxes as one SVG, and that drawn to a PNG.

/** What is made while the page is light, whatever the reader's theme: pictures are for paper and slides. */
function inLight(make) {
  const page = document.documentElement;
  page.classList.add('light');
  themed();
  try {
    return make();
  } finally {
    page.classList.remove('light');
    themed();
  }
}

function svgOf() {
  const shown = panes.filter((pane) => !pane.root.hidden), gap = 16, above = 54, below = 34;
  const width = shown.reduce((sum, pane) => sum + pane.width, 0) + gap * (shown.length - 1);
  const height = Math.max(...shown.map((pane) => pane.height));
  const made = sv('svg', { xmlns: SVG_SPACE, width, height: height + above + below, viewBox: `0 0 ${width} ${height + above + below}`, 'font-family': FONT });
  const text = (x, y, size, content, more = {}) => sv('text', { x, y, 'font-size': size, fill: 'var(--ink)', ...more }, content);
  made.append(sv('title', {}, D.title), sv('rect', { width, height: height + above + below, fill: 'var(--page)' }));
  made.append(text(12, 22, 15, D.title, { 'font-weight': 600 }), text(12, 41, 11.5, $('readout').textContent));
  let left = 0;
  shown.forEach((pane, number) => {
    const clipName = `clip-${number}`, list = edgesInSight(pane.side), lit = litBy(S.pick);
    made.append(sv('clipPath', { id: clipName }, sv('rect', { width: pane.width, height: pane.height })));
    const world = sv('g', { transform: `translate(${zoomed.x},${zoomed.y}) scale(${zoomed.k})` });
    world.append(pane.ground.firstChild.cloneNode(true));
    const drawn = sv('g', { class: 'edges', fill: 'none' });
    for (const [i, edge] of list.entries()) {
      const shape = shapeOf(edge), wide = widthOf(edge, list.length), colour = colourOf(edge, pane.side), dash = dashOf(edge, pane.side, list.length - i);
      const opacity = lit ? (lit(edge) ? 0.95 : 0.07) : Number(opacityOf(edge, list.length).toFixed(3));
      drawn.append(sv('g', { opacity },
        sv('title', {}, edgeTip(edge, pane.side).filter(Boolean).join(' ')),
        sv('path', { d: pathOf(shape.course), stroke: colour, 'stroke-width': Number(wide.toFixed(2)), 'stroke-dasharray': dash && dash.join(' ') }),
        sv('path', { d: headOf(edge.port ? edge.kind : 0, shape.x, shape.y, wide), fill: colour })));
    }
    world.append(drawn, cleanCopy(pane.layer));
    const frame = sv('g', { transform: `translate(${left},${above})`, 'clip-path': `url(#${clipName})` }, world);
    if (shown.length > 1) frame.append(text(10, 18, 13, pane.name.textContent, { 'font-weight': 600 }));
    made.append(frame);
    left += pane.width + gap;
  });
  made.append(...legendMarks(12, height + above + 22));
  for (const one of made.querySelectorAll('*')) {
    for (const name of ['fill', 'stroke']) {
      const [, named] = one.getAttribute(name)?.match(/^var\(--(.+)\)$/) ?? [];
      if (named) one.setAttribute(name, colour(named)); // there is no page around it to say what is meant
    }
  }
  return new XMLSerializer().serializeToString(made);
}

/** Nodes without what only the page needs. */
function cleanCopy(layer) {
  const copy = layer.cloneNode(true);
  for (const one of [...copy.querySelectorAll('[display="none"]')]) one.remove();
  for (const one of copy.querySelectorAll('*')) {
    for (const name of ['tabindex', 'role', 'aria-label', 'aria-pressed', 'aria-hidden', 'class']) one.removeAttribute(name);
  }
  return copy;
}

function legendMarks(x, y) {
  const out = [];
  for (const { colour, dash, text } of legendLines()) {
    out.push(sv('path', { d: `M${x},${y}h34`, stroke: colour, 'stroke-width': 2.4, 'stroke-dasharray': dash ? '6 4' : null }));
    out.push(sv('text', { x: x + 40, y, 'font-size': 11, fill: 'var(--ink)', 'dominant-baseline': 'central' }, text));
    x += 60 + 6.2 * text.length;
  }
  return out;
}

function exportSvg() {
  download(`${fileName()}.svg`, new Blob([inLight(svgOf)], { type: 'image/svg+xml' }));
  say('Exported SVG');
}
function exportPng() {
  const url = URL.createObjectURL(new Blob([inLight(svgOf)], { type: 'image/svg+xml' })), image = new Image();
  image.onload = () => {
    const canvas = el('canvas', { width: 2 * image.width, height: 2 * image.height });
    canvas.getContext('2d').drawImage(image, 0, 0, canvas.width, canvas.height);
    URL.revokeObjectURL(url);
    canvas.toBlob((blob) => { download(`${fileName()}.png`, blob); say('Exported PNG'); }, 'image/png');
  };
  image.onerror = () => say('This browser could not draw the PNG; export SVG instead.');
  image.src = url;
}
