// Save figures as pictures that state their origin, and copy the Python that draws them.
(function () {
  const INK = "#1a1a1a";
  const MIN_WIDTH = 640; // of a picture; all sizes are in pixels
  const ROW = 20; // height of a row of a legend
  const LINE = 13; // height of a line of the footer
  const LETTER = 4.9; // width

  function escaped(text) {
    return text.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
  }

  function view() {
    return location.pathname.split("/").pop() + location.search;
  }

  // Height of a legend whose entries have about this width.
  function rows(graph, legend, width, entry) {
    const entries = graph.data.filter((trace) => trace.showlegend !== false && (trace.legend || "legend") === legend);
    return ROW * Math.ceil(entries.length / Math.floor(width / entry));
  }

  // The origin of the figure: its store, and the view on as many lines as needed.
  function footer(stamp, width) {
    const most = Math.floor(width / LETTER) - 4;
    return [stamp, ...view().match(new RegExp(`.{1,${most}}`, "g"))];
  }

  // A copy of the figure on the page, dark on white, with its legend and a footer.
  function stamped(graph, stamp) {
    const { l, r, t, b } = graph._fullLayout._size;
    const width = Math.max(graph._fullLayout.width, MIN_WIDTH);
    const layout = structuredClone(graph.layout);
    const hidden = (layout.meta || {}).legend; // hidden on the page, which shows line styles elsewhere
    const above = hidden ? rows(graph, "legend", width - l - r, 200) + rows(graph, "legend2", width - l - r, 140) : 0;
    if (hidden) layout.showlegend = true;
    const lines = footer(stamp, width);
    const below = LINE * lines.length + 8;
    layout.width = width;
    layout.height = graph._fullLayout.height + above + below;
    layout.autosize = false;
    layout.margin = { l, r, t: t + above, b: b + below, autoexpand: false };
    layout.paper_bgcolor = layout.plot_bgcolor = "white";
    layout.font = { ...layout.font, color: INK };
    const note = {
      text: lines.map(escaped).join("<br>"),
      font: { size: 9, color: INK },
      align: "left",
      showarrow: false,
      x: 0,
      xref: "paper",
      xanchor: "left",
      xshift: 6 - l,
      y: 0,
      yref: "paper",
      yanchor: "bottom",
      yshift: 4 - b - below,
    };
    layout.annotations = [...(layout.annotations || []), note];
    return { data: structuredClone(graph.data), layout, config: { displayModeBar: false } };
  }

  async function save(button, format) {
    const id = button.dataset.figure;
    const graph = document.getElementById(id).querySelector(".js-plotly-plot");
    const figure = stamped(graph, button.dataset.stamp);
    const { width, height } = figure.layout;
    const address = await window.Plotly.toImage(figure, { format, width, height, scale: format === "png" ? 2 : 1 });
    const name = id.replace(/[^A-Za-z0-9_-]+/g, "-").replace(/^-|-$/g, "");
    Object.assign(document.createElement("a"), { href: address, download: `${name}.${format}` }).click();
  }

  document.addEventListener("click", function (event) {
    const button = event.target.closest && event.target.closest("[data-export]");
    if (!button) return;
    if (button.dataset.export === "python") {
      window.gradscope.copy(button.dataset.code, "Python copied");
      return;
    }
    save(button, button.dataset.export).catch((error) => window.gradscope.say(`not saved: ${error.message}`));
  });

  // The CSV states the view that it was saved from.
  document.addEventListener("click", function (event) {
    const link = event.target.closest && event.target.closest('a[href*=".csv?call="]');
    if (!link) return;
    const url = new URL(link.getAttribute("href"), location.href);
    url.searchParams.set("view", view());
    link.href = url.href;
  });
})();
