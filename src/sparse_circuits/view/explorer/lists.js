// What the reader did: selecting, pinning, hiding, grouping; the lists of it; and search.

/** A note being written belongs to what was selected before; keys are for the graph again. */
function leaveNote() {
  const area = document.activeElement;
  if (area && area.tagName === 'TEXTAREA') area.blur();
}
/** Select something, or nothing; `look` also brings it into view and gives it the keyboard. */
function pick(what, look = false) {
  leaveNote();
  S.pick = what;
  hideTip();
  unfolded = false;
  if (look) {
    const thing = pickedThing(what);
    if (thing && !onScreen(thing)) bringIn(thing);
    if (thing) moveTo(thing);
    if (thing) focusOn(thing);
  }
  refresh();
  $('panel').scrollTop = 0;
}

/** Make something visible that the filters or the slider leave out. */
function bringIn(thing) {
  S.hidden.delete(keyOf(thing));
  if (S.onlyPins) S.onlyPins = false;
  const at = [thing.at, D.two ? thing.at2 : -1].filter((i) => i >= 0);
  if (thing.role !== 'group' && at.length && Math.min(...at) > S.step) S.step = Math.min(...at);
  changed();
}

/** Select an edge, and have it in sight: also one that is hidden, weak, or only in a larger circuit. */
function pickEdge(key) {
  S.hidden.delete(key);
  const edge = edgeByName.get(key);
  if (edge) {
    for (const node of [edge.u, edge.d]) if (!onScreen(shownAs(node))) bringIn(shownAs(node));
    const at = [edge.at, D.two ? edge.at2 : -1].filter((i) => i >= 0);
    if (at.length) S.step = Math.max(S.step, Math.min(...at));
    S.kinds[edge.kind] = true;
    changed();
    if (!sideWith(key)) S.faintest = 0;
    drawLegend();
  }
  pick({ edge: key });
  done();
}

/** Select a neuron or the like in its node, at a size at which it is there. */
function pickUnit(name) {
  const node = ownerOf.get(name), at = node.units.find((unit) => unit.name === name);
  const first = [at.at, D.two ? at.at2 : -1].filter((i) => i >= 0);
  if (first.length) S.step = Math.max(S.step, Math.min(...first));
  changed();
  pick({ node: node.name, unit: name }, true);
  keep();
}

function togglePin(key) {
  if (!S.pins.delete(key)) S.pins.add(key);
  say(`${S.pins.has(key) ? 'Pinned' : 'Unpinned'} ${nameOf(key)}`);
  done();
}
function hide(key) {
  S.hidden.add(key);
  S.chosen.delete(key);
  const at = S.pick && (S.pick.edge ?? (pickedThing(S.pick) && keyOf(pickedThing(S.pick))));
  if (at === key) S.pick = null;
  say(`Hid ${nameOf(key)}`);
  done();
}
function unhide(key) {
  S.hidden.delete(key);
  done();
}
function choose(thing) {
  if (isEnd(thing) || thing.role === 'group') return say('Input, logits and groups cannot be put into a group.');
  leaveNote();
  const key = keyOf(thing);
  if (!S.chosen.delete(key)) S.chosen.add(key);
  say(`${plural(S.chosen.size, 'node')} chosen; press g to group`);
  refresh();
}

// --- groups ---

/** Ask for a name, in the page itself: notebooks and frames may neither open dialogs of the browser's nor submit forms. */
function ask(title, value, then) {
  const field = el('input', { type: 'text', value, maxlength: 80, 'aria-label': title, id: 'answer' });
  const take = () => {
    const name = field.value.trim();
    dialog.close();
    if (name) then(name);
  };
  const dialog = el('dialog', { 'aria-label': title, class: 'ask' }, el('h3', {}, title), field,
    el('div', { class: 'actions' }, el('button', { onclick: take }, 'OK'), el('button', { onclick: () => dialog.close() }, 'Cancel')));
  field.addEventListener('keydown', (event) => {
    if (event.key !== 'Enter' || event.isComposing) return;
    event.preventDefault();
    take();
  });
  dialog.addEventListener('close', () => dialog.remove());
  document.body.append(dialog);
  dialog.showModal();
  field.select();
}

function askGroup() {
  const at = pickedThing(S.pick);
  if (!S.chosen.size && at && at.role !== 'group' && at.group) return openGroup(at.group, !at.group.open);
  if (!S.chosen.size && at && at.role === 'group') return openGroup(at.group, true);
  if (at && at.role !== 'group' && !isEnd(at) && S.chosen.size) S.chosen.add(keyOf(at));
  if (S.chosen.size < 2) return say('Choose two nodes or more first: Shift and click, or Space.');
  ask(`Name of the group of ${S.chosen.size}`, `group ${S.groups.length + 1}`, (name) => makeGroup(name, [...S.chosen]));
}
function makeGroup(name, members) {
  for (const group of S.groups) group.members = group.members.filter((member) => !members.includes(member));
  S.groups.filter((group) => !group.members.length).forEach(dropGroup);
  const group = { id: freshId(), name, members, open: false };
  S.groups.push(group);
  S.chosen.clear();
  groupsChanged();
  pick({ group: group.id });
  say(`Grouped ${plural(members.length, 'node')} as ${name}`);
  keep();
}
/** A number that no group has, nor a note on one that was taken apart. */
function freshId() {
  const noted = Object.keys(S.notes).flatMap((key) => key.split('->')).map((part) => Number(part.match(/^group (\d+)$/)?.[1] ?? 0));
  return Math.max(0, ...S.groups.map((one) => one.id), ...noted) + 1;
}
/** Take a group away, with what was pinned or hidden of it. */
function dropGroup(group) {
  S.groups = S.groups.filter((one) => one !== group);
  for (const names of [S.pins, S.hidden]) for (const key of names) if (key.split('->').includes(`group ${group.id}`)) names.delete(key);
}
function openGroup(group, open) {
  group.open = open;
  const first = group.members[0];
  groupsChanged();
  pick(open ? { node: first } : { group: group.id });
  done();
}
function renameGroup(group) {
  ask('New name', group.name, (name) => { group.name = name; groupsChanged(); done(); });
}
function ungroup(group) {
  dropGroup(group);
  S.pick = null;
  groupsChanged();
  done();
}
function groupsChanged() {
  regroup();
  remakeGroups();
}
/** After anything that is kept. */
function done() {
  changed();
  keep();
  refresh();
}
/** For the reader: of a group its name, of an edge those of its ends. */
const nameOf = (key) => key.split('->').map((part) => {
  const group = S.groups.find((one) => `group ${one.id}` === part);
  return group ? group.name : part;
}).join(' \u2192 ');

// --- lists ---

function drawLists() {
  const item = (key, text, action, undo, undoText) => el('li', {}, el('button', { class: 'plain', onclick: action }, clip(text, 44)),
    undo ? el('button', { class: 'small', onclick: undo, 'aria-label': `${undoText} ${text}` }, undoText) : null);
  const go = (key) => () => {
    const group = S.groups.find((one) => `group ${one.id}` === key);
    if (group) return pick(group.open ? { node: group.members[0] } : { group: group.id }, true);
    if (byName.has(key)) return pick({ node: key }, true);
    if (ownerOf.has(key)) return pickUnit(key);
    return key.includes('->') ? pickEdge(key) : pick(null);
  };
  const part = (title, items, more = null) => (items.length ? el('details', { open: true }, el('summary', {}, `${title} (${items.length})`), more, el('ul', {}, items)) : null);
  const only = el('label', { class: 'only' }, el('input', { type: 'checkbox', id: 'only', onchange: (e) => { S.onlyPins = e.target.checked; done(); } }), ' show only these (o)');
  only.firstChild.checked = S.onlyPins;
  const found = [
    part('Pinned', [...S.pins].map((key) => item(key, nameOf(key), go(key), () => togglePin(key), 'Unpin')), only),
    part('Groups', S.groups.map((g) => item(g.id, `${g.name}: ${plural(g.members.length, 'node')}`, go(`group ${g.id}`), () => openGroup(g, !g.open), g.open ? 'Close' : 'Open'))),
    part('Hidden', [...S.hidden].map((key) => item(key, nameOf(key), go(key), () => unhide(key), 'Show'))),
    part('Notes', Object.entries(S.notes).map(([key, text]) => item(key, `${nameOf(key)}: ${text.replaceAll('\n', ' ')}`, go(key), null, ''))),
  ].filter(Boolean);
  $('lists').replaceChildren(...found);
}

// --- search ---

/** What a node can be found by: name, role, meaning, tokens, notes. */
function haystack(thing) {
  return [...(thing.units ?? []), thing].map(wordsOf).join('\n');
}
function wordsOf(thing) {
  const meaning = toldOf(thing), tokens = [...list(meaning.promoted), ...list(meaning.suppressed)].map((one) => (Array.isArray(one) ? one[0] : one));
  const seenIn = list(meaning.contexts ?? meaning.top).flatMap((one) => list(one && one.tokens));
  return [thing.name, ROLES[thing.role], meaning.label, ...tokens, seenIn.join(''), S.notes[keyOf(thing)]].filter(Boolean).join('\n').toLowerCase();
}
let found = [], marked = 0, words = [];
function search(text) {
  words = text.trim().toLowerCase().split(/\s+/).filter(Boolean);
  const rank = (thing) => (thing.name.toLowerCase().startsWith(words[0]) ? 0 : thing.name.toLowerCase().includes(words[0]) ? 1 : 2);
  found = !words.length ? [] : [...nodes, ...boxes.values()].filter((thing) => words.every((word) => haystack(thing).includes(word)));
  found.sort((a, b) => rank(a) - rank(b) || Math.abs(b.s ?? 0) - Math.abs(a.s ?? 0));
  found = found.slice(0, 30);
  marked = 0;
  drawFound(words.length > 0);
}
function drawFound(open) {
  const box = $('found');
  box.hidden = !open;
  $('search').setAttribute('aria-expanded', String(open));
  $('search').setAttribute('aria-activedescendant', open && found.length ? `found-${marked}` : '');
  const option = (thing, i) => el('li', { id: `found-${i}`, role: 'option', 'aria-selected': String(i === marked), onpointerdown: (event) => { event.preventDefault(); takeFound(i); } },
    clip(describe(thing), 52), el('small', {}, shownAs(thing) !== thing ? ` (in ${clip(thing.group.name, 20)})` : onScreen(thing) ? '' : ' (out of sight)'));
  box.replaceChildren(...(found.length ? found.map(option) : [el('li', { class: 'none' }, 'Nothing found')]));
}
function takeFound(i) {
  const thing = found[i];
  if (!thing) return;
  $('search').value = '';
  drawFound(false);
  if (shownAs(thing) !== thing) openGroup(thing.group, true);
  const all = words.every((word) => wordsOf(thing).includes(word)) ? [] : thing.units ?? [], fits = (text) => words.every((word) => text.includes(word));
  const unit = all.find((one) => fits(one.name.toLowerCase())) ?? all.find((one) => fits(wordsOf(one)));
  if (unit) pickUnit(unit.name);
  else pick(pickOf(thing), true);
}
