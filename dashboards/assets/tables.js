// Tables: formatters of numbers, and what a click on a row does.
(function () {
  const NONE = "–";
  const functions = (window.dashAgGridFunctions = window.dashAgGridFunctions || {});
  const components = (window.dashAgGridComponentFunctions = window.dashAgGridComponentFunctions || {});

  const REST = 250; // milliseconds that the mouse has to rest on a row
  const focused = {}; // the latest row, by the id of its dcc.Store
  let waiting = null;

  const known = (value) => typeof value === "number" && Number.isFinite(value);

  const shortest = (value) => String(Number(value.toPrecision(3)));

  functions.significant = function (value) {
    if (!known(value)) return NONE;
    const tiny = value !== 0 && Math.abs(value) < 1e-4; // JavaScript writes 0.00000105
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

  // Put the row under the mouse or the focus into a dcc.Store, for the text beside the table.
  functions.focusRow = function (params) {
    const { store } = params.context;
    const row = params.node || params.api.getDisplayedRowAtIndex(params.rowIndex);
    if (!row || !row.data) return;
    const over = params.event && params.event.type === "mouseover" ? params.event.target : null;
    clearTimeout(waiting);
    waiting = setTimeout(() => show(store, row.data, over), over ? REST : 0);
  };

  function show(store, data, over) {
    if (focused[store] === data || (over && !over.matches(":hover"))) return;
    focused[store] = data;
    dash_clientside.set_props(store, { data });
  }

  components.Badges = function (props) {
    const React = window.React;
    const severity = (text) => ({ "▲": "alarm", "●": "warning", "○": "remark" })[text[0]] || "plain";
    const each = (text) => React.createElement("span", { key: text, className: `badge badge-${severity(text)}` }, text);
    return React.createElement("span", { className: "badges" }, (props.value || "").split(", ").filter(Boolean).map(each));
  };
})();
