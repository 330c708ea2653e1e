// Marks on every figure along t: the cursor, and the timesteps of a finding. They lie over the figure, which is not
// redrawn when they move.
window.gradscope = window.gradscope || {};

(function (gradscope) {
  const NEAR = 14; // pixels between a line and a click on it

  gradscope.Marks = class {
    // `root` holds the figures; `clicked({timestep, cell})` is called for a click, with the cell of a line near it.
    constructor(root, clicked) {
      this.root = root;
      this.clicked = clicked;
      this.timestep = null;
      this.span = null; // first and last timestep of the finding
      this.figures = new Set();
      this.observer = new MutationObserver(() => this.adopt());
      this.observer.observe(root, { childList: true, subtree: true });
      this.adopt();
    }

    close() {
      this.observer.disconnect();
    }

    move(timestep) {
      this.timestep = timestep;
      for (const figure of this.figures) {
        if (figure.isConnected) placeMarks(figure, timestep);
        else this.figures.delete(figure);
      }
    }

    setSpan(span) {
      this.span = span;
      for (const figure of this.figures) placeSpans(figure, span);
    }

    adopt() {
      for (const figure of this.root.querySelectorAll(".js-plotly-plot")) {
        if (!figure._fullLayout || !(figure._fullLayout.meta || {}).timestep || figure.querySelector(":scope > .marks"))
          continue;
        for (const className of ["spans", "marks"])
          figure.append(Object.assign(document.createElement("div"), { className }));
        const place = () => {
          placeMarks(figure, this.timestep);
          placeSpans(figure, this.span);
        };
        figure.on("plotly_afterplot", place);
        figure.on("plotly_relayouting", place);
        figure.on("plotly_click", (event) => this.clicked(target(figure, event)));
        this.figures.add(figure);
        place();
      }
    }
  };

  // One line for each subplot; none where the timestep is outside the axis.
  function placeMarks(figure, timestep) {
    if (timestep === null) return;
    eachPlot(figure, ".marks", ({ xaxis, yaxis }, mark) => {
      const x = place(xaxis, timestep);
      mark.hidden = !(x >= 0 && x <= xaxis._length);
      mark.style.height = `${yaxis._length}px`;
      mark.style.transform = `translate(${xaxis._offset + x}px, ${yaxis._offset}px)`;
    });
  }

  // One band for each subplot, cut off at the ends of the axis; none without a finding along t.
  function placeSpans(figure, span) {
    eachPlot(figure, ".spans", ({ xaxis, yaxis }, band) => {
      const ends = (span || []).map((timestep) => Math.min(Math.max(place(xaxis, timestep), 0), xaxis._length));
      band.hidden = !(ends.length && Number.isFinite(ends[0] + ends[1]));
      if (band.hidden) return;
      const [left, right] = ends.sort((a, b) => a - b);
      band.style.width = `${Math.max(right - left, 2)}px`;
      band.style.height = `${yaxis._length}px`;
      band.style.transform = `translate(${xaxis._offset + left}px, ${yaxis._offset}px)`;
    });
  }

  // Call `put(plot, element)` for each subplot of a figure with its own element of this layer.
  function eachPlot(figure, layer, put) {
    const elements = figure.querySelector(`:scope > ${layer}`);
    if (!elements) return;
    const plots = Object.values(figure._fullLayout._plots);
    while (elements.childElementCount < plots.length) elements.append(document.createElement("div"));
    while (elements.childElementCount > plots.length) elements.lastElementChild.remove();
    plots.forEach((plot, i) => put(plot, elements.children[i]));
  }

  // Position of a timestep on an axis, in pixels.
  function place(xaxis, timestep) {
    return xaxis.d2p(xaxis.type === "category" ? String(timestep) : timestep);
  }

  // The timestep of a click, and the cell of the nearest line within NEAR pixels.
  function target(figure, { points, event }) {
    const x = event.clientX - figure.getBoundingClientRect().left;
    const y = event.clientY - figure.getBoundingClientRect().top;
    const distance = (point) => (point.yaxis ? Math.abs(y - point.yaxis._offset - point.yaxis.d2p(point.y)) : Infinity);
    const nearest = points.reduce((a, b) => (distance(b) < distance(a) ? b : a));
    const line = distance(nearest) < NEAR ? nearest.data.meta : null;
    const axis = nearest.xaxis;
    const category = !axis || axis.type === "category";
    return { timestep: category ? Number(nearest.x) : axis.p2d(x - axis._offset), cell: line ? line.cell : undefined };
  }
})(window.gradscope);
