"use strict";
// Pointing at a word lights its region, and pointing at a region lights its words: both carry the same data-region.
for (const figure of document.querySelectorAll("svg.figure")) {
  const light = (event) => {
    const here = event.target.closest("[data-region]");
    const region = here && figure.contains(here) ? here.dataset.region : undefined;
    figure.classList.toggle("focused", region !== undefined);
    for (const part of figure.querySelectorAll("[data-region]")) {
      part.classList.toggle("lit", part.dataset.region === region);
    }
  };
  const dark = () => {
    const focused = figure.querySelector("[data-region]:focus-visible");
    if (focused) {
      light({ target: focused });
      return;
    }
    figure.classList.remove("focused");
    for (const part of figure.querySelectorAll(".lit")) {
      part.classList.remove("lit");
    }
  };
  figure.addEventListener("pointerover", light);
  figure.addEventListener("pointerleave", dark);
  figure.addEventListener("focusin", light);
  figure.addEventListener("focusout", dark);
}
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && document.activeElement instanceof SVGElement) {
    document.activeElement.blur();
  }
});
