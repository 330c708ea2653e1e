// Callbacks of the Overview page: the text of the selected finding, and clicks on the heat map.
window.dash_clientside = window.dash_clientside || {};

(function () {
  window.dash_clientside.gradscope_overview = {
    describe: function (selected, rows) {
      const id = selected && selected.length ? selected[0].id : null;
      const row = (rows || []).find((each) => each.id === id) || (rows || [])[0];
      if (!row) return Array(6).fill(window.dash_clientside.no_update);
      return [row.name, `Open ${row.position}`, row.href, row.evidence, row.advice, row.why];
    },

    // Each row of the heat map has the number of its cell, whose link the table of cells has.
    open: function (clicked, rows) {
      const point = clicked && clicked.points[0];
      const graph = document.querySelector("#stability .js-plotly-plot");
      const trace = point && graph && graph.data[0];
      const cell = trace && trace.meta.cells[trace.y.indexOf(point.y)];
      const row = trace && rows.find((each) => each.cells.includes(cell));
      if (row) {
        const url = new URL(row.href, location.href);
        url.searchParams.set("cell", cell);
        url.searchParams.set("t", point.x);
        window.gradscope.go(url.href.replaceAll("%2C", ","));
      }
      return window.dash_clientside.no_update;
    },
  };
})();
