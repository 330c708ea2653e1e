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
