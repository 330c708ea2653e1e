// Saves figures as pictures that say where they come from, and copies the Python that draws them.
(function () {
  const INK = "#1a1a1a";
  const NARROWEST = 640; // pixels, as are the others
  const ROW = 20; // of a legend
  const LINE = 13; // of the footer
  const LETTER = 4.9;

  function escaped(text) {
    return text.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
  }

  function view() {
    return location.pathname.split("/").pop() + location.search;
  }

  // Height that a legend takes, whose entries are about so wide.
  function rows(graph, legend, width, entry) {
    const entries = graph.data.filter((trace) => trace.showlegend !== false && (trace.legend || "legend") === legend);
    return ROW * Math.ceil(entries.length / Math.floor(width / entry));
  }

  // Where the figure is from: its store, and the view, in as many lines as it takes.
  function footer(stamp, width) {
    const most = Math.floor(width / LETTER) - 4;
    return [stamp, ...view().match(new RegExp(`.{1,${most}}`, "g"))];
  }

  // A copy of the figure as it is on the page, dark on white, with its legend, and room for a footer.
  function stamped(graph, stamp) {
    const { l, r, t, b } = graph._fullLayout._size;
    const width = Math.max(graph._fullLayout.width, NARROWEST);
    const layout = structuredClone(graph.layout);
    const hidden = (layout.meta || {}).legend; // on the page, which tells the lines apart in another way
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
    const told = {
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
    layout.annotations = [...(layout.annotations || []), told];
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

  // Numbers are told which view they were saved from.
  document.addEventListener("click", function (event) {
    const link = event.target.closest && event.target.closest('a[href*=".csv?call="]');
    if (!link) return;
    const url = new URL(link.getAttribute("href"), location.href);
    url.searchParams.set("view", view());
    link.href = url.href;
  });
})();
