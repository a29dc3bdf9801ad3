// The mosaic in OpenSeadragon: places in µm of the mosaic frame, scale in screen pixels per camera pixel, styles that change
// without flicker: a new style is loaded unseen over what is in view, and only then takes the place of the old one.

const OSD = window.OpenSeadragon;
const PATIENCE_MS = 1500; // after which an unfinished style gives way to a newer one, or is shown as far as it came
const CLOSEST = 64; // screen pixels per camera pixel

export class Mosaic {
  /**
   * `events`: moved() after each change of the view, settled() when all in view is drawn, busy(), failed(message).
   * `tileUrl(request)` gives the address of a tile: {level, column, row, query, format, version}.
   */
  constructor(element, info, tileUrl, events) {
    this.info = info;
    this.tileUrl = tileUrl;
    this.events = events;
    // one unit of OpenSeadragon's frame is the width of the mosaic as first seen; what comes later lies where it lies
    const [left, top, right] = info.position_sets[0].bounds_um;
    this.origin = { left, top, unit: Math.max(right - left, info.pixel_size_um) };
    this.current = this.pending = this.next = null;
    const calm = window.matchMedia("(prefers-reduced-motion: reduce)").matches;
    forgoInlineStyle();
    forgoNoise();
    this.osd = OSD({
      element,
      drawer: "canvas", // the same pixels in every browser
      preserveViewport: true,
      showNavigationControl: false,
      animationTime: calm ? 0 : 0.25,
      zoomPerScroll: 1.25,
      visibilityRatio: 0.1,
      minZoomLevel: 1e-9,
      maxZoomLevel: 1e12,
      imageLoaderLimit: 6,
      maxImageCacheCount: 400,
      timeout: 120000,
      tileRetryMax: 3,
      tileRetryDelay: 1500,
      gestureSettingsMouse: { clickToZoom: false, dblClickToZoom: true },
      gestureSettingsTouch: { clickToZoom: false },
      gestureSettingsPen: { clickToZoom: false },
    });
    this.osd.innerTracker.keyHandler = this.osd.innerTracker.keyDownHandler = null; // the page has its own keys
    this.osd.addHandler("update-viewport", () => this._moved());
    this.osd.addHandler("resize", () => requestAnimationFrame(() => this._moved()));
    this.osd.addHandler("animation", () => this._moved());
    this.smooth = true;
  }

  // the view

  get pxPerUnit() {
    return this.osd.viewport.getContainerSize().x * window.devicePixelRatio;
  }

  /** {x, y, scale}: centre in µm, screen pixels per camera pixel. */
  view(current = false) {
    const centre = this.osd.viewport.getCenter(current);
    const zoom = this.osd.viewport.getZoom(current);
    return {
      x: this.origin.left + centre.x * this.origin.unit,
      y: this.origin.top + centre.y * this.origin.unit,
      scale: (zoom * this.pxPerUnit * this.info.pixel_size_um) / this.origin.unit,
    };
  }

  /** Screen (CSS) pixels per µm now. */
  get pxPerUm() {
    return this.view(true).scale / this.info.pixel_size_um / window.devicePixelRatio;
  }

  /** {left, top, width, height} in µm of what is on the screen now. */
  region() {
    const bounds = this.osd.viewport.getBounds(true);
    const { left, top, unit } = this.origin;
    return { left: left + bounds.x * unit, top: top + bounds.y * unit, width: bounds.width * unit, height: bounds.height * unit };
  }

  lookAt({ x, y, scale }, immediately = false) {
    const { viewport } = this.osd;
    if (scale !== undefined) viewport.zoomTo((scale * this.origin.unit) / this.info.pixel_size_um / this.pxPerUnit, null, immediately);
    viewport.panTo(new OSD.Point((x - this.origin.left) / this.origin.unit, (y - this.origin.top) / this.origin.unit), immediately);
  }

  /** Show a region: [left, top, right, bottom] µm. */
  fit([left, top, right, bottom], immediately = false) {
    const { left: x, top: y, unit } = this.origin;
    this.osd.viewport.fitBounds(
      new OSD.Rect((left - x) / unit, (top - y) / unit, (right - left) / unit, (bottom - top) / unit), immediately);
  }

  zoomBy(factor) {
    this.osd.viewport.zoomBy(factor);
    this.osd.viewport.applyConstraints();
  }

  moveBy(widths, heights) {
    const bounds = this.osd.viewport.getBounds();
    this.osd.viewport.panBy(new OSD.Point(widths * bounds.width, heights * bounds.height));
    this.osd.viewport.applyConstraints();
  }

  /** The place under a position in the window (CSS pixels): {x, y} µm. */
  placeAt(clientX, clientY) {
    const box = this.osd.element.getBoundingClientRect();
    const point = this.osd.viewport.pointFromPixel(new OSD.Point(clientX - box.left, clientY - box.top), true);
    return { x: this.origin.left + point.x * this.origin.unit, y: this.origin.top + point.y * this.origin.unit };
  }

  // styles

  /** Show another style: `query` of the tiles, position set, file format, version of the content. */
  show(wanted) {
    this.next = wanted;
    this._advance();
  }

  _advance() {
    if (!this.next) return;
    if (this.pending) {
      if (performance.now() - this.pending.since < PATIENCE_MS) return;
      this._drop(this.pending);
    }
    const wanted = this.next;
    this.next = null;
    const layer = (this.pending = { source: this._source(wanted), since: performance.now(), item: null, dropped: false });
    const [left, top] = layer.source.set.bounds_um;
    this.events.busy();
    this.osd.addTiledImage({
      tileSource: layer.source,
      x: (left - this.origin.left) / this.origin.unit,
      y: (top - this.origin.top) / this.origin.unit,
      width: (layer.source.dimensions.x * this.info.pixel_size_um) / this.origin.unit,
      opacity: this.current ? 0 : 1,
      preload: true,
      success: ({ item }) => {
        layer.item = item;
        if (layer.dropped) return this._drop(layer);
        item.immediateRender = Boolean(this.current);
        item.addHandler("fully-loaded-change", ({ fullyLoaded }) => this._loaded(layer, fullyLoaded));
        setTimeout(() => { if (layer === this.pending) { this._reveal(layer); this._advance(); } }, PATIENCE_MS);
      },
      error: ({ message }) => this.events.failed(String(message)),
    });
  }

  _loaded(layer, fullyLoaded) {
    if (layer.dropped) return;
    if (!fullyLoaded) {
      this.events.busy();
      return;
    }
    if (layer === this.pending) {
      this._reveal(layer);
      const old = this.current;
      this.current = layer;
      this.pending = null;
      if (old) this._drop(old);
      layer.item.immediateRender = false;
      this._advance();
    }
    if (!this.pending) this.events.settled();
  }

  _reveal(layer) {
    if (layer.item && layer.item.getOpacity() < 1) layer.item.setOpacity(1);
  }

  _drop(layer) {
    layer.dropped = true;
    layer.source.abortAll();
    if (layer === this.pending) this.pending = null;
    if (layer.item) {
      this.osd.world.removeItem(layer.item);
      layer.item = null;
    }
  }

  _source({ query, positions, format, version }) {
    const { info, tileUrl, events } = this;
    const set = info.position_sets.find(({ name }) => name === positions);
    const [width, height] = set.size_px;
    const maxLevel = set.levels - 1;
    const tooFine = Math.ceil(Math.log2(Math.max(width, height) / info.tile_px)); // halvings until one tile holds the mosaic
    const source = new OSD.TileSource({
      width, height, tileSize: info.tile_px, tileOverlap: info.overlap_px, maxLevel, minLevel: Math.max(0, maxLevel - Math.max(0, tooFine)),
    });
    const underWay = new Set();
    return Object.assign(source, {
      set,
      getTileUrl: (level, column, row) => tileUrl({ level, column, row, query, format, version }),
      hasTransparency: () => false,
      abortAll: () => underWay.forEach((controller) => controller.abort()),
      async downloadTileStart(job) {
        const controller = (job.userData.controller = new AbortController());
        underWay.add(controller);
        try {
          const answer = await fetch(job.src, { signal: controller.signal });
          if (!answer.ok) throw new Error(await messageOf(answer));
          const incomplete = answer.headers.get("rawmosaic-incomplete");
          if (incomplete) events.failed(`Incomplete: ${incomplete}`);
          job.finish(await answer.blob(), null, "rasterBlob");
        } catch (error) {
          if (!controller.signal.aborted) events.failed(error instanceof TypeError ? "The server does not answer." : error.message);
          job.fail(error.message, null);
        } finally {
          underWay.delete(controller);
        }
      },
      downloadTileAbort: (job) => job.userData.controller?.abort(),
    });
  }

  _moved() {
    if (!this.current && !this.pending) return;
    const { scale } = this.view(true);
    const smooth = scale < 1 - 1e-6; // magnified pixels stay pixels
    if (smooth !== this.smooth) {
      this.smooth = smooth;
      this.osd.drawer.setImageSmoothingEnabled(smooth);
    }
    this.events.moved();
  }

  /** Keep the scale between half of what shows everything and CLOSEST. */
  setLimits(fitScale) {
    const perScale = this.origin.unit / this.info.pixel_size_um / this.pxPerUnit;
    this.osd.viewport.minZoomLevel = Math.min(0.5 * fitScale, 1) * perScale;
    this.osd.viewport.maxZoomLevel = Math.max(CLOSEST, fitScale) * perScale;
  }
}

/** OpenSeadragon adds a style element unless there is one; the page's policy allows none, and page.css says the same. */
function forgoInlineStyle() {
  const style = document.createElementNS("urn:none", "style"); // found by its name, and styles nothing
  style.setAttribute("data-openseadragon-mobile-css", "true");
  document.head.append(style);
}

/** OpenSeadragon reports each tile that was given up; the page itself tells people what failed, and giving up is no failure. */
function forgoNoise() {
  const { console } = OSD;
  const silent = /^(Tile %s failed to load|Ignoring tile)/;
  const told = (tell) => (text, ...more) => { if (!silent.test(text)) tell.call(console, text, ...more); };
  OSD.console = Object.assign(Object.create(console), { error: told(console.error), warn: told(console.warn) });
}

/** What an answer that is no success says. */
export async function messageOf(answer) {
  try {
    return (await answer.json()).message;
  } catch {
    return `the server answered ${answer.status}`;
  }
}
