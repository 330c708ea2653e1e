// Maps of all cells, and larger ones of the focused cell. They are parts of one picture, so that they change together.
window.gradscope = window.gradscope || {};

(function (gradscope) {
  const DESCRIBE = 1000; // milliseconds between two updates of the texts for screen readers
  const COLUMNS_MAX = 4; // columns of cards, one for each combination of stabiliser and scale
  const LISTED = 3; // guides below each other, where there is one such combination
  const DENSE = 8; // maps of more cells are smaller

  // A number with three digits; other values stay as they are.
  gradscope.significant = function (value) {
    if (value === null || value === undefined) return "–";
    if (typeof value !== "number") return value;
    const size = Math.abs(value);
    if (Number.isInteger(value) && size < 1e5) return String(value);
    return size >= 1e4 || size < 1e-3 ? value.toExponential(1) : String(Number(value.toPrecision(3)));
  };

  gradscope.Maps = class {
    // `clicked(cell)` is called for a click on a cell.
    constructor(run, root, clicked) {
      this.run = run;
      this.root = root;
      this.cells = [];
      this.frame = null;
      this.row = -1; // of the focused cell in the frame
      this.cards = new Map();
      this.large = [...root.querySelectorAll("#focus .map")];
      const part = (id) => root.querySelector(`#${id}`);
      this.grid = part("cells");
      this.focus = part("focus");
      this.title = part("focus-name");
      this.note = part("maps-note");
      this.nonfinite = part("nonfinite");
      this.grid.replaceChildren();
      root.style.setProperty("--columns", run.tensors.length);
      for (const map of this.large) this.column(map, map.dataset.tensor);
      this.grid.onclick = (event) => {
        const card = event.target.closest(".cell");
        if (card) clicked(Number(card.dataset.cell));
      };
    }

    // Show a frame; `at` is the position of the cursor, `note` a text below the maps.
    show(frame, at, note) {
      this.frame = frame;
      this.arrange(frame.cells);
      this.root.style.setProperty("--frame", `url("${frame.source}")`);
      this.root.dataset.timestep = this.run.timesteps[frame.step];
      this.root.dataset.sample = frame.sample;
      this.root.dataset.colours = this.isInColours();
      frame.cells.forEach((cell, row) => {
        this.setState(cell, frame.written[row], "not recorded yet");
        for (const map of this.cards.get(cell).querySelectorAll(".map")) {
          this.markZero(map, row);
          map.nextSibling.textContent = frame.written[row] ? this.brief(map.dataset.tensor, row) : "";
        }
      });
      this.showFocus(at);
      this.setNote(note);
      this.shown();
    }

    // Called after each change; the enlarged map follows.
    shown() {}

    // No frame: `word` is on every map, `note` says why.
    blank(at, word, note) {
      this.frame = null;
      this.arrange(at.cells);
      this.root.style.setProperty("--frame", "none");
      delete this.root.dataset.timestep;
      delete this.root.dataset.sample;
      for (const cell of at.cells) this.setState(cell, false, word);
      this.showFocus(at);
      this.setNote(note);
      this.shown();
    }

    // Norm and largest magnitude of a tile, in two short lines.
    brief(tensor, row) {
      const { norms, low, high } = this.frame;
      if (low[tensor][row] === null) return "";
      const most = Math.max(Math.abs(low[tensor][row]), Math.abs(high[tensor][row]));
      return `${brief(norms[tensor][row])}\n±${brief(most)}`;
    }

    setState(cell, written, word) {
      const card = this.cards.get(cell);
      if (!written) for (const text of card.querySelectorAll(".brief")) text.textContent = "";
      card.dataset.written = written;
      card.querySelector(".missing").textContent = written ? "" : word;
    }

    // A map of zeros looks empty, and one that is nearly zero like any other: the style sheet labels both.
    markZero(map, row) {
      map.dataset.zero = this.frame.written[row] ? this.frame.zero[map.dataset.tensor][row] : "";
    }

    // Mark the card of the focused cell, and show its row of the picture large.
    showFocus(at) {
      const { frame, focus, run } = this;
      for (const [cell, card] of this.cards) card.firstChild.setAttribute("aria-pressed", cell === at.cell);
      const row = frame ? frame.cells.indexOf(at.cell) : -1;
      const written = row >= 0 && frame.written[row];
      this.title.textContent = `${run.cells[at.cell].name} · sample ${at.sample}, target ${run.targets[at.sample]}`;
      focus.dataset.cell = at.cell;
      focus.dataset.written = written;
      if (written) focus.style.setProperty("--y", share(row, frame.cells.length));
      this.row = written ? row : -1;
      for (const map of this.large) this.describeLarge(map);
    }

    // Whether images are shown in red, green and blue.
    isInColours() {
      return this.run.channels === 3 && this.frame !== null && this.frame.channel === "mean";
    }

    // The texts of a large map: what the ends of its colours mean, its norm and its range.
    describeLarge(map) {
      const { frame, row, run } = this;
      const tensor = map.dataset.tensor;
      const figure = map.closest("figure");
      const { limit: text, diverging } = run.tensors.find(({ name }) => name === tensor);
      const set = (which, make) => (figure.querySelector(which).textContent = row < 0 ? "" : make());
      if (row >= 0) this.markZero(map, row);
      const value = (key) => gradscope.significant(frame[key][tensor][row]);
      const limit = () => value("limits");
      const isFinite = row >= 0 && frame.low[tensor][row] !== null;
      const hasBar = !text && isFinite && (diverging || !this.isInColours()); // images in their colours need none
      set(".low", () => (text ? text.replace("{}", limit()) : hasBar ? (limit() === "0" ? "0" : `−${limit()}`) : ""));
      set(".middle", () => (hasBar ? "0" : ""));
      set(".high", () => (hasBar ? limit() : ""));
      set(".norm", () => {
        const norm = frame.norms[tensor][row] === null ? "norm not finite" : `norm ${value("norms")}`;
        return frame.low[tensor][row] === null ? norm : `${norm}\n${minus(value("low"))} to ${minus(value("high"))}`;
      });
    }

    setNote(note) {
      this.note.textContent = note;
      const { frame, run } = this;
      const rows = frame ? frame.cells.filter((_, row) => frame.nonfinite[row] > 0) : [];
      const counts = rows.map((cell) => `${run.cells[cell].name}: ${frame.nonfinite[frame.cells.indexOf(cell)]}`);
      this.nonfinite.hidden = rows.length === 0;
      this.nonfinite.textContent = `magenta: elements that are not finite (${counts.join("; ")})`;
      this.describe();
    }

    // Update the texts for screen readers; not at every step, as each change may be read out.
    describe() {
      if (this.describing) return;
      const describe = () => {
        this.describing = null;
        const { frame, run } = this;
        const when = frame ? `t = ${run.timesteps[frame.step]}, sample ${frame.sample}` : "no picture";
        for (const map of this.root.querySelectorAll(".map")) {
          const { label } = run.tensors.find(({ name }) => name === map.dataset.tensor);
          const cell = run.cells[map.closest("[data-cell]").dataset.cell];
          map.setAttribute("aria-label", `${label} of ${cell.name}, ${when}`);
        }
      };
      this.describing = setTimeout(describe, this.described ? DESCRIBE : 0);
      this.described = true;
    }

    // Make a card for each cell: one row for each guide, one column for each stabiliser and scale. Many guides with
    // one stabiliser and scale stand in two columns: a longer list would push the curves off the screen.
    arrange(cells) {
      if (String(this.cells) === String(cells)) return;
      this.cells = cells;
      this.cards = new Map(cells.map((cell, i) => [cell, this.card(cell, share(i, cells.length))]));
      const rows = [...new Set(cells.map((cell) => this.run.cells[cell].row))];
      const columns = [...new Set(cells.map((cell) => this.run.cells[cell].column))];
      const few = columns.length <= COLUMNS_MAX;
      const across = columns.length === 1 && rows.length > LISTED ? 2 : columns.length;
      const aligned = few && across === columns.length;
      this.grid.style.setProperty("--across", few ? across : "auto-fill");
      for (const [cell, card] of aligned ? this.cards : []) {
        const { row, column } = this.run.cells[cell];
        card.style.gridArea = `${rows.indexOf(row) + 1} / ${columns.indexOf(column) + 1}`;
      }
      this.root.style.setProperty("--rows", cells.length);
      this.root.dataset.dense = cells.length > DENSE;
      this.grid.replaceChildren(...this.cards.values());
    }

    card(cell, y) {
      const { name, swatch } = this.run.cells[cell];
      const card = make("div", { className: "cell" });
      card.dataset.cell = cell;
      card.style.setProperty("--y", y);
      const button = make("button", { className: "cell-name", type: "button", title: name });
      const picture = make("img", { src: swatch, alt: "", width: 30, height: 12 });
      button.append(picture, make("span", { textContent: name }));
      const maps = make("div", { className: "map-row" });
      for (const { name: tensor, label } of this.run.tensors) {
        const map = make("div", { className: "map", title: label });
        map.setAttribute("role", "img");
        map.dataset.tensor = tensor;
        this.column(map, tensor);
        const tile = make("div", { className: "tile" });
        tile.append(map, make("span", { className: "brief", title: "norm; largest magnitude that is shown" }));
        maps.append(tile);
      }
      maps.append(make("span", { className: "missing" }));
      card.append(button, maps);
      return card;
    }

    column(map, tensor) {
      const { tensors } = this.run;
      map.style.setProperty("--x", share(tensors.findIndex(({ name }) => name === tensor), tensors.length));
    }
  };

  // A number with two digits.
  function brief(value) {
    if (value === null) return "not finite";
    const size = Math.abs(value);
    if (size === 0) return "0";
    return size >= 1e4 || size < 1e-2 ? value.toExponential(0).replace("e+", "e") : String(Number(value.toPrecision(2)));
  }

  function minus(text) {
    return String(text).replace(/^-/, "−");
  }

  // Position of part i of n, as CSS wants it for a background picture.
  function share(i, n) {
    return n > 1 ? `${(100 * i) / (n - 1)}%` : "0%";
  }

  function make(tag, properties) {
    return Object.assign(document.createElement(tag), properties);
  }
})(window.gradscope);
