// The whole mosaic, small, with a frame around what is in view. A click or drag looks there.

const LONGEST_PX = window.matchMedia("(max-width: 720px)").matches ? 110 : 180;

export class Minimap {
  /** `lookAt(x, y)` is called with places of the mosaic frame, µm. */
  constructor(element, lookAt) {
    this.element = element;
    this.picture = element.querySelector("img");
    this.frame = element.querySelector("div");
    this.bounds = null;
    this.wanted = null;
    const goTo = (event) => {
      if (!this.bounds || !(event.buttons & 1)) return;
      const box = this.picture.getBoundingClientRect();
      const { left, top, width, height } = this.bounds;
      lookAt(left + ((event.clientX - box.left) / box.width) * width, top + ((event.clientY - box.top) / box.height) * height);
      event.preventDefault();
    };
    element.addEventListener("pointerdown", (event) => { element.setPointerCapture(event.pointerId); goTo(event); });
    element.addEventListener("pointermove", goTo);
  }

  /** Show another picture of the region `bounds` ({left, top, width, height} µm); the old one stays until the new one is there. */
  async show(url, bounds) {
    this.wanted = url;
    const next = new Image();
    next.src = url;
    try {
      await next.decode();
    } catch {
      return; // the mosaic's own tiles tell what is wrong
    }
    if (this.wanted !== url) return;
    const scale = LONGEST_PX / Math.max(bounds.width, bounds.height);
    this.picture.src = next.src;
    this.picture.width = Math.max(8, Math.round(bounds.width * scale));
    this.picture.height = Math.max(8, Math.round(bounds.height * scale));
    this.bounds = bounds;
    this.look(this.view);
  }

  /** Draw the frame around what is in view: {left, top, width, height} µm. */
  look(view) {
    this.view = view;
    if (!view || !this.bounds) return;
    const { left, top, width, height } = this.bounds;
    const [w, h] = [this.picture.width, this.picture.height];
    const inside = (value, low, high) => Math.min(Math.max(value, low), high);
    const x0 = inside(((view.left - left) / width) * w, -2, w - 3);
    const y0 = inside(((view.top - top) / height) * h, -2, h - 3);
    const x1 = inside(((view.left + view.width - left) / width) * w, 3, w + 2);
    const y1 = inside(((view.top + view.height - top) / height) * h, 3, h + 2);
    Object.assign(this.frame.style, { left: `${x0}px`, top: `${y0}px`, width: `${x1 - x0}px`, height: `${y1 - y0}px` });
  }
}
