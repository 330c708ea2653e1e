// Tables as CSV: the rows that the filters leave, in their order, with the origin in the first lines.
(function () {
  const FORMULA = /^[\s"']*(?:[=@]|[+-](?![\d.]+\s*$))/; // a text that spreadsheets compute, as in widgets/export.py
  const UNSHOWN = ["id", "href"];

  const harmless = (text) =>
    text
      .split(/([,;\t\r\n])/)
      .map((part) => (FORMULA.test(part) ? `'${part}` : part))
      .join("");

  function field(value) {
    if (value === null || value === undefined) return "";
    if (typeof value !== "string") return String(value);
    const text = harmless(value);
    return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  }

  // Columns and rows of a grid: its columns first, then what else its rows hold, such as the ends of intervals.
  function ofGrid(api) {
    const rows = [];
    api.forEachNodeAfterFilterAndSort((node) => rows.push(node.data));
    const plain = (key) => !UNSHOWN.includes(key) && rows.every((row) => typeof (row[key] ?? "") !== "object");
    const shown = api.getAllDisplayedColumns().map((column) => column.getColDef().field);
    const names = [...new Set([...shown, ...rows.flatMap((row) => Object.keys(row))])].filter(plain);
    return [names, ...rows.map((row) => names.map((name) => row[name]))];
  }

  function ofTable(table) {
    return [...table.rows].map((row) => [...row.cells].map((cell) => cell.textContent));
  }

  document.addEventListener("click", function (event) {
    const button = event.target.closest && event.target.closest("[data-table]");
    if (!button) return;
    const { table: id, name } = button.dataset;
    const html = document.querySelector(`#${CSS.escape(id)} table`);
    const lines = html ? ofTable(html) : ofGrid(window.dash_ag_grid.getApi(id));
    const store = document.getElementById("store-select").value;
    const origin = [`store: ${store}`, `view: ${window.gradscope.view()}`];
    const text = [
      ...origin.map((line) => harmless(`# ${line.replace(/\s+/g, " ")}`)),
      ...lines.map((line) => line.map(field).join(",")),
    ].join("\n");
    const file = `${store.replace(/\.zarr$/, "")}_${name}`.replace(/[^A-Za-z0-9._+-]+/g, "-");
    window.gradscope.saveText(`${text}\n`, `${file}.csv`, "text/csv");
  });
})();
