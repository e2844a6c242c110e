// Levels that stay up to date: texts and widths only, so that nothing from the ledger becomes markup.
"use strict";
{
  const EVERY = 5000; // milliseconds
  const region = document.querySelector("[data-live]");
  const button = region?.querySelector("[data-live-switch]");
  const note = region?.querySelector("[data-live-note]");
  let on = true;

  function show(row, level) {
    for (const part of ["left", "held", "full", "state"]) {
      row.querySelector(`[data-part="${part}"]`).textContent = level[part];
    }
    row.querySelector('[data-part="bar"]').setAttribute("width", 100 * level.share);
    row.dataset.state = level.state;
  }

  async function refresh() {
    if (!on || document.hidden) return;
    try {
      const answer = await fetch(region.dataset.live);
      if (!answer.ok) throw new Error(answer.status);
      const levels = await answer.json();
      for (const row of region.querySelectorAll("tr[data-level]")) {
        const level = levels[row.dataset.level];
        if (level) show(row, level);
      }
      note.textContent = "";
    } catch {
      note.textContent = "These are not up to date: the server does not answer.";
    }
  }

  if (region?.querySelector("tr[data-level]")) {
    button.hidden = false;
    button.addEventListener("click", () => {
      on = !on;
      button.textContent = on ? "Pause updates" : "Resume updates";
      refresh();
    });
    setInterval(refresh, EVERY);
    document.addEventListener("visibilitychange", refresh);
  }
}
