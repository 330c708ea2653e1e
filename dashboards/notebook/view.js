// A view of one position in a notebook. dashboards/assets/cursor.js comes before it in the same module.
const shared = window.gradscope;

// plotly.js, once for each page, from the kernel. The page's own version stays.
function plotly(model) {
  shared.plotly = shared.plotly || load(model);
  return shared.plotly;
}

async function load(model) {
  const code = await new Promise((resolve) => {
    const got = (message, buffers) => {
      if (!message.plotly) return;
      model.off("msg:custom", got);
      resolve(buffers[0]);
    };
    model.on("msg:custom", got);
    model.send({ want: "plotly" });
  });
  const parts = ["const module = undefined, define = undefined;\n", code]; // of AMD loaders
  const url = URL.createObjectURL(new Blob(parts, { type: "text/javascript" }));
  const own = window.Plotly;
  await import(/* webpackIgnore: true */ url);
  URL.revokeObjectURL(url);
  const found = window.Plotly;
  if (own) window.Plotly = own;
  return found;
}

function make(tag, properties, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

function labelled(text, control) {
  return make("label", {}, make("span", { textContent: text }), control);
}

class View {
  constructor(model, el) {
    this.model = model;
    this.about = model.get("_about");
    this.urls = [];
    this.build(el);
    this.marks = new shared.Marks(this.curves, ({ timestep, cell }) => this.clicked(timestep, cell));
    this.listeners = {
      "change:_cell": () => this.controls(),
      "change:_sample": () => this.controls(),
      "change:_step": () => this.controls(),
      "change:_frame": () => this.frame(),
      "change:_figures": () => this.figures(),
    };
    for (const [event, listener] of Object.entries(this.listeners)) model.on(event, listener);
    this.controls();
    this.frame();
    this.figures();
  }

  build(el) {
    const { cells, samples, timesteps, finding } = this.about;
    this.cell = make("select", {}, ...cells.map(({ name }, value) => make("option", { value, textContent: name })));
    this.cell.onchange = () => this.set("_cell", Number(this.cell.value));
    this.sample = make("select", {}, ...samples.map((name, value) => make("option", { value, textContent: name })));
    this.sample.onchange = () => this.set("_sample", Number(this.sample.value));
    this.step = make("input", { type: "range", min: 0, max: timesteps.length - 1, step: 1 });
    this.step.oninput = () => this.set("_step", Number(this.step.value));
    this.where = make("output", {});
    this.target = make("p", { className: "gs-target" });
    this.maps = make("div", { className: "gs-maps" });
    this.note = make("p", { className: "gs-note" });
    this.curves = make("div", { className: "gs-curves" });
    for (const control of [this.cell, this.sample, this.step]) control.dataset.lmSuppressShortcuts = "true"; // JupyterLab's
    const bar = make("div", { className: "gs-bar" });
    bar.append(labelled("cell", this.cell), labelled("sample", this.sample), labelled("timestep", this.step), this.where);
    const root = make("div", { className: "gradscope-view" });
    if (finding) {
      const texts = finding.texts.map((textContent) => make("p", { textContent }));
      root.append(make("div", { className: "gs-finding" }, make("strong", { textContent: finding.head }), ...texts));
    }
    const caption = make("p", { className: "gs-note", textContent: this.about.caption });
    root.append(bar, this.target, this.maps, this.note, this.curves, caption);
    el.append(root);
  }

  set(name, value) {
    this.model.set(name, value);
    this.model.save_changes();
  }

  clicked(timestep, cell) {
    const distance = (step) => Math.abs(this.about.timesteps[step] - timestep); // a click lies between two timesteps
    const nearest = this.about.timesteps.reduce((best, _, step) => (distance(step) < distance(best) ? step : best), 0);
    this.model.set("_step", nearest);
    if (cell !== undefined) this.model.set("_cell", cell);
    this.model.save_changes();
  }

  controls() {
    this.cell.value = this.model.get("_cell");
    this.sample.value = this.model.get("_sample");
    this.step.value = this.model.get("_step");
    this.step.setAttribute("aria-valuetext", `t = ${this.about.timesteps[this.model.get("_step")]}`);
    this.marks.move(this.about.timesteps[this.model.get("_step")]);
  }

  frame() {
    const frame = this.model.get("_frame");
    this.where.textContent = frame.where;
    this.target.textContent = frame.sample;
    this.note.textContent = frame.note;
    this.note.hidden = !frame.note;
    for (const url of this.urls) URL.revokeObjectURL(url);
    this.urls = [];
    const many = frame.rows.length > 2;
    this.maps.dataset.many = many;
    this.maps.replaceChildren(...frame.rows.map((row) => this.row(row)));
  }

  // One cell: its name, and a tile for each tensor.
  row({ cell, tiles }) {
    const { name: text, swatch } = this.about.cells[cell];
    const name = make("button", { type: "button" }, make("img", { src: swatch, alt: "" }), text);
    name.setAttribute("aria-pressed", cell === this.model.get("_cell"));
    name.onclick = () => this.set("_cell", cell);
    return make("section", {}, name, ...tiles.map((tile, i) => this.tile(tile, this.about.tensors[i], cell)));
  }

  tile({ png, texts }, label, cell) {
    const picture = make("img", { alt: `${label} of ${this.about.cells[cell].name}` });
    if (png.byteLength) {
      const url = URL.createObjectURL(new Blob([png], { type: "image/png" }));
      this.urls.push(url);
      picture.src = url;
    }
    picture.hidden = !png.byteLength;
    const caption = texts.map((textContent) => make("span", { textContent }));
    return make("figure", {}, make("b", { textContent: label }), picture, make("figcaption", {}, ...caption));
  }

  async figures() {
    const figures = this.model.get("_figures");
    const Plotly = await plotly(this.model);
    if (this.closed || figures !== this.model.get("_figures")) return;
    while (this.curves.childElementCount < figures.length) {
      const title = make("p", { textContent: this.about.variables[this.curves.childElementCount] });
      this.curves.append(make("div", {}, title, make("div", { className: "gs-curve" })));
    }
    for (const [i, text] of figures.entries()) {
      const { data, layout } = JSON.parse(text);
      await Plotly.react(this.curves.children[i].lastChild, data, layout, this.about.config);
    }
    this.marks.adopt();
    this.controls();
  }

  close() {
    this.closed = true;
    this.marks.close();
    for (const [event, listener] of Object.entries(this.listeners)) this.model.off(event, listener);
    for (const url of this.urls) URL.revokeObjectURL(url);
  }
}

export default {
  render({ model, el }) {
    const view = new View(model, el);
    return () => view.close();
  },
};
