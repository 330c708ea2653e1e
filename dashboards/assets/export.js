// Save figures as pictures that state their origin, and copy the Python that draws them.
window.gradscope = window.gradscope || {};

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
    const graph = document.getElementById(button.dataset.figure).querySelector(".js-plotly-plot");
    const figure = stamped(graph, button.dataset.stamp);
    const { width, height } = figure.layout;
    const made = format === "pdf" ? "svg" : format;
    const address = await window.Plotly.toImage(figure, { format: made, width, height, scale: made === "png" ? 2 : 1 });
    if (format === "pdf") return print(address, width, height, button.dataset.name);
    window.gradscope.download(address, `${button.dataset.name}.${format}`);
  }

  // Open the browser's dialog for printing, which saves a PDF of lines and letters: one page as large as the figure.
  function print(address, width, height, name) {
    const frame = Object.assign(document.createElement("iframe"), { className: "unseen", title: name });
    document.body.append(frame);
    const page = frame.contentDocument;
    page.title = name;
    page.head.append(
      Object.assign(page.createElement("style"), {
        textContent: `@page { size: ${width}px ${height}px; margin: 0 } body { margin: 0 } svg { display: block }`,
      }),
    );
    const svg = decodeURIComponent(address.replace(/^data:image\/svg\+xml,/, ""));
    page.body.append(page.importNode(new DOMParser().parseFromString(svg, "image/svg+xml").documentElement, true));
    frame.contentWindow.onafterprint = () => frame.remove();
    frame.contentWindow.print();
  }

  // Save a file of this name.
  window.gradscope.download = function (address, name) {
    Object.assign(document.createElement("a"), { href: address, download: name }).click();
  };

  // Save a text as a file.
  window.gradscope.saveText = function (text, name, type) {
    const address = URL.createObjectURL(new Blob([text], { type }));
    window.gradscope.download(address, name);
    setTimeout(() => URL.revokeObjectURL(address), 10_000);
  };

  window.gradscope.view = view;

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
