// How the mosaic looks and where it is looked at, as text: the query of a tile and the hash of the page. style.py reads the same.

export const numberText = (value, digits) => String(Number(Number(value).toFixed(digits)));

/** The looks of all channels as a slide has them at first. */
export const firstLooks = (info) =>
  info.channels.map(({ color, limits, gamma }) => ({ color, low: limits[0], high: limits[1], gamma, visible: true }));

export const firstStyle = (info) => ({
  looks: firstLooks(info), overlap: "top", positions: "stage", z: 0, t: 0, format: "png",
});

function lookText({ color, low, high, gamma }) {
  return [color.replace("#", ""), numberText(low, 2), numberText(high, 2), numberText(gamma, 3)].join(",");
}

function placeTexts(style) {
  const parts = [];
  if (style.overlap !== "top") parts.push(`overlap=${style.overlap}`);
  if (style.positions !== "stage") parts.push(`positions=${encodeURIComponent(style.positions)}`);
  if (style.z) parts.push(`z=${style.z}`);
  if (style.t) parts.push(`t=${style.t}`);
  return parts;
}

/** The query of the tiles of a style: shown channels alone, since the others change no pixel. */
export function queryText(style) {
  const shown = style.looks.flatMap((look, number) => (look.visible ? [`c=${number},${lookText(look)}`] : []));
  return [...(shown.length ? shown : ["c=none"]), ...placeTexts(style)].join("&");
}

/** The page's hash: the view, every channel that looks not as at first (all of them where that may change), and the hidden ones. */
export function hashText(view, style, info) {
  const first = firstLooks(info);
  const parts = [`x=${numberText(view.x, 4)}`, `y=${numberText(view.y, 4)}`, `scale=${Number(view.scale.toPrecision(9))}`];
  style.looks.forEach((look, number) => {
    const text = lookText(look);
    if (info.growing || text !== lookText(first[number])) parts.push(`c=${number},${text}`);
  });
  const hidden = rangesText(style.looks.flatMap((look, number) => (look.visible ? [] : [number])));
  if (hidden) parts.push(`off=${hidden}`);
  if (style.format !== "png") parts.push(`format=${style.format}`);
  return "#" + [...parts, ...placeTexts(style)].join("&");
}

/** {view, style} of a hash; what it does not tell, or what the slide has not, is as at first (view: null). */
export function fromHash(hash, info) {
  const told = new URLSearchParams(hash.replace(/^#/, ""));
  const style = firstStyle(info);
  const number = (name) => (told.has(name) && told.get(name) !== "" ? Number(told.get(name)) : NaN);
  for (const text of told.getAll("c")) {
    const [channel, color, low, high, gamma] = text.split(",");
    const look = /^\d+$/.test(channel) ? style.looks[Number(channel)] : undefined;
    if (!look) continue;
    if (/^[0-9a-f]{6}$/i.test(color ?? "")) look.color = `#${color.toLowerCase()}`;
    if (isLimit(low) && isLimit(high)) [look.low, look.high] = [Number(low), Number(high)];
    if (gamma && Number(gamma) >= 0.01 && Number(gamma) <= 100) look.gamma = Number(gamma);
  }
  for (const range of (told.get("off") ?? "").split(",").filter((text) => /^\d+(-\d+)?$/.test(text))) {
    const [from, to = from] = range.split("-").map(Number);
    style.looks.slice(from, to + 1).forEach((look) => { look.visible = false; });
  }
  if (info.overlap_modes.includes(told.get("overlap"))) style.overlap = told.get("overlap");
  if (info.position_sets.some((set) => set.name === told.get("positions"))) style.positions = told.get("positions");
  for (const [axis, size] of [["z", info.size_z], ["t", info.size_t]]) {
    if (Number.isInteger(number(axis)) && number(axis) >= 0 && number(axis) < size) style[axis] = number(axis);
  }
  if (told.get("format") === "jpeg") style.format = "jpeg";
  const view = { x: number("x"), y: number("y"), scale: number("scale") };
  const sound = Number.isFinite(view.x) && Number.isFinite(view.y) && view.scale > 0 && Number.isFinite(view.scale);
  return { view: sound ? view : null, style };
}

/** Ascending whole numbers, neighbours drawn together: "0,3-59". */
function rangesText(numbers) {
  const ranges = [];
  for (const number of numbers) {
    const last = ranges.at(-1);
    if (last && last[1] === number - 1) last[1] = number;
    else ranges.push([number, number]);
  }
  return ranges.map(([from, to]) => (from === to ? `${from}` : `${from}-${to}`)).join(",");
}

export const LOWEST_LIMIT = -65536;
export const HIGHEST_LIMIT = 131071;

export const isLimit = (text) =>
  text !== undefined && text !== "" && Number(text) >= LOWEST_LIMIT && Number(text) <= HIGHEST_LIMIT;
