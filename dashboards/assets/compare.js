// Callbacks of the Compare page.
window.dash_clientside = window.dash_clientside || {};

window.dash_clientside.gradscope_compare = {
  swap: function (clicks, a, b) {
    const same = window.dash_clientside.no_update;
    if (!clicks) return [same, same];
    const url = new URL(location.href);
    const other = url.searchParams.get("other_store");
    if (!other) return [b, a];
    // The cells are of two stores, which change their places too.
    for (const [key, value] of Object.entries({
      store: other,
      other_store: url.searchParams.get("store"),
      cell: b,
      other: a,
    }))
      url.searchParams.set(key, value);
    window.gradscope.go(url.href);
    return [same, same];
  },

  // Show another store's cells under b: the cell of the same names, where it has one.
  open_other: function (key, view) {
    const url = new URL(location.href);
    const before = url.searchParams.get("other_store") || (view && view.store);
    const now = key === "same" ? view && view.store : key;
    if (!view || !key || now === before) return window.dash_clientside.no_update;
    url.searchParams.set("other_store", now);
    url.searchParams.set("other_was", before);
    window.gradscope.go(url.href);
    return window.dash_clientside.no_update;
  },

  // The selected samples are those under the brush.
  brushed: function (selected) {
    const same = window.dash_clientside.no_update;
    if (selected === undefined) return same;
    if (selected === null) return [];
    // plotly sends an empty selection whenever it redraws; a user's selection has a range or a lasso
    if (!selected.points.length && !selected.range && !selected.lassoPoints) return same;
    const samples = new Set(selected.points.map((point) => point.customdata));
    return [...samples].sort((a, b) => a - b).map(String);
  },

  clear: function (clicks) {
    const same = window.dash_clientside.no_update;
    return clicks ? [[], null] : [same, same];
  },

  // Emphasise the selected samples in the scatter plot, unless the brush has done so.
  mark: function (samples) {
    const graph = document.querySelector("#compare-pairs .js-plotly-plot");
    if (!graph || !graph.data) return;
    const chosen = new Set(samples.map(Number));
    const points = graph.data.map((trace) =>
      chosen.size ? trace.customdata.flatMap((sample, i) => (chosen.has(sample) ? [i] : [])) : null,
    );
    const now = graph._fullData.map((trace) => trace.selectedpoints || null);
    if (JSON.stringify(now) !== JSON.stringify(points)) {
      window.Plotly.update(graph, { selectedpoints: points }, { selections: [] });
    }
  },
};
