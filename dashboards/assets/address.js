// The URL is the state: what it says is shown, and what is changed is written into it.
window.gradscope = window.gradscope || {};

(function (gradscope) {
  let pending = {};
  let timer = null;

  function render() {
    dash_clientside.set_props("address", { data: gradscope.address() });
  }

  function write(params, push) {
    const url = new URL(location.href);
    for (const [key, value] of Object.entries(params)) url.searchParams.set(key, value);
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

  // What the page is made from.
  gradscope.address = function () {
    return {
      path: location.pathname.split("/").pop(),
      query: Object.fromEntries(new URLSearchParams(location.search)),
    };
  };

  // Show another view, without loading the page anew.
  gradscope.go = function (href) {
    flush();
    const url = new URL(href, location.href);
    if (url.origin !== location.origin) return;
    if (url.href !== location.href) history.pushState(null, "", url);
    render();
  };

  // Write parameters into the URL of this view. Scrubbing replaces the entry of the history, choices add one.
  gradscope.update = function (params, push) {
    if (push) {
      flush();
      write(params, true);
      return;
    }
    Object.assign(pending, params);
    if (timer === null) timer = setTimeout(flush, 250); // browsers limit the rate of replaceState
  };

  // Cells' numbers as a hexadecimal number in which bit i stands for cell i.
  gradscope.mask = function (cells) {
    return cells.reduce((bits, cell) => bits | (1n << BigInt(cell)), 0n).toString(16);
  };

  gradscope.asText = function (key, value) {
    if (!Array.isArray(value)) return String(value);
    return key === "cells" ? gradscope.mask(value) : value.join(",");
  };

  // Links into other views carry the cursor along: those of the navigation, with the fields that the page knows.
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

  // Only the focus moves: another address, be it by its fragment alone, would be shown anew.
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

  // To the clipboard; where the page is not served securely, browsers offer only the old way.
  gradscope.copy = async function (text, said) {
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      const area = Object.assign(document.createElement("textarea"), { value: text });
      document.body.append(area);
      area.select();
      document.execCommand("copy");
      area.remove();
    }
    gradscope.say(said);
  };

  // A word to the user, read out by screen readers.
  gradscope.say = function (text) {
    const place = document.getElementById("said");
    if (!place) return;
    place.textContent = text;
    clearTimeout(gradscope.silence);
    gradscope.silence = setTimeout(() => (place.textContent = ""), 2500);
  };

  window.addEventListener("popstate", function () {
    clearTimeout(timer);
    timer = null;
    pending = {};
    render();
  });

  // Tables follow the colour scheme by this attribute.
  function follow() {
    const scheme = document.documentElement.getAttribute("data-mantine-color-scheme") || "light";
    document.body.dataset.agThemeMode = scheme;
  }
  new MutationObserver(follow).observe(document.documentElement, {
    attributes: true,
    attributeFilter: ["data-mantine-color-scheme"],
  });
  document.addEventListener("DOMContentLoaded", follow);
})(window.gradscope);
