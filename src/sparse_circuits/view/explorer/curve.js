// The slider over circuit size, and above it, on the same scale, how faithful circuits of each size are.

const EDGE = 9; // half of the slider's handle, which keeps its middle so far from both ends
const axis = { left: 46, right: 46, width: 600, top: 8, height: 56 };
/** Where a size lies between the slider's steps. */
function stepAt(size) {
  const { steps } = D;
  if (size <= steps[0]) return 0;
  for (let i = 1; i < steps.length; i += 1) {
    if (size <= steps[i]) return i - 1 + (size - steps[i - 1]) / (steps[i] - steps[i - 1]);
  }
  return null; // beyond the slider
}
const xAt = (step) => axis.left + EDGE + (lastStep ? step / lastStep : 0) * (axis.width - axis.left - axis.right - 2 * EDGE);
/** Of one of the circuits, the points of its curve that are on the slider. */
const pointsOf = (i) => (D.curves[i] ? D.curves[i].points.filter((p) => p.value !== null && p.x >= D.steps[0] && stepAt(p.x) !== null) : []);
const evaluationOf = (i) => (D.evaluations[i] && D.evaluations[i].value !== null ? D.evaluations[i] : null);
const SIDES = D.sizes.map((_, i) => i);
/** Of a single circuit black; of two their own colours, the second dashed. */
const sideLook = (i) => (D.two ? { stroke: `var(--only-${i ? 'b' : 'a'})`, 'stroke-dasharray': i ? '6 3' : null } : { stroke: 'var(--ink)' });

const measured = () => SIDES.some((i) => pointsOf(i).length > 0 || evaluationOf(i));
function extent() {
  const known = [...SIDES.flatMap((i) => [...pointsOf(i), evaluationOf(i)]), D.random].filter((p) => p && p.value !== null);
  const values = known.flatMap((p) => [p.value, p.low ?? p.value, p.high ?? p.value]);
  return [Math.max(-0.6, Math.min(0, ...values)), Math.min(1.6, Math.max(1.02, ...values))];
}
const scale = { low: 0, high: 1 };
const yAt = (value) =>
  axis.top + axis.height * (1 - (Math.max(scale.low, Math.min(scale.high, value)) - scale.low) / (scale.high - scale.low));

function drawCurve() {
  const svg = $('curve');
  axis.width = svg.clientWidth || 600;
  [scale.low, scale.high] = extent();
  const parts = [], line = (x1, y1, x2, y2, stroke, more = {}) => parts.push(sv('line', { x1, y1, x2, y2, stroke, ...more }));
  const label = (x, y, text, anchor = 'middle') =>
    parts.push(sv('text', { x, y, 'font-size': 11, fill: 'var(--faint)', 'text-anchor': anchor, 'dominant-baseline': 'middle' }, text));
  axis.height = measured() ? 56 : 2;
  const bottom = axis.top + axis.height;
  svg.style.height = measured() ? '' : '30px';
  if (measured()) {
    for (const value of [0, 0.5, 1]) {
      line(axis.left, yAt(value), axis.width - axis.right + 4, yAt(value), value === 0.5 ? 'var(--raised)' : 'var(--line)');
      label(axis.left - 6, yAt(value), String(value), 'end');
    }
    label(axis.width - axis.right + 8, yAt(1), 'model', 'start');
    label(axis.width - axis.right + 8, yAt(0), 'none', 'start');
  }
  const marks = [];
  for (const i of SIDES) {
    const look = sideLook(i), xy = pointsOf(i).map((p) => [xAt(stepAt(p.x)), p]);
    if (xy.length) {
      const upper = xy.map(([x, p]) => `${x},${yAt(p.high ?? p.value)}`), lower = xy.map(([x, p]) => `${x},${yAt(p.low ?? p.value)}`);
      parts.push(sv('path', { d: `M${[...upper, ...lower.reverse()].join('L')}Z`, fill: D.two ? look.stroke : 'var(--quiet)', opacity: D.two ? 0.15 : 0.3 }));
      parts.push(sv('path', { class: 'line', d: `M${xy.map(([x, p]) => `${x},${yAt(p.value)}`).join('L')}`, fill: 'none', 'stroke-width': 1.8, ...look }));
    }
    for (const [x, p] of xy) {
      const title = `${whoseIs(i)}${p.asked.toLocaleString('en')} asked for, ${p.size.toLocaleString('en')} in the circuit: ${faith(p.value)}${range(p)}`;
      const dot = sv('circle', { cx: x, cy: yAt(p.value), r: 4, fill: look.stroke, class: 'point' }, sv('title', {}, title));
      dot.addEventListener('click', () => setStep(Math.round(stepAt(p.x))));
      marks.push(dot);
    }
    const known = evaluationOf(i), at = known && stepAt(known.x);
    if (known && at !== null) {
      const x = xAt(at), y = yAt(known.value), title = `${whoseIs(i)}this circuit, ${known.size.toLocaleString('en')}: ${faith(known.value)}${range(known)}`;
      if (known.low !== null) marks.push(sv('line', { x1: x, y1: yAt(known.low), x2: x, y2: yAt(known.high), stroke: look.stroke, 'stroke-width': 1.5 }));
      const diamond = sv('path', { d: `M${x},${y - 6}L${x + 6},${y}L${x},${y + 6}L${x - 6},${y}Z`, fill: 'var(--page)', stroke: look.stroke, 'stroke-width': 1.6, class: 'point' }, sv('title', {}, title));
      diamond.addEventListener('click', () => setStep(Math.round(at)));
      marks.push(diamond);
    }
    if (D.two && (xy.length || known)) {
      const x = axis.width - axis.right - 12, y = bottom - 9 - 13 * (D.sizes.length - 1 - i);
      label(x - 30, y, clip(D.labels[i], 28), 'end');
      line(x - 24, y, x, y, look.stroke, { 'stroke-width': 2, 'stroke-dasharray': look['stroke-dasharray'] ?? null });
    }
  }
  if (D.random && D.random.value !== null) {
    const at = stepAt((evaluationOf(0) ?? D.random).x ?? D.random.size);
    if (at !== null) {
      const x = xAt(at), y = yAt(D.random.value), title = `${randomText()}: ${faith(D.random.value)}${range(D.random)}`;
      line(x, yAt(D.random.low ?? D.random.value), x, yAt(D.random.high ?? D.random.value), 'var(--box)', { 'stroke-width': 1.5 });
      marks.push(sv('path', { d: `M${x - 4},${y - 4}l8,8M${x - 4},${y + 4}l8,-8`, stroke: 'var(--box)', 'stroke-width': 2, class: 'random' }, sv('title', {}, title)));
    }
  }
  parts.push(...marks);
  let last = -100;
  for (const size of D.steps) {
    const x = xAt(stepAt(size)), end = size === D.steps[lastStep];
    if (!end && (!/^[1235]0*$/.test(String(size)) || x - last < 40 || xAt(lastStep) - x < 44)) continue;
    line(x, bottom, x, bottom + 4, 'var(--quiet)');
    label(x, bottom + 12, size.toLocaleString('en'));
    last = x;
  }
  const here = sv('g', { id: 'here' }, sv('line', { y1: axis.top - 4, y2: bottom + 4, stroke: 'var(--ink)', 'stroke-width': 1.6 }));
  for (const i of SIDES) if (pointsOf(i).length) here.append(sv('circle', { r: 6, fill: 'var(--page)', stroke: sideLook(i).stroke, 'stroke-width': 2.4, 'data-side': i }));
  svg.replaceChildren(...parts, here);
  drawHere();
}
/** Faithfulness in two decimals, as everywhere; never a minus before nothing. */
const faith = (value) => (value === null || value === undefined ? 'undefined' : value.toFixed(2).replace('-', '\u2212').replace('\u22120.00', '0.00'));
const range = (p) => (p.low === null || p.low === undefined ? '' : ` [${faith(p.low)}, ${faith(p.high)}]`);
const whoseIs = (i) => (D.two ? `${clip(D.labels[i], 30)}: ` : '');
const randomText = () => `${D.random.draws} random circuits of ${plural(D.random.size, D.thing)}`;

/** Faithfulness of one of the circuits at the slider's place: measured, or between two sizes that were. */
function faithfulnessHere(i) {
  const size = D.steps[S.step], all = pointsOf(i), known = evaluationOf(i);
  const at = all.find((p) => p.x === size) ?? (known && known.size === D.sizes[i][S.step] ? known : null); // no larger than it is
  if (at) return { value: at.value, point: at };
  const after = all.findIndex((p) => p.x > size);
  if (after <= 0) return null;
  const one = all[after - 1], two = all[after];
  return { value: one.value + ((size - one.x) / (two.x - one.x)) * (two.value - one.value), between: [one, two] };
}

function drawHere() {
  const here = $('here'), asked = D.steps[S.step], found = SIDES.map(faithfulnessHere);
  if (here) {
    here.setAttribute('transform', `translate(${xAt(S.step)},0)`);
    for (const dot of here.querySelectorAll('circle')) {
      const one = found[Number(dot.dataset.side)];
      set(dot, 'display', one ? null : 'none');
      if (one) set(dot, 'cy', yAt(one.value));
    }
  }
  const text = [D.sizes.map((sizes, i) => `${whoseIs(i)}${plural(sizes[S.step], D.thing)}${sizes[S.step] === asked ? '' : ` of ${asked.toLocaleString('en')} asked for`}`).join(' \u00b7 ')];
  found.forEach((one, i) => {
    if (!one) return;
    text.push(one.between
      ? `${whoseIs(i)}faithfulness about ${faith(one.value)} (measured ${faith(one.between[0].value)} at ${one.between[0].x.toLocaleString('en')} and ${faith(one.between[1].value)} at ${one.between[1].x.toLocaleString('en')})`
      : `${whoseIs(i)}faithfulness ${faith(one.value)}${range(one.point)}`);
  });
  if (D.random && D.random.value !== null && evaluationOf(0)?.x === asked) text.push(`${whoseIs(0)}random ${faith(D.random.value)}`);
  sidesShown().forEach((side, i) => {
    const drawn = edgesInSight(side).length, all = countAll(side), of = S.mode === 'side' ? whoseIs(i) : '';
    if (drawn < all) text.push(`${of}${drawn.toLocaleString('en')} strongest of ${plural(all, 'edge')} drawn`);
  });
  $('readout').textContent = text.join(' \u00b7 ');
  const slider = $('size');
  slider.value = S.step;
  slider.setAttribute('aria-valuetext', text.slice(0, 2).join(', '));
  $('smaller').disabled = S.step === 0;
  $('larger').disabled = S.step === lastStep;
}

function setStep(step) {
  const to = Math.max(0, Math.min(lastStep, step));
  if (to === S.step) return;
  S.step = to;
  changed();
  keep();
  refresh(true);
}
