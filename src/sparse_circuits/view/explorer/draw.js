// Edges on a canvas: their courses, drawing them, and finding the one under the pointer.

/** A course as numbers: start, then two control points and an end per piece. */
function courseOf(edge) {
  if (edge.parts.length === 1 && edge.u === edge.parts[0].u && edge.port) return edge.parts[0].course;
  const u = edge.u, d = edge.port ?? edge.d;
  const inside = (bar, x) => Math.max(bar.x - bar.w / 2 + 8, Math.min(bar.x + bar.w / 2 - 8, x));
  const x0 = isEnd(u) ? inside(u, d.x) : u.x, y0 = u.y - u.h / 2;
  const x1 = edge.d.role === 'logits' ? inside(edge.d, u.x) : d.x, y1 = d.y + d.h / 2;
  const bend = Math.max(24, Math.abs(y0 - y1) / 2);
  return [x0, y0, x0, y0 - bend, x1, y1 + bend, x1, y1];
}
function pathOf(course) {
  let text = `M${course[0]},${course[1]}`;
  for (let i = 2; i < course.length; i += 6) text += `C${course.slice(i, i + 6).join(',')}`;
  return text;
}

/** The same with two straight lines for each bend: faint edges of large circuits seen from afar, at less cost. */
function roughOf(shape) {
  if (shape.rough) return shape.rough;
  const c = shape.course, points = [c[0], c[1]];
  for (let i = 2, x = c[0], y = c[1]; i < c.length; i += 6) {
    const endX = c[i + 4], endY = c[i + 5];
    if (x !== endX) points.push((x + 3 * (c[i] + c[i + 2]) + endX) / 8, (y + 3 * (c[i + 1] + c[i + 3]) + endY) / 8);
    points.push(endX, endY);
    x = endX;
    y = endY;
  }
  shape.rough = points;
  return points;
}
function roughOn(path, shape) {
  const points = roughOf(shape);
  path.moveTo(points[0], points[1]);
  for (let i = 2; i < points.length; i += 2) path.lineTo(points[i], points[i + 1]);
}

const paths = new Map(); // by edge; courses of the graph's own edges never change
function shapeOf(edge) {
  const own = edge.parts.length === 1 && edge.u === edge.parts[0].u && edge.port ? edge.parts[0] : null;
  if (own && paths.has(own)) return paths.get(own);
  const course = courseOf(edge);
  const xs = course.filter((_, i) => i % 2 === 0);
  const shape = {
    course, path: new Path2D(pathOf(course)), x: course.at(-2), y: course.at(-1), line: null, rough: null,
    left: Math.min(...xs), right: Math.max(...xs), top: course.at(-1), bottom: course[1],
  };
  if (own) paths.set(own, shape);
  return shape;
}

/** Which edges stand out: those of what is selected or under the pointer, or all. */
function litBy(pick) {
  if (!pick) return null;
  if (pick.edge) return (edge) => edge.key === pick.edge;
  const thing = pickedThing(pick);
  if (!thing) return null;
  return (edge) => edge.u === thing || edge.d === thing || (edge.port && edge.port.owners.some((i) => nodes[i] === thing));
}

const LEVELS = 24; // so many widths and opacities of bundled edges are told apart
/** Edges, or their ends, that look about the same: drawn at once, which costs much less than one by one. */
class Bundles {
  constructor(lookOf) {
    this.lookOf = lookOf;
    this.found = new Map(); // by colour, and in a list by strength
  }

  of(edge, colour, dash = null) {
    const name = dash ? `${colour} dashed` : colour, level = Math.round(LEVELS * Math.sqrt(edge.share));
    let levels = this.found.get(name);
    if (!levels) this.found.set(name, (levels = []));
    return (levels[level] ??= { colour, dash, ...this.lookOf(edge), path: new Path2D() });
  }

  /** The weakest first. */
  all() {
    const levels = [...this.found.values()], most = Math.max(0, ...levels.map((one) => one.length));
    return Array.from({ length: most }, (_, i) => levels.map((one) => one[i])).flat().filter(Boolean);
  }
}

/** What of the graph is on screen, and a little around it: nothing else need be drawn. */
function view(pane) {
  const [left, top] = zoomed.invert([-20, -20]), [right, bottom] = zoomed.invert([pane.width + 20, pane.height + 20]);
  return (shape) => shape.right >= left && shape.left <= right && shape.bottom >= top && shape.top <= bottom;
}

/** How many of n edges, the weakest, are drawn in bundles; and how many of these roughly. */
function coarse(n) {
  const weak = n - finely(), far = zoomed.k < 0.5 && n > 2 * finely(), bundled = far ? n - finely() / 3 : weak;
  return { bundled, rough: !far ? 0 : zoomed.k < 0.3 ? bundled : weak };
}

function drawEdges(pane) {
  const { canvas, side } = pane, context = canvas.getContext('2d'), ratio = window.devicePixelRatio || 1;
  const width = Math.round(pane.width * ratio), height = Math.round(pane.height * ratio);
  if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
  context.setTransform(1, 0, 0, 1, 0, 0);
  context.clearRect(0, 0, width, height);
  context.setTransform(ratio * zoomed.k, 0, 0, ratio * zoomed.k, ratio * zoomed.x, ratio * zoomed.y);
  const list = edgesInSight(side), lit = litBy(S.pick), n = list.length, inView = view(pane), { bundled, rough } = coarse(n);
  for (const pass of lit ? [false, true] : [true]) {
    const lookOf = (edge) => ({
      alpha: lit ? (pass ? 0.95 : 0.07) : opacityOf(edge, n),
      wide: widthOf(edge, n) + (lit && pass ? 0.7 : 0),
    });
    const lines = new Bundles(lookOf), heads = new Bundles(lookOf), alone = [];
    for (let i = 0; i < n; i += 1) {
      const edge = list[i];
      if (lit && lit(edge) !== pass) continue;
      const shape = shapeOf(edge);
      if (!inView(shape)) continue;
      const colour = colourOf(edge, side), dash = dashOf(edge, side, n - i);
      if (i >= bundled) alone.push({ colour, dash, ...lookOf(edge), path: shape.path });
      else if (i < rough) roughOn(lines.of(edge, colour).path, shape);
      else lines.of(edge, colour, dash).path.addPath(shape.path);
      const head = heads.of(edge, colour);
      headOn(head.path, edge.port ? edge.kind : 0, shape.x, shape.y, head.wide);
    }
    for (const line of lines.all()) strokeOn(context, line);
    for (const line of alone) strokeOn(context, line); // the strongest, one over the other
    for (const { alpha, colour, path } of heads.all()) {
      context.globalAlpha = alpha;
      context.fillStyle = colour;
      context.fill(path);
    }
  }
  context.globalAlpha = 1;
}
function strokeOn(context, { colour, alpha, wide, path, dash }) {
  context.globalAlpha = alpha;
  context.strokeStyle = colour;
  context.lineWidth = wide;
  if (dash) context.setLineDash(dash);
  context.stroke(path);
  if (dash) context.setLineDash([]);
}

/** The same as headOf, without a string to be parsed for each of thousands. */
function headOn(path, kind, x, y, width) {
  const r = 2.6 + 0.55 * width;
  if (r * zoomed.k < 0.6) return; // less than a pixel
  if (r * zoomed.k < 1.7) path.rect(x - r, y, 2 * r, 2 * r); // too small on screen for its shape to be seen
  else if (kind === 3) {
    path.moveTo(x + r, y + r);
    path.arc(x, y + r, r, 0, 2 * Math.PI);
  } else if (kind === 2) path.rect(x - r, y, 2 * r, 2 * r);
  else {
    const [half, foot] = kind === 1 ? [r, y + 2 * r] : [0.8 * r, y + 1.7 * r];
    path.moveTo(x, y);
    path.lineTo(x + half, foot);
    path.lineTo(x - half, foot);
    path.closePath();
  }
}

/** Points along a course, close enough to measure distances to. */
function lineOf(shape) {
  if (shape.line) return shape.line;
  const c = shape.course, line = [c[0], c[1]];
  for (let i = 2, x = c[0], y = c[1]; i < c.length; i += 6) {
    for (let k = 1; k <= 12; k += 1) {
      const t = k / 12, s = 1 - t;
      const mixed = (j, from) => s * s * s * from + 3 * s * s * t * c[i + j] + 3 * s * t * t * c[i + 2 + j] + t * t * t * c[i + 4 + j];
      line.push(mixed(0, x), mixed(1, y));
    }
    x = c[i + 4];
    y = c[i + 5];
  }
  shape.line = line;
  return line;
}

/** The edge nearest to a point of the graph, if one is near; stronger ones are easier to hit. */
function edgeAt(side, x, y) {
  const reach = 7 / zoomed.k, lit = litBy(S.pick);
  const list = edgesInSight(side), { rough } = coarse(list.length);
  let best = null, nearest = reach;
  for (const [n, edge] of list.entries()) {
    const shape = shapeOf(edge), line = n < rough ? roughOf(shape) : lineOf(shape); // as it is drawn
    for (let i = 0; i + 3 < line.length; i += 2) {
      const y0 = line[i + 1], y1 = line[i + 3];
      if (Math.min(y0, y1) - reach > y || Math.max(y0, y1) + reach < y) continue;
      const away = distance(x, y, line[i], y0, line[i + 2], y1) - (lit && lit(edge) ? 2 : 0) - edge.share;
      if (away < nearest) [best, nearest] = [edge, away];
    }
  }
  return best;
}
function distance(x, y, x0, y0, x1, y1) {
  const dx = x1 - x0, dy = y1 - y0, t = ((x - x0) * dx + (y - y0) * dy) / (dx * dx + dy * dy || 1);
  const near = Math.max(0, Math.min(1, t));
  return Math.hypot(x - x0 - near * dx, y - y0 - near * dy);
}
