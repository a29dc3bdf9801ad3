// The table of channels: one row each, with details that open. It edits looks and tells `changed`; it knows no slide and no server.

import { HIGHEST_LIMIT, LOWEST_LIMIT, isLimit } from "./style.js";

const OPEN_UP_TO = 6; // so many channels show their details at once
const FILTER_FROM = 13;

export class ChannelTable {
  constructor(list, filter, facts, looks, changed) {
    this.rows = facts.map((channel, number) => new ChannelRow(channel, number, looks[number], changed));
    list.replaceChildren(...this.rows.map((row) => row.element));
    if (facts.length <= OPEN_UP_TO) this.rows.forEach((row) => row.open(true));
    filter.hidden = facts.length < FILTER_FROM;
    filter.addEventListener("input", () => {
      const text = filter.value.trim().toLowerCase();
      this.rows.forEach((row) => { row.element.hidden = !row.name.toLowerCase().includes(text); });
    });
  }

  /** Show these looks. */
  set(looks) {
    this.rows.forEach((row, number) => row.set(looks[number]));
  }

  /** Other histograms and automatic limits, of a slide that grew. */
  update(facts) {
    this.rows.forEach((row, number) => row.update(facts[number]));
  }
}

class ChannelRow {
  constructor(facts, number, look, changed) {
    this.facts = facts;
    this.name = facts.name;
    this.look = look;
    this.changed = changed;
    this.element = make("li", { className: "channel" });
    this.visible = make("input", { type: "checkbox", title: "Show" }, `Show ${facts.name}`);
    this.color = make("input", { type: "color", title: "Colour" }, `Colour of ${facts.name}`);
    this.title = make("button", { type: "button", className: "name", textContent: facts.name, title: describe(facts, number) });
    this.auto = make("button", { type: "button", className: "auto", textContent: "Auto", title: "Contrast from the histogram; again: stronger" },
      `Automatic contrast of ${facts.name}`);
    const row = make("div", { className: "row" });
    row.append(this.visible, this.color, this.title, this.auto);
    this.element.append(row);
    this.detail = null;
    this.visible.addEventListener("change", () => this._edit({ visible: this.visible.checked }));
    this.color.addEventListener("input", () => this._edit({ color: this.color.value }));
    this.title.addEventListener("click", () => this.open(!this.isOpen));
    this.auto.addEventListener("click", () => this._edit(strongerLimits(this.facts.auto, this.look)));
    this.title.setAttribute("aria-expanded", "false");
    this.set(look);
  }

  get isOpen() {
    return this.element.classList.contains("open");
  }

  open(open) {
    if (open && !this.detail) this._makeDetail(); // sixty channels cost nothing until they are looked at
    this.element.classList.toggle("open", open);
    this.title.setAttribute("aria-expanded", String(open));
    if (this.detail) this.detail.hidden = !open;
    if (open) this._draw();
  }

  set(look) {
    this.look = look;
    this.visible.checked = look.visible;
    this.color.value = look.color;
    this.element.classList.toggle("shown", look.visible);
    this.element.style.setProperty("--channel", look.color);
    if (!this.detail) return;
    this._setRange();
    for (const [input, value] of [[this.lowNumber, look.low], [this.highNumber, look.high], [this.gamma, look.gamma]]) {
      if (document.activeElement !== input) input.value = value;
    }
    if (this.isOpen) this._draw();
  }

  update(facts) {
    this.facts = facts;
    this.set(this.look);
  }

  _edit(change) {
    Object.assign(this.look, change);
    this.set(this.look);
    this.changed();
  }

  _makeDetail() {
    const { name } = this.facts;
    this.canvas = make("canvas");
    this.canvas.setAttribute("aria-hidden", "true");
    const range = (what) => make("input", { type: "range", step: "any" }, `${what} contrast limit of ${name}`);
    const number = (what) => make("input", { type: "number", step: "any" }, `${what} of ${name}`);
    [this.lowRange, this.highRange] = [range("Lower"), range("Upper")];
    [this.lowNumber, this.highNumber, this.gamma] = [number("Lower limit"), number("Upper limit"), number("Gamma")];
    Object.assign(this.gamma, { min: 0.01, max: 100, step: 0.1 });
    const contrast = make("div", { className: "contrast" });
    contrast.append(this.canvas, this.lowRange, this.highRange);
    const numbers = make("div", { className: "numbers" });
    for (const [text, input] of [["from", this.lowNumber], ["to", this.highNumber], ["gamma", this.gamma]]) {
      const label = make("label", { textContent: text });
      label.append(input);
      numbers.append(label);
    }
    this.detail = make("div", { className: "detail" });
    this.detail.append(contrast, numbers);
    this.element.append(this.detail);
    const whole = (value) => (this.domain[1] - this.domain[0] > 50 ? Math.round(value) : Number(value.toFixed(2)));
    this.lowRange.addEventListener("input", () => this._edit({ low: Math.min(whole(this.lowRange.valueAsNumber), this.look.high - 1) }));
    this.highRange.addEventListener("input", () => this._edit({ high: Math.max(whole(this.highRange.valueAsNumber), this.look.low + 1) }));
    this.lowNumber.addEventListener("change", () => this._typed("low", this.lowNumber, isLimit));
    this.highNumber.addEventListener("change", () => this._typed("high", this.highNumber, isLimit));
    this.gamma.addEventListener("change", () => this._typed("gamma", this.gamma, (text) => Number(text) >= 0.01 && Number(text) <= 100));
    new ResizeObserver(() => this._draw()).observe(this.canvas);
    this.set(this.look);
  }

  _typed(what, input, isSound) {
    if (isSound(input.value)) this._edit({ [what]: Number(input.value) });
    else input.value = this.look[what];
  }

  /** The handles' range: all grey levels that occur, and the limits wherever they are. */
  _setRange() {
    const { first, width, counts } = this.facts.histogram;
    const { low, high } = this.look;
    const inside = (value) => Math.min(Math.max(value, LOWEST_LIMIT), HIGHEST_LIMIT);
    this.domain = [inside(Math.min(first, low, high)), inside(Math.max(first + width * counts.length, low, high))];
    for (const [input, value] of [[this.lowRange, low], [this.highRange, high]]) {
      [input.min, input.max] = this.domain;
      input.value = value;
      input.setAttribute("aria-valuetext", String(value));
    }
    // where both handles lie at the right end, the lower one must be the one that can be taken
    this.lowRange.style.zIndex = low > (this.domain[0] + this.domain[1]) / 2 ? 2 : 1;
    this.highRange.style.zIndex = 1;
  }

  _draw() {
    const ratio = window.devicePixelRatio;
    const [w, h] = [Math.round(this.canvas.clientWidth * ratio), Math.round(this.canvas.clientHeight * ratio)];
    if (!w || !h) return;
    if (this.canvas.width !== w || this.canvas.height !== h) Object.assign(this.canvas, { width: w, height: h });
    const draw = this.canvas.getContext("2d");
    const { first, width, counts } = this.facts.histogram;
    const { low, high, gamma, color } = this.look;
    const [from, to] = this.domain;
    const x = (level) => Math.round(((level - from) / (to - from)) * w); // whole pixels: bars that touch show no gaps
    draw.clearRect(0, 0, w, h);
    const tallest = Math.log1p(counts.reduce((most, count) => Math.max(most, count), 1));
    counts.forEach((count, bin) => {
      if (!count) return;
      const level = first + bin * width;
      const inside = level + width > Math.min(low, high) && level < Math.max(low, high);
      const height = (Math.log1p(count) / tallest) * (h - 4 * ratio);
      draw.fillStyle = inside ? color : "#4a505c";
      draw.globalAlpha = inside ? 0.75 : 1;
      draw.fillRect(x(level), h - height, Math.max(x(level + width) - x(level), 1), height);
    });
    draw.globalAlpha = 1;
    draw.strokeStyle = "#ffffffd0";
    draw.lineWidth = ratio;
    draw.beginPath(); // how grey levels become brightness
    for (let pixel = 0; pixel <= w; pixel += 2) {
      const level = from + (pixel / w) * (to - from);
      const span = high - low || 1e-6;
      const light = Math.min(Math.max((level - low) / span, 0), 1) ** gamma;
      draw.lineTo(pixel, h - ratio - light * (h - 3 * ratio));
    }
    draw.stroke();
  }
}

/** The automatic limits; the next stronger ones if a channel has one of them already. */
export function strongerLimits(steps, look) {
  const at = steps.findIndex(([low, high]) => low === look.low && high === look.high);
  const [low, high] = steps[Math.min(at + 1, steps.length - 1)];
  return { low, high };
}

function describe(facts, number) {
  const parts = [`${number + 1}: ${facts.name}`];
  if (facts.excitation_nm) parts.push(`excitation ${facts.excitation_nm} nm`);
  if (facts.emission_nm) parts.push(`emission ${facts.emission_nm} nm`);
  if (facts.exposure_ms) parts.push(`exposure ${facts.exposure_ms} ms`);
  return parts.join(", ");
}

function make(tag, properties = {}, label = null) {
  const element = Object.assign(document.createElement(tag), properties);
  if (label) element.setAttribute("aria-label", label);
  return element;
}
