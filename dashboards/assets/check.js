// The Check page: the text about the selected verdict.
window.dash_clientside = window.dash_clientside || {};

(function () {
  const PARTS = ["meaning", "advice", "evidence", "others", "remarks", "needs"]; // as in pages/check/page.py

  window.dash_clientside.gradscope_check = {
    describe: function (selected) {
      const row = selected && selected[0];
      if (!row) return Array(1 + 2 * PARTS.length).fill(window.dash_clientside.no_update);
      return [row.name, ...PARTS.map((name) => row[name]), ...PARTS.map((name) => !row[name])];
    },
  };
})();
