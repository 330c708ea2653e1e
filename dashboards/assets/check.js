// The Check page: the text about the verdict under the mouse or the focus.
window.dash_clientside = window.dash_clientside || {};

(function () {
  const PARTS = ["meaning", "advice", "evidence", "others", "remarks", "needs"]; // as in pages/check/page.py

  window.dash_clientside.gradscope_check = {
    describe: function (row) {
      if (!row) return Array(1 + 2 * PARTS.length).fill(window.dash_clientside.no_update);
      return [row.name, ...PARTS.map((name) => row[name]), ...PARTS.map((name) => !row[name])];
    },
  };
})();
