// Tables: how numbers are written, and where rows lead.
(function () {
  const NONE = "–";
  const functions = (window.dashAgGridFunctions = window.dashAgGridFunctions || {});
  const components = (window.dashAgGridComponentFunctions = window.dashAgGridComponentFunctions || {});

  const REST = 250; // milliseconds: a mouse that only passes over a row does not mean it
  const looked = {};
  let waiting = null;

  const known = (value) => typeof value === "number" && Number.isFinite(value);

  functions.significant = (value) => (known(value) ? String(Number(value.toPrecision(3))) : NONE);

  functions.digits = (value, count) => (known(value) ? value.toFixed(count) : NONE);

  functions.interval = function (value, low, high, count) {
    const write = (each) => (count ? functions.digits(each, count) : functions.significant(each));
    return known(value) ? `${write(value)} [${write(low)}, ${write(high)}]` : NONE;
  };

  functions.of = (value, all) => (known(value) ? `${value} of ${all}` : NONE);

  functions.percent = (value) => (known(value) ? `${(100 * value).toFixed(0)} %` : NONE);

  functions.text = (value) => value;

  functions.span = (first, last) => (known(first) ? `${first} to ${last}` : "final image");

  // The whole of a text that its column may cut off.
  functions.cut = (params) => params.valueFormatted || params.value;

  // A row leads to its view, by a click or by Enter; with Ctrl, in a tab of its own.
  functions.openRow = function (params) {
    const event = params.event;
    if (event.type === "keydown" && event.key !== "Enter") return;
    if (!params.data || !params.data.href) return;
    if (event.ctrlKey || event.metaKey) window.open(params.data.href, "_blank", "noopener");
    else window.gradscope.go(params.data.href);
  };

  // The row under the mouse or the focus, for what is shown beside the table.
  functions.lookAtRow = function (params) {
    const { at } = params.context;
    const row = params.node || params.api.getDisplayedRowAtIndex(params.rowIndex);
    if (!row || !row.data) return;
    const over = params.event && params.event.type === "mouseover" ? params.event.target : null;
    clearTimeout(waiting);
    waiting = setTimeout(() => show(at, row.data, over), over ? REST : 0);
  };

  function show(at, data, over) {
    if (looked[at] === data || (over && !over.matches(":hover"))) return;
    looked[at] = data;
    dash_clientside.set_props(at, { data });
  }

  components.Badges = function (props) {
    const React = window.React;
    const severity = (text) => ({ "▲": "alarm", "●": "warning", "○": "remark" })[text[0]] || "plain";
    const each = (text) => React.createElement("span", { key: text, className: `badge badge-${severity(text)}` }, text);
    return React.createElement("span", { className: "badges" }, (props.value || "").split(", ").filter(Boolean).map(each));
  };
})();
