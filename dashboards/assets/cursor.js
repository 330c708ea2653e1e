// The mark of the cursor on every figure along t. It lies over the figure, which is not redrawn when it moves.
window.gradscope = window.gradscope || {};

(function (gradscope) {
  const NEAR = 14; // pixels between a line and a click on it

  gradscope.Marks = class {
    // `root` holds the figures; `clicked({timestep, cell})` is called for a click, with the cell of a line near it.
    constructor(root, clicked) {
      this.root = root;
      this.clicked = clicked;
      this.timestep = null;
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

    adopt() {
      for (const figure of this.root.querySelectorAll(".js-plotly-plot")) {
        if (!figure._fullLayout || !(figure._fullLayout.meta || {}).timestep || figure.querySelector(":scope > .marks"))
          continue;
        figure.append(Object.assign(document.createElement("div"), { className: "marks" }));
        figure.on("plotly_afterplot", () => placeMarks(figure, this.timestep));
        figure.on("plotly_relayouting", () => placeMarks(figure, this.timestep));
        figure.on("plotly_click", (event) => this.clicked(target(figure, event)));
        this.figures.add(figure);
        placeMarks(figure, this.timestep);
      }
    }
  };

  // One line for each subplot; none where the timestep is outside the axis.
  function placeMarks(figure, timestep) {
    const marks = figure.querySelector(":scope > .marks");
    if (!marks || timestep === null) return;
    const plots = Object.values(figure._fullLayout._plots);
    while (marks.childElementCount < plots.length) marks.append(document.createElement("div"));
    while (marks.childElementCount > plots.length) marks.lastElementChild.remove();
    plots.forEach(({ xaxis, yaxis }, i) => {
      const x = xaxis.d2p(xaxis.type === "category" ? String(timestep) : timestep);
      const mark = marks.children[i];
      mark.hidden = !(x >= 0 && x <= xaxis._length);
      mark.style.height = `${yaxis._length}px`;
      mark.style.transform = `translate(${xaxis._offset + x}px, ${yaxis._offset}px)`;
    });
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
