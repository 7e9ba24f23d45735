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
const xAt = (step) => axis.left + EDGE + (lastStep ? step / lastStep : 1) * (axis.width - axis.left - axis.right - 2 * EDGE);
const points = () => (D.curve ? D.curve.points.filter((p) => p.value !== null && p.x >= D.steps[0] && stepAt(p.x) !== null) : []);

const measured = () => points().length > 0 || (D.evaluation && D.evaluation.value !== null);
function extent() {
  const values = points().flatMap((p) => [p.value, p.low ?? p.value, p.high ?? p.value]);
  if (D.evaluation && D.evaluation.value !== null) values.push(D.evaluation.value);
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
    parts.push(sv('text', { x, y, 'font-size': 11, fill: FAINT, 'text-anchor': anchor, 'dominant-baseline': 'middle' }, text));
  axis.height = measured() ? 56 : 2;
  const shown = points(), bottom = axis.top + axis.height;
  svg.style.height = measured() ? '' : '30px';
  if (measured()) {
    for (const value of [0, 0.5, 1]) {
      line(axis.left, yAt(value), axis.width - axis.right + 4, yAt(value), value === 0.5 ? '#EEF0F3' : '#CDD3DA');
      label(axis.left - 6, yAt(value), String(value), 'end');
    }
    label(axis.width - axis.right + 8, yAt(1), 'model', 'start');
    label(axis.width - axis.right + 8, yAt(0), 'none', 'start');
  }
  if (shown.length) {
    const xy = shown.map((p) => [xAt(stepAt(p.x)), p]);
    const upper = xy.map(([x, p]) => `${x},${yAt(p.high ?? p.value)}`), lower = xy.map(([x, p]) => `${x},${yAt(p.low ?? p.value)}`);
    parts.push(sv('path', { d: `M${[...upper, ...lower.reverse()].join('L')}Z`, fill: '#9AA5B1', opacity: 0.3 }));
    parts.push(sv('path', { d: `M${xy.map(([x, p]) => `${x},${yAt(p.value)}`).join('L')}`, fill: 'none', stroke: INK, 'stroke-width': 1.8 }));
    for (const [x, p] of xy) {
      const title = `${p.asked.toLocaleString('en')} asked for, ${p.size.toLocaleString('en')} in the circuit: ${brief(p.value)}${range(p)}`;
      const dot = sv('circle', { cx: x, cy: yAt(p.value), r: 4, fill: INK, class: 'point' }, sv('title', {}, title));
      dot.addEventListener('click', () => setStep(Math.round(stepAt(p.x))));
      parts.push(dot);
    }
  }
  if (D.evaluation && D.evaluation.value !== null) {
    const x = xAt(lastStep), y = yAt(D.evaluation.value);
    if (D.evaluation.low !== null) line(x, yAt(D.evaluation.low), x, yAt(D.evaluation.high), INK, { 'stroke-width': 1.5 });
    parts.push(sv('path', { d: `M${x},${y - 6}L${x + 6},${y}L${x},${y + 6}L${x - 6},${y}Z`, fill: '#FFFFFF', stroke: INK, 'stroke-width': 1.6 }));
  }
  let last = -100;
  for (const size of D.steps) {
    const x = xAt(stepAt(size)), end = size === D.steps[lastStep];
    if (!end && (!/^[1235]0*$/.test(String(size)) || x - last < 40 || xAt(lastStep) - x < 44)) continue;
    line(x, bottom, x, bottom + 4, '#9AA5B1');
    label(x, bottom + 12, size.toLocaleString('en'));
    last = x;
  }
  const here = sv('g', { id: 'here' }, sv('line', { y1: axis.top - 4, y2: bottom + 4, stroke: '#111827', 'stroke-width': 1.6 }));
  if (shown.length) here.append(sv('circle', { r: 6, fill: '#FFFFFF', stroke: '#111827', 'stroke-width': 2.4 }));
  svg.replaceChildren(...parts, here);
  drawHere();
}
const range = (p) => (p.low === null || p.low === undefined ? '' : ` [${brief(p.low, 2)}, ${brief(p.high, 2)}]`);

/** Faithfulness at the slider's place: measured, or between two that were. */
function faithfulnessHere() {
  const size = D.steps[S.step], all = points();
  if (S.step === lastStep && D.evaluation && !all.some((p) => p.x === size)) return { value: D.evaluation.value, point: D.evaluation };
  const at = all.find((p) => p.x === size);
  if (at) return { value: at.value, point: at };
  const after = all.findIndex((p) => p.x > size);
  if (after <= 0) return null;
  const one = all[after - 1], two = all[after];
  return { value: one.value + ((size - one.x) / (two.x - one.x)) * (two.value - one.value), between: [one, two] };
}

function drawHere() {
  const here = $('here'), found = faithfulnessHere();
  if (here) {
    here.setAttribute('transform', `translate(${xAt(S.step)},0)`);
    const dot = here.querySelector('circle');
    if (dot) {
      set(dot, 'display', found && found.value !== null ? null : 'none');
      if (found && found.value !== null) set(dot, 'cy', yAt(found.value));
    }
  }
  const asked = D.steps[S.step], parts = D.sizes.map((sizes, i) => {
    const own = sizes[S.step], name = D.two ? `${clip(D.labels[i], 30)}: ` : '';
    return `${name}${plural(own, D.thing)}${own === asked ? '' : ` of ${asked.toLocaleString('en')} asked for`}`;
  });
  const text = [parts.join(' \u00b7 ')];
  if (found && found.value !== null && found.value !== undefined) {
    const whose = D.two ? `${clip(D.labels[0], 30)}: ` : '';
    text.push(found.between
      ? `${whose}faithfulness about ${brief(found.value, 2)} (measured ${brief(found.between[0].value, 2)} at ${found.between[0].x} and ${brief(found.between[1].value, 2)} at ${found.between[1].x})`
      : `${whose}faithfulness ${brief(found.value, 2)}${range(found.point)}`);
  }
  const side = sideOf(S.mode), drawn = edgesInSight(side).length, all = countAll(side);
  if (drawn < all) text.push(`${drawn.toLocaleString('en')} strongest of ${plural(all, 'edge')} drawn`);
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
  refresh(true);
}
