// The URL is the state: pages are made from it, and changes are written to it.
window.gradscope = window.gradscope || {};

(function (gradscope) {
  const OMITTED = { scale: "linear", channel: "mean", zoom: "", finding: "" }; // see dashboards/state.py

  let pending = {};
  let timer = null;

  function render() {
    dash_clientside.set_props("address", { data: gradscope.address() });
  }

  function write(params, push) {
    const url = new URL(location.href);
    for (const [key, value] of Object.entries(params)) {
      if (value === OMITTED[key]) url.searchParams.delete(key);
      else url.searchParams.set(key, value);
    }
    url.search = url.search.replaceAll("%2C", ",");
    if (url.href === location.href) return;
    if (push) history.pushState(null, "", url);
    else history.replaceState(null, "", url);
  }

  function flush() {
    clearTimeout(timer);
    timer = null;
    write(pending, false);
    pending = {};
  }

  // The address that the server makes the page from.
  gradscope.address = function () {
    return {
      path: location.pathname.split("/").pop(),
      query: Object.fromEntries(new URLSearchParams(location.search)),
    };
  };

  // Show another view without a reload.
  gradscope.go = function (href) {
    flush();
    const url = new URL(href, location.href);
    if (url.origin !== location.origin) return;
    if (url.href !== location.href) history.pushState(null, "", url);
    render();
  };

  // Write parameters to the URL of this view. Scrubbing replaces the entry of the history, other changes add one.
  gradscope.update = function (params, push) {
    if (push) {
      flush();
      write(params, true);
      return;
    }
    Object.assign(pending, params);
    if (timer === null) timer = setTimeout(flush, 250); // browsers limit the rate of replaceState
  };

  // Encode cells as a hexadecimal number in which bit i stands for cell i.
  gradscope.mask = function (cells) {
    return cells.reduce((bits, cell) => bits | (1n << BigInt(cell)), 0n).toString(16);
  };

  gradscope.asText = function (key, value) {
    if (!Array.isArray(value)) return String(value);
    return key === "cells" ? gradscope.mask(value) : value.join(",");
  };

  // Links to other views keep the cursor; links of the navigation also keep the fields that their page has.
  document.addEventListener("click", function (event) {
    const link = event.target.closest && event.target.closest("a.view-link");
    if (!link || event.ctrlKey || event.metaKey || event.shiftKey || event.button !== 0) return;
    event.preventDefault();
    flush();
    const url = new URL(link.getAttribute("href"), location.href);
    if (link.dataset.fields) {
      const here = new URLSearchParams(location.search);
      for (const key of link.dataset.fields.split(" ")) if (here.has(key)) url.searchParams.set(key, here.get(key));
      url.search = url.search.replaceAll("%2C", ",");
    }
    gradscope.go(url.href);
  });

  // Move only the focus: another address, even with a new fragment alone, would make the page again.
  document.addEventListener("click", function (event) {
    if (!event.target.closest || !event.target.closest("a.skip")) return;
    event.preventDefault();
    document.querySelector("main").focus();
  });

  document.addEventListener("click", function (event) {
    const button = event.target.closest && event.target.closest("[data-copy-link]");
    if (!button) return;
    flush();
    gradscope.copy(location.href, "link copied");
  });

  // Copy to the clipboard; browsers offer only the old way to a page without https.
  gradscope.copy = async function (text, message) {
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      const area = Object.assign(document.createElement("textarea"), { value: text });
      document.body.append(area);
      area.select();
      document.execCommand("copy");
      area.remove();
    }
    gradscope.say(message);
  };

  // Show a message for a moment; screen readers read it out.
  gradscope.say = function (text) {
    const element = document.getElementById("announcement");
    if (!element) return;
    element.textContent = text;
    clearTimeout(gradscope.silence);
    gradscope.silence = setTimeout(() => (element.textContent = ""), 2500);
  };

  window.addEventListener("popstate", function () {
    clearTimeout(timer);
    timer = null;
    pending = {};
    render();
  });

  // Tables read the colour scheme from this attribute.
  function setTableTheme() {
    const scheme = document.documentElement.getAttribute("data-mantine-color-scheme") || "light";
    document.body.dataset.agThemeMode = scheme;
  }
  new MutationObserver(setTableTheme).observe(document.documentElement, {
    attributes: true,
    attributeFilter: ["data-mantine-color-scheme"],
  });
  document.addEventListener("DOMContentLoaded", setTableTheme);
})(window.gradscope);
