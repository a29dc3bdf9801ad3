// The page of one slide: brings together the mosaic, the channel table, the minimap, the scale bar, the keys and the address.

import { ChannelTable, strongerLimits } from "./channels.js";
import { Minimap } from "./minimap.js";
import { Mosaic, messageOf } from "./mosaic.js";
import { scaleBar } from "./scalebar.js";
import { firstLooks, firstStyle, fromHash, hashText, queryText } from "./style.js";

const FOLLOW_MS = 3000; // how often a growing slide is asked for news
const REMEMBER_MS = 250;
const STATUS_MS = 8000;
const ZOOM_STEP = 2;
const LONGEST_BAR_PX = 160;

const base = location.pathname.replace(/\/+$/, "");
const by = (id) => document.getElementById(id);
const phone = window.matchMedia("(max-width: 720px)");

let info, style, mosaic, table, minimap;
let cameBack = false;

function tell(message) {
  const line = by("status");
  line.textContent = message;
  line.hidden = !message;
  clearTimeout(tell.timer);
  if (message) tell.timer = setTimeout(() => { line.hidden = true; }, STATUS_MS);
}

async function loadInfo() {
  let answer;
  try {
    answer = await fetch(`${base}/info.json`, { cache: "no-cache" });
  } catch {
    throw new Error("The server does not answer.");
  }
  if (!answer.ok) throw new Error(await messageOf(answer));
  return answer.json();
}

// style

function tileUrl({ level, column, row, query, format, version }) {
  return `${base}/mosaic_files/${level}/${column}_${row}.${format}?v=${version}&${query}`;
}

/** Show the style as it is now, everywhere. */
function applyStyle() {
  const query = queryText(style);
  const wanted = { query, positions: style.positions, format: style.format, version: info.version };
  mosaic.show(wanted);
  const set = info.position_sets.find(({ name }) => name === style.positions);
  const [left, top] = set.bounds_um;
  const [width, height] = set.size_px.map((side) => side * info.pixel_size_um);
  const level = Math.max(0, set.levels - 1 - Math.max(0, Math.ceil(Math.log2(Math.max(...set.size_px) / info.tile_px))));
  minimap.show(tileUrl({ level, column: 0, row: 0, ...wanted }), { left, top, width, height });
  by("overlap").value = style.overlap;
  by("positions").value = style.positions;
  by("format").value = style.format;
  for (const [axis, size] of [["z", info.size_z], ["t", info.size_t]]) {
    by(axis).value = style[axis];
    by(`${axis}-text`).textContent = `${style[axis] + 1} of ${size}`;
  }
  remember();
}

function looksChanged() {
  table.set(style.looks);
  applyStyle();
}

function change(part) {
  Object.assign(style, part);
  applyStyle();
}

function step(axis, by) {
  const last = (axis === "z" ? info.size_z : info.size_t) - 1;
  change({ [axis]: Math.min(Math.max(style[axis] + by, 0), last) });
}

function cycle(part, choices) {
  change({ [part]: choices[(choices.indexOf(style[part]) + 1) % choices.length] });
}

function toggle(number) {
  style.looks[number].visible = !style.looks[number].visible;
  looksChanged();
}

function solo(number) {
  const alone = style.looks.every((look, other) => look.visible === (other === number));
  style.looks.forEach((look, other) => { look.visible = alone || other === number; });
  looksChanged();
}

function showAll(visible) {
  style.looks.forEach((look) => { look.visible = visible; });
  looksChanged();
}

function autoAll() {
  style.looks.forEach((look, number) => Object.assign(look, strongerLimits(info.channels[number].auto, look)));
  looksChanged();
}

function resetLooks() {
  style.looks = firstLooks(info);
  looksChanged();
}

// view

const bounds = () => info.position_sets.find(({ name }) => name === style.positions).bounds_um;

function fit(immediately = false) {
  mosaic.fit(bounds(), immediately);
}

/** Scale at which the whole mosaic is shown. */
function fitScale() {
  const [left, top, right, bottom] = bounds();
  const size = mosaic.osd.viewport.getContainerSize().times(window.devicePixelRatio * info.pixel_size_um);
  return Math.min(size.x / (right - left), size.y / (bottom - top));
}

function moved() {
  const view = mosaic.view(true);
  by("zoom-text").textContent = zoomText(view.scale);
  const bar = scaleBar(mosaic.pxPerUm, LONGEST_BAR_PX);
  by("scale-text").textContent = bar.text;
  by("scale-line").style.width = `${bar.widthPx}px`;
  by("scale-bar").setAttribute("aria-label", `Scale bar of ${bar.text}`);
  minimap.look(mosaic.region());
  remember();
}

function zoomText(scale) {
  const near = (value) => Math.abs(value - Math.round(value)) < 1e-4;
  if (scale >= 1 && near(scale)) return `${Math.round(scale)}:1`;
  return scale < 1 && near(1 / scale) ? `1:${Math.round(1 / scale)}` : `${Number((scale * 100).toPrecision(3))} %`;
}

/** Keep view and style in the address, a moment after the last change. One slide stays one entry of the browser's history. */
function remember() {
  clearTimeout(remember.timer);
  remember.timer = setTimeout(() => history.replaceState(null, "", hashText(mosaic.view(), style, info)), REMEMBER_MS);
}

/** Show what the address tells. */
function restore(immediately) {
  const told = fromHash(location.hash, info);
  style = told.style;
  table.set(style.looks);
  applyStyle();
  if (told.view) mosaic.lookAt(told.view, immediately);
  else fit(immediately);
}

// a slide that grows

async function follow() {
  try {
    const news = await loadInfo();
    if (cameBack) tell("");
    cameBack = false;
    if (news.version !== info.version) takeIn(news);
  } catch (error) {
    cameBack = true;
    tell(error.message);
  }
  if (info.growing || cameBack) setTimeout(follow, FOLLOW_MS);
}

function takeIn(news) {
  const before = firstLooks(info);
  const first = firstLooks(news);
  style.looks = first.map((look, number) => {
    const mine = style.looks[number];
    const untouched = mine && mine.low === before[number].low && mine.high === before[number].high;
    return mine ? { ...mine, ...(untouched ? { low: look.low, high: look.high } : {}) } : look;
  });
  Object.assign(info, news);
  table.update(info.channels);
  table.set(style.looks);
  tellFacts();
  mosaic.setLimits(fitScale());
  applyStyle();
}

// the page

function tellFacts() {
  document.title = info.name;
  by("title").textContent = info.name;
  const [width, height] = info.position_sets[0].size_px.map((side) => (side * info.pixel_size_um) / 1000);
  by("facts").textContent = [
    info.title && info.title !== info.name ? info.title : "",
    info.acquired_at.replace("T", " ").slice(0, 16),
    info.objective,
    `${info.n_fields} field${info.n_fields === 1 ? "" : "s"}`,
    `${Number(width.toPrecision(3))} × ${Number(height.toPrecision(3))} mm`,
    info.growing ? "growing" : "",
  ].filter(Boolean).join(" · ");
  by("facts").title = by("facts").textContent;
}

function options(select, choices) {
  select.replaceChildren(...choices.map(([value, text]) => Object.assign(document.createElement("option"), { value, textContent: text })));
}

function showPanel(shown) {
  document.body.classList.toggle("no-panel", !shown);
  by("show-panel").setAttribute("aria-expanded", String(shown));
}

const isPanelShown = () => !document.body.classList.contains("no-panel");

function wire() {
  for (const [id, action] of Object.entries({
    "zoom-in": () => mosaic.zoomBy(ZOOM_STEP),
    "zoom-out": () => mosaic.zoomBy(1 / ZOOM_STEP),
    "fit": () => fit(),
    "one-to-one": () => mosaic.lookAt({ ...mosaic.view(), scale: 1 }),
    "keys": () => by("key-list").showModal(),
    "show-panel": () => showPanel(!isPanelShown()),
    "show-all": () => showAll(true),
    "show-none": () => showAll(false),
    "auto-all": autoAll,
    "reset-all": resetLooks,
  })) by(id).addEventListener("click", action);
  options(by("overlap"), info.overlap_modes.map((mode) => [mode, mode]));
  options(by("positions"), info.position_sets.map(({ name }) => [name, name]));
  options(by("scene"), [["", "go to…"], ...info.scenes.map(({ name }, number) => [number, name])]);
  by("positions-row").hidden = info.position_sets.length < 2;
  by("scene-row").hidden = !info.scenes.length;
  for (const part of ["overlap", "positions", "format"]) by(part).addEventListener("change", () => change({ [part]: by(part).value }));
  by("scene").addEventListener("change", () => {
    if (by("scene").value) mosaic.fit(info.scenes[Number(by("scene").value)].bounds_um);
    by("scene").value = "";
  });
  for (const [axis, size] of [["z", info.size_z], ["t", info.size_t]]) {
    by(axis).max = size - 1;
    by(`${axis}-row`).hidden = size < 2;
    by(axis).addEventListener("input", () => change({ [axis]: by(axis).valueAsNumber }));
  }
  by("view").addEventListener("pointermove", (event) => {
    const { x, y } = mosaic.placeAt(event.clientX, event.clientY);
    by("place").textContent = `${x.toFixed(1)}, ${y.toFixed(1)} µm`;
  });
  by("view").addEventListener("pointerleave", () => { by("place").textContent = ""; });
  window.addEventListener("hashchange", () => restore(false));
  document.addEventListener("keydown", (event) => { if (onKey(event)) event.preventDefault(); });
}

/** Whether a key meant something. Keys are those of the window. */
function onKey(event) {
  const typing = event.target.closest?.("input:not([type=checkbox]):not([type=color]), select, textarea, dialog[open]");
  if (typing || event.ctrlKey || event.metaKey || event.altKey) return false;
  const digit = /^Digit([1-9])$/.exec(event.code);
  if (digit && Number(digit[1]) <= style.looks.length) {
    (event.shiftKey ? solo : toggle)(Number(digit[1]) - 1);
    return true;
  }
  const action = {
    "+": () => mosaic.zoomBy(ZOOM_STEP), "=": () => mosaic.zoomBy(ZOOM_STEP), "-": () => mosaic.zoomBy(1 / ZOOM_STEP),
    "0": () => fit(), "5": () => mosaic.lookAt({ ...mosaic.view(), scale: 1 }),
    ArrowLeft: () => mosaic.moveBy(-0.25, 0), ArrowRight: () => mosaic.moveBy(0.25, 0),
    ArrowUp: () => mosaic.moveBy(0, -0.25), ArrowDown: () => mosaic.moveBy(0, 0.25),
    c: autoAll, C: () => showPanel(!isPanelShown()), R: resetLooks,
    ",": () => step("z", -1), ".": () => step("z", 1), "[": () => step("t", -1), "]": () => step("t", 1),
    o: () => cycle("overlap", info.overlap_modes), p: () => cycle("positions", info.position_sets.map(({ name }) => name)),
    b: () => { by("scale-bar").hidden = !by("scale-bar").hidden; },
    m: () => { by("minimap").hidden = !by("minimap").hidden; },
    "?": () => by("key-list").showModal(),
  }[event.key];
  action?.();
  return Boolean(action);
}

async function start() {
  showPanel(!phone.matches);
  try {
    info = await loadInfo();
  } catch (error) {
    by("title").textContent = decodeURIComponent(base.split("/").at(-1));
    tell(error.message);
    clearTimeout(tell.timer); // there is nothing else to see
    return;
  }
  tellFacts();
  style = firstStyle(info);
  const isBusy = (busy) => { by("busy").hidden = !busy; document.body.dataset.settled = String(!busy); };
  mosaic = new Mosaic(by("view"), info, tileUrl, { moved, busy: () => isBusy(true), settled: () => isBusy(false), failed: tell });
  minimap = new Minimap(by("minimap"), (x, y) => mosaic.lookAt({ x, y }, true));
  table = new ChannelTable(by("channels"), by("filter"), info.channels, style.looks, applyStyle);
  wire();
  restore(true);
  mosaic.setLimits(fitScale());
  if (info.growing) setTimeout(follow, FOLLOW_MS);
}

start();
