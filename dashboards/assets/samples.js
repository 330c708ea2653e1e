// The Samples page: a click on a point of the figure opens the sample's trajectory.
window.dash_clientside = window.dash_clientside || {};

window.dash_clientside.gradscope_samples = {
  // The table has the link of each sample that the filter shows; another sample gets the link of the first one.
  open: function (clicked, rows) {
    const point = clicked && clicked.points[0];
    const row = point && rows && (rows.find((each) => each.sample === point.customdata) || rows[0]);
    if (row) {
      const url = new URL(row.href, location.href);
      url.searchParams.set("sample", point.customdata);
      window.gradscope.go(url.href.replaceAll("%2C", ","));
    }
    return window.dash_clientside.no_update;
  },
};
