// Callbacks of the shell: between the URL, the controls and the navigation.
window.dash_clientside = window.dash_clientside || {};

(function () {
  let settled = null;

  // The URL of a page that is shown is written out in full, once.
  function settle(view) {
    if (!view || view === settled) return;
    settled = view;
    history.replaceState(null, "", view.url);
  }

  window.dash_clientside.gradscope_shell = {
    // What a control was set to goes into the URL.
    write: function (values, ids, view) {
      settle(view); // controls are heard when a page is shown, too
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

    // The page is there: its URL is written out, and its place in the navigation marked.
    shown: function (view) {
      if (!view) return window.dash_clientside.no_update;
      settle(view);
      document.title = `${view.page} · gradscope`;
      for (const link of document.querySelectorAll(".nav a")) {
        if (link.id === `to-${view.page}`) link.setAttribute("aria-current", "page");
        else link.removeAttribute("aria-current");
      }
      return window.dash_clientside.no_update;
    },

    // Another store: the same page and place in it.
    open: function (key, view) {
      if (!view || !key || key === view.store) return window.dash_clientside.no_update;
      const here = new URLSearchParams(location.search);
      const kept = ["t", "sample"].filter((name) => here.has(name)).map((name) => `&${name}=${here.get(name)}`);
      window.gradscope.go(`${view.page}?store=${key}${kept.join("")}`);
      return window.dash_clientside.no_update;
    },
  };
})();
