// Notes, pins, groups and hidden parts: kept in the browser where it allows that, and as a file.

const FORMAT = 'sparse-circuits explorer state';
const embedded = JSON.stringify(D.state ?? null);
/** A page with another embedded state starts from that one. */
const slot = `sparse-circuits:${D.id}:${[...embedded].reduce((hash, c) => (Math.imul(hash, 31) + c.codePointAt(0)) | 0, 7)}`;

function stateNow() {
  return {
    format: FORMAT, version: 1, circuit: D.id, title: D.title, size: D.steps[S.step], view: S.mode, onlyPins: S.onlyPins,
    pins: [...S.pins], hidden: [...S.hidden], groups: S.groups, notes: S.notes,
  };
}

/** Take a saved state over, as far as this circuit has its parts; returns how many names it lacks. */
function takeState(state) {
  const texts = (value) => list(value).filter((one) => typeof one === 'string');
  const taken = new Set(); // ids of groups, and their members: each is in one
  const once = (key) => !taken.has(key) && Boolean(taken.add(key));
  let lost = 0;
  S.groups = list(state.groups).filter((group) => group && Number.isInteger(group.id) && once(group.id)).map((group) => {
    const members = texts(group.members).filter((name) => byName.has(name) && once(name));
    lost += list(group.members).length - members.length;
    const name = typeof group.name === 'string' && group.name.trim() ? group.name : `group ${group.id}`;
    return { id: group.id, name: name.slice(0, 80), members, open: Boolean(group.open) };
  }).filter((group) => group.members.length);
  const grouped = (key) => S.groups.some((group) => key.split('->').includes(`group ${group.id}`)); // a group, or an edge of one
  const there = (key) => byName.has(key) || ownerOf.has(key) || edgeByName.has(key) || grouped(key);
  const kept = (names) => new Set(texts(names).filter((key) => there(key) || ((lost += 1), false)));
  S.pins = kept(state.pins);
  S.hidden = kept(state.hidden);
  S.notes = {};
  for (const [key, text] of Object.entries(typeof state.notes === 'object' && state.notes ? state.notes : {})) {
    if (typeof text !== 'string') continue;
    S.notes[key] = text; // also of what is not in this circuit: notes are never thrown away
    if (!there(key) && key !== 'circuit') lost += 1;
  }
  if (Number.isFinite(state.size)) S.step = Math.max(0, D.steps.findLastIndex((size) => size <= state.size));
  S.mode = D.two && ['a', 'b', 'side', 'diff'].includes(state.view) ? state.view : S.mode;
  S.onlyPins = Boolean(state.onlyPins);
  groupsChanged();
  return lost;
}

let kept = 0;
/** Keep what was done, soon. Where the browser forbids it, saving to a file is left. */
function keep() {
  clearTimeout(kept);
  kept = setTimeout(keepNow, 150);
}
function keepNow() {
  clearTimeout(kept);
  kept = 0;
  try {
    localStorage.setItem(slot, JSON.stringify(stateNow()));
  } catch {
    // no storage here: a frame of another origin, or private browsing
  }
}
function recall() {
  let saved = null;
  try {
    saved = JSON.parse(localStorage.getItem(slot));
  } catch {
    saved = null;
  }
  const state = saved && saved.format === FORMAT ? saved : D.state;
  if (state) takeState(state);
}

/** The same page elsewhere, in another tab or cell, kept something: no page may write over what was noted on another. */
function takeOver(event) {
  if (event.key !== slot || !event.newValue) return;
  const { size, view, ...rest } = JSON.parse(event.newValue); // each shows what it likes
  takeState(rest);
  refresh();
}

function saveFile() {
  download(`${fileName()}-notes.json`, new Blob([JSON.stringify(stateNow(), null, 1)], { type: 'application/json' }));
  say('Saved notes, pins, groups and hidden parts');
}
async function loadFile(file) {
  let state = null;
  try {
    state = JSON.parse(await file.text());
  } catch {
    state = null;
  }
  if (!state || state.format !== FORMAT) return say(`${file.name} holds no saved notes of the explorer.`);
  const lost = takeState(state);
  S.pick = null;
  S.chosen.clear();
  setMode(S.mode);
  return say(lost ? `Loaded; ${plural(lost, 'name')} in it are not in this circuit` : 'Loaded notes, pins, groups and hidden parts');
}
