// The numbers under the mouse: whole tensors, fetched once where the mouse and the cursor rest.
window.gradscope = window.gradscope || {};

(function (gradscope) {
  const REST = 120; // milliseconds without a move until numbers are fetched
  const KEPT = 24; // tensors
  const CHANNELS_MAX = 8; // channels whose numbers are listed
  const TYPES = { "<f4": Float32Array, "<f8": Float64Array };

  gradscope.MapValues = class {
    constructor(run, maps) {
      this.run = run;
      this.maps = maps;
      this.kept = new Map(); // tensors by address, the least recently used first
      this.tip = maps.root.querySelector("#map-value");
      this.over = null; // the map under the mouse, and the position in it
      maps.root.onpointermove = (event) => this.point(event);
      maps.root.onpointerleave = () => this.leave();
    }

    close() {
      clearTimeout(this.waiting);
      this.closed = true;
    }

    // Whether tiles show pixels of a tensor; curves and planes do not.
    get hasPixels() {
      return ["image", "video"].includes(this.run.kind);
    }

    point(event) {
      const map = event.target.closest(".map");
      if (!map || !this.hasPixels || map.closest("dialog")) {
        this.leave();
        return;
      }
      this.over = { map, x: event.clientX, y: event.clientY };
      this.refresh();
    }

    leave() {
      clearTimeout(this.waiting);
      this.over = null;
      this.tip.hidden = true;
    }

    // The mouse or the cursor moved: show the number where it is known, else once both rest.
    refresh() {
      clearTimeout(this.waiting);
      if (!this.over) return;
      const { map, x, y } = this.over;
      const tensor = this.known(map);
      if (!tensor) {
        this.tip.hidden = true;
        this.waiting = setTimeout(() => this.fetch(map).then((found) => found && this.refresh()), REST);
        return;
      }
      const box = map.getBoundingClientRect();
      const at = this.pixel(tensor, (x - box.left) / box.width, (y - box.top) / box.height);
      this.tip.hidden = !at;
      if (!at) return;
      this.tip.textContent = this.describe(tensor, at);
      const room = document.documentElement.clientWidth - this.tip.offsetWidth - 8;
      this.tip.style.transform = `translate(${Math.min(x + 14, room)}px, ${y + 16}px)`;
    }

    // Row, column and frame at a place of a tile, from 0 to 1 along both sides; null between two frames.
    pixel({ shape }, x, y) {
      const [height, width] = shape.slice(-2);
      const inside = (share, count) => Math.min(Math.max(Math.floor(share * count), 0), count - 1);
      const row = inside(y, height);
      const { frames } = this.run;
      if (!frames.length) return { row, column: inside(x, width), frame: null };
      const across = inside(x, frames.length * (width + 1) - 1);
      const column = across % (width + 1);
      return column === width ? null : { row, column, frame: frames[Math.floor(across / (width + 1))] };
    }

    // The number that a pixel shows, and those of its channels.
    describe({ numbers, shape }, { row, column, frame }) {
      const [height, width] = shape.slice(-2);
      const plane = numbers.length / shape[0];
      const inside = ((frame ?? 0) * height + row) * width + column;
      const channels = Array.from({ length: shape[0] }, (_, channel) => numbers[channel * plane + inside]);
      const { channel } = this.maps.frame;
      const where = `${frame === null ? "" : `frame ${frame}, `}row ${row}, column ${column}`;
      if (channel !== "mean") return `${where}, channel ${channel}: ${exact(channels[channel])}`;
      if (channels.length === 1) return `${where}: ${exact(channels[0])}`;
      const mean = channels.reduce((sum, value) => sum + value, 0) / channels.length;
      const listed = channels.slice(0, CHANNELS_MAX).map((value, i) => `channel ${i}: ${exact(value)}`);
      return `${where}, mean: ${exact(mean)}, ${listed.join(", ")}`;
    }

    // The tensor of a map where it was fetched.
    known(map) {
      const url = this.url(map);
      return url ? this.kept.get(url) : null;
    }

    url(map) {
      const { frame } = this.maps;
      if (!frame) return null;
      const cell = Number(map.closest("[data-cell]").dataset.cell);
      const row = frame.cells.indexOf(cell);
      if (row < 0 || !frame.written[row]) return null;
      return `values/${this.run.key}/${frame.sample}/${frame.step}/${cell}/${map.dataset.tensor}?v=${this.run.version}`;
    }

    async fetch(map) {
      const url = this.url(map);
      if (!url || this.closed) return null;
      if (this.kept.has(url)) return this.kept.get(url);
      const response = await fetch(url);
      if (!response.ok) return null;
      const { shape, dtype } = JSON.parse(response.headers.get("Gradscope-Tensor"));
      const tensor = { shape, numbers: new TYPES[dtype](await response.arrayBuffer()) };
      this.kept.set(url, tensor);
      if (this.kept.size > KEPT) this.kept.delete(this.kept.keys().next().value);
      return tensor;
    }
  };

  // Enough digits for single precision.
  function exact(value) {
    if (!Number.isFinite(value)) return String(value);
    const size = Math.abs(value);
    const text = value !== 0 && (size < 1e-4 || size >= 1e5) ? value.toExponential(4) : value.toPrecision(5);
    return text.replace(/^-/, "−");
  }
})(window.gradscope);
