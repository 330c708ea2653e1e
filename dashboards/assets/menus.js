// Menus made of <details>: Escape or a click elsewhere closes them.
(function () {
  const open = () => document.querySelectorAll("details.export[open], details.shown-choice[open]");

  document.addEventListener("pointerdown", function (event) {
    if (event.target.closest("[data-portal], [role=listbox]")) return; // the list of a select inside the menu
    for (const menu of open()) if (!menu.contains(event.target)) menu.open = false;
  });

  document.addEventListener("keydown", function (event) {
    if (event.key !== "Escape") return;
    for (const menu of open()) {
      menu.open = false;
      menu.querySelector("summary").focus();
    }
  });
})();

// Typing replaces the text of a searchable select: it is selected by the first click, and by a letter while the list of
// options is closed.
(function () {
  const isSearched = (element) => element.matches && element.matches("input.mantine-Select-input:not([readonly])");
  let entered = null;

  document.addEventListener("focusin", function (event) {
    entered = isSearched(event.target) ? event.target : null;
  });

  document.addEventListener("click", function (event) {
    if (event.target === entered) entered.select(); // a later click moves the caret
    entered = null;
  });

  document.addEventListener(
    "keydown",
    function (event) {
      const isLetter = event.key.length === 1 && !event.ctrlKey && !event.metaKey && !event.altKey;
      if (isLetter && isSearched(event.target) && event.target.dataset.expanded !== "true") {
        event.target.select();
      }
    },
    true, // before the select opens its list
  );
})();
