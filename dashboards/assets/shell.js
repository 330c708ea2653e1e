// Callbacks of the shell: between the URL, the controls and the navigation.
window.dash_clientside = window.dash_clientside || {};

(function () {
  let settled = null;

  // Write out the full URL of a page, once.
  function settle(view) {
    if (!view || view === settled) return;
    settled = view;
    history.replaceState(null, "", view.url);
  }

  window.dash_clientside.gradscope_shell = {
    // Write the value of a changed control to the URL.
    write_url: function (values, ids, view) {
      settle(view); // controls also report when a page is made
      const changed = {};
      let push = true;
      for (const { prop_id } of window.dash_clientside.callback_context.triggered) {
        const id = prop_id.slice(0, prop_id.lastIndexOf("."));
        const index = ids.findIndex((each) => JSON.stringify(each, Object.keys(each).sort()) === id);
        if (index < 0 || values[index] === null || values[index] === undefined || values[index] === "") continue;
        const key = ids[index].key;
        changed[key] = window.gradscope.asText(key, values[index]);
        if (key === "t" || key === "sample") push = false;
      }
      window.gradscope.update(changed, push);
      return window.dash_clientside.no_update;
    },

    // Write out the URL of a new page, show the links of pages that have something to show, and mark its own.
    show_view: function (view) {
      if (!view) return window.dash_clientside.no_update;
      settle(view);
      document.title = `${view.page} · gradscope`;
      for (const link of document.querySelectorAll(".nav a")) {
        link.hidden = !view.pages.includes(link.id.slice("to-".length));
        if (link.id === `to-${view.page}`) link.setAttribute("aria-current", "page");
        else link.removeAttribute("aria-current");
      }
      return window.dash_clientside.no_update;
    },

    // Show another store, on the same page at the same timestep and sample, with the cells of the same names.
    open_store: function (key, view) {
      if (!view || !key || key === view.store) return window.dash_clientside.no_update;
      const here = new URLSearchParams(location.search);
      const names = ["t", "sample", "cell", "other", "other_store", "cells", "variables", "label"];
      const kept = names.filter((name) => here.has(name)).map((name) => `&${name}=${here.get(name)}`);
      const page = ["oracle", "check"].includes(view.page) ? "overview" : view.page;
      window.gradscope.go(`${page}?store=${key}${kept.join("")}&was=${view.store}`);
      return window.dash_clientside.no_update;
    },
  };
})();
