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

// Select the text of a searchable select when it gets the focus, so that typing replaces it.
(function () {
  let entered = null;

  document.addEventListener("focusin", function (event) {
    entered = event.target.matches("input.mantine-Select-input:not([readonly])") ? event.target : null;
    if (entered) entered.select();
  });

  // A click puts a caret into the text; only the first one selects.
  document.addEventListener("click", function (event) {
    if (event.target === entered) entered.select();
    entered = null;
  });
})();
