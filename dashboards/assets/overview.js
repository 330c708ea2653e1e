// Callbacks of the Overview page: the text of the finding under the mouse, and clicks on the heat map.
window.dash_clientside = window.dash_clientside || {};

(function () {
  const escaped = (text) => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");

  window.dash_clientside.gradscope_overview = {
    describe: function (row) {
      if (!row) return Array(5).fill(window.dash_clientside.no_update);
      return [row.name, row.evidence, row.advice, `Open the tensor: ${row.position}`, row.href];
    },

    // Each row of the heat map is a cell; the table of cells has its link.
    open: function (clicked, rows) {
      const point = clicked && clicked.points[0];
      const row = point && rows.find((each) => escaped(each.cell) === point.y);
      if (row) {
        const url = new URL(row.href, location.href);
        url.searchParams.set("t", point.x);
        window.gradscope.go(url.href.replaceAll("%2C", ","));
      }
      return window.dash_clientside.no_update;
    },
  };
})();
