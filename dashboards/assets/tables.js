// Tables: formatters of numbers, and what a click on a row does.
(function () {
  const NONE = "–";
  const functions = (window.dashAgGridFunctions = window.dashAgGridFunctions || {});
  const components = (window.dashAgGridComponentFunctions = window.dashAgGridComponentFunctions || {});

  const known = (value) => typeof value === "number" && Number.isFinite(value);

  const shortest = (value) => String(Number(value.toPrecision(3)));

  functions.significant = function (value) {
    if (!known(value)) return NONE;
    const tiny = value !== 0 && Math.abs(value) < 1e-3; // JavaScript writes 0.00000105
    return tiny ? value.toExponential(2).replace(/\.?0+e/, "e") : shortest(value);
  };

  functions.digits = (value, count) => (known(value) ? value.toFixed(count).replace(/^-(0\.?0*)$/, "$1") : NONE);

  functions.interval = function (value, low, high, count) {
    const write = (each) => (count ? functions.digits(each, count) : functions.significant(each));
    return known(value) ? `${write(value)} [${write(low)}, ${write(high)}]` : NONE;
  };

  functions.of = (value, all) => (known(value) ? `${value} of ${all}` : NONE);

  functions.percent = (value) => (known(value) ? `${(100 * value).toFixed(0)} %` : NONE);

  functions.text = (value) => value;

  functions.span = (first, last) => (known(first) ? `${first} to ${last}` : "final image");

  // The whole text of a cell that its column may cut off.
  functions.fullText = (params) => params.valueFormatted || params.value;

  // A click or Enter opens the view of a row; with Ctrl in a new tab.
  functions.openRow = function (params) {
    const event = params.event;
    if (event.type === "keydown" && event.key !== "Enter") return;
    if (!params.data || !params.data.href) return;
    if (event.ctrlKey || event.metaKey) window.open(params.data.href, "_blank", "noopener");
    else window.gradscope.go(params.data.href);
  };

  // Select the row of the focus.
  functions.selectRow = function (params) {
    const row = params.api.getDisplayedRowAtIndex(params.rowIndex);
    if (row) row.setSelected(true);
  };

  components.Badges = function (props) {
    const React = window.React;
    const severity = (text) => ({ "▲": "alarm", "●": "warning", "○": "remark" })[text[0]] || "plain";
    const each = (text) => React.createElement("span", { key: text, className: `badge badge-${severity(text)}` }, text);
    return React.createElement("span", { className: "badges" }, (props.value || "").split(", ").filter(Boolean).map(each));
  };
})();
