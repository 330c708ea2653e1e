// Buttons that copy a text.
document.addEventListener("click", function (event) {
  const button = event.target.closest && event.target.closest("[data-copy]");
  if (button) window.gradscope.copy(document.getElementById(button.dataset.copy).textContent, "copied");
});
