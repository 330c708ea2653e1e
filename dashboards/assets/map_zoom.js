// One enlarged map of the focused cell, with a mark that keys and mouse move over its pixels.
window.gradscope = window.gradscope || {};

(function (gradscope) {
  const REST = 120; // milliseconds without a move until numbers are fetched
  const KEYS = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };

  gradscope.MapZoom = class {
    // `step(by)` moves the cursor along t.
    constructor(maps, values, step) {
      this.maps = maps;
      this.values = values;
      this.dialog = maps.root.querySelector("#zoom");
      this.pixel = { x: 0.5, y: 0.5 }; // the marked place, as shares of the map
      maps.root.addEventListener("click", (event) => {
        const button = event.target.closest("[data-zoom]");
        if (button) this.open(button.dataset.zoom);
      });
      if (!this.dialog) return;
      this.map = this.dialog.querySelector(".map");
      this.mark = this.dialog.querySelector(".pixel-mark");
      this.output = this.dialog.querySelector("#zoom-value");
      this.dialog.onclick = (event) => {
        if (event.target === this.dialog || event.target.id === "zoom-close") this.dialog.close();
      };
      this.dialog.onclose = () => gradscope.update({ zoom: "" }, true);
      this.dialog.onkeydown = (event) => {
        if (event.key in KEYS) this.moveBy(...KEYS[event.key]);
        else if (event.key === "PageUp" || event.key === "PageDown") step(event.key === "PageUp" ? -1 : 1);
        else return;
        event.preventDefault();
      };
      this.map.onpointermove = (event) => {
        const box = this.map.getBoundingClientRect();
        this.moveTo((event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height);
      };
      maps.shown = () => this.refresh();
    }

    // Enlarge a tensor of the focused cell; by default the one that was enlarged last.
    open(tensor) {
      if (!this.dialog || this.dialog.open) return;
      if (tensor) this.map.dataset.tensor = tensor;
      this.maps.column(this.map, this.map.dataset.tensor);
      this.dialog.showModal();
      this.map.focus();
      this.maps.describeLarge(this.map);
      this.refresh();
      gradscope.update({ zoom: this.map.dataset.tensor }, true);
    }

    moveBy(rows, columns) {
      const { height, width } = this.size();
      this.moveTo(this.pixel.x + columns / width, this.pixel.y + rows / height);
    }

    // Mark the pixel at a place, from 0 to 1 along both sides.
    moveTo(x, y) {
      const { height, width } = this.size();
      const middle = (share, count) => (Math.min(Math.max(Math.floor(share * count), 0), count - 1) + 0.5) / count;
      this.pixel = { x: middle(x, width), y: middle(y, height) };
      this.refresh();
    }

    // Pixels of the tile.
    size() {
      const { frame, run } = this.maps;
      if (!frame) return { height: 1, width: 1 };
      const { naturalHeight, naturalWidth } = frame.image;
      return { height: naturalHeight / frame.cells.length, width: naturalWidth / run.tensors.length };
    }

    // The map or the mark moved: show the number there, once it is known.
    refresh() {
      if (!this.dialog.open) return;
      const { height, width } = this.size();
      this.mark.style.left = `${100 * (this.pixel.x - 0.5 / width)}%`;
      this.mark.style.top = `${100 * (this.pixel.y - 0.5 / height)}%`;
      this.mark.style.width = `${100 / width}%`;
      this.mark.style.height = `${100 / height}%`;
      this.mark.hidden = !this.values.hasPixels;
      const { frame, run, title } = this.maps;
      const { label, diverging } = run.tensors.find(({ name }) => name === this.map.dataset.tensor);
      const when = frame ? `, t = ${run.timesteps[frame.step]}` : "";
      this.dialog.querySelector("#zoom-name").textContent = `${label} of ${title.textContent}${when}`;
      this.map.closest("figure").dataset.diverging = diverging;
      this.showValue();
    }

    async showValue() {
      if (!this.values.hasPixels) return;
      const show = (tensor) => {
        const at = tensor && this.values.pixel(tensor, this.pixel.x, this.pixel.y);
        this.output.textContent = at ? this.values.describe(tensor, at) : "";
      };
      show(this.values.known(this.map));
      clearTimeout(this.waiting);
      if (this.values.known(this.map)) return;
      this.waiting = setTimeout(async () => {
        if (await this.values.fetch(this.map)) show(this.values.known(this.map));
      }, REST);
    }
  };
})(window.gradscope);
