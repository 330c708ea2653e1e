// The landing page: what is said of the finding under the mouse, and where the heat map leads.
window.dash_clientside = window.dash_clientside || {};

(function () {
  const plotly = (text) => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");

  window.dash_clientside.gradscope_overview = {
    shown: function (row) {
      if (!row) return Array(5).fill(window.dash_clientside.no_update);
      return [row.name, row.evidence, row.advice, `Open the tensor: ${row.place}`, row.href];
    },

    // Each row of the heat map is a cell, which the table of cells knows the way to.
    go: function (clicked, rows) {
      const point = clicked && clicked.points[0];
      const row = point && rows.find((each) => plotly(each.cell) === point.y);
      if (row) {
        const url = new URL(row.href, location.href);
        url.searchParams.set("t", point.x);
        window.gradscope.go(url.href.replaceAll("%2C", ","));
      }
      return window.dash_clientside.no_update;
    },
  };
})();
