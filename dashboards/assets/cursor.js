// The mark of the cursor over every figure along t: laid over it, so that nothing is drawn anew when it moves.
window.gradscope = window.gradscope || {};

(function (gradscope) {
  const NEAR = 14; // pixels from a line to a click that means it

  gradscope.Marks = class {
    // `root`: where the figures are. `clicked({timestep, cell})` is told where one was clicked, and on whose line.
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
        if (figure.isConnected) place(figure, timestep);
        else this.figures.delete(figure);
      }
    }

    adopt() {
      for (const figure of this.root.querySelectorAll(".js-plotly-plot")) {
        if (!figure._fullLayout || !(figure._fullLayout.meta || {}).timestep || figure.querySelector(":scope > .marks"))
          continue;
        figure.append(Object.assign(document.createElement("div"), { className: "marks" }));
        figure.on("plotly_afterplot", () => place(figure, this.timestep));
        figure.on("plotly_relayouting", () => place(figure, this.timestep));
        figure.on("plotly_click", (event) => this.clicked(meant(figure, event)));
        this.figures.add(figure);
        place(figure, this.timestep);
      }
    }
  };

  // One line a subplot, where its axes are now; none where the timestep is out of sight.
  function place(figure, timestep) {
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

  // Where a click was: its timestep; and the cell of the line, where it was near one.
  function meant(figure, { points, event }) {
    const y = event.clientY - figure.getBoundingClientRect().top;
    const distance = (point) => (point.yaxis ? Math.abs(y - point.yaxis._offset - point.yaxis.d2p(point.y)) : Infinity);
    const nearest = points.reduce((a, b) => (distance(b) < distance(a) ? b : a));
    const line = distance(nearest) < NEAR ? nearest.data.meta : null;
    return { timestep: Number(nearest.x), cell: line ? line.cell : undefined };
  }
})(window.gradscope);
