// What the pages do beside htmx: ages, following a log, what is chosen for a comparison, lost connections.
"use strict";
(() => {
  const MOST_LINES = 5000;
  const chosen = new Set();
  let source = null;

  const ago = (seconds) => {
    for (const [size, unit] of [[86400, "d"], [3600, "h"], [60, "min"]]) {
      if (seconds >= size) return `${Math.round(seconds / size)} ${unit} ago`;
    }
    return `${Math.max(0, Math.round(seconds))} s ago`;
  };
  const showAges = () => {
    for (const element of document.querySelectorAll("time[data-at]")) {
      const text = ago(Date.now() / 1000 - Number(element.dataset.at));
      if (element.textContent !== text) element.textContent = text;
    }
  };

  const showChoice = () => {
    const present = new Set();
    for (const box of document.querySelectorAll("input[name=ids][type=checkbox]")) {
      box.checked = chosen.has(box.value);
      present.add(box.value);
    }
    const button = document.querySelector("[data-compare]");
    const count = [...chosen].filter((id) => present.has(id)).length;
    if (button) button.disabled = count < 2;
  };

  const followEnd = () => {
    const log = document.getElementById("log");
    const follow = document.getElementById("follow");
    if (!log || !follow || !follow.checked) return;
    while (log.childElementCount > MOST_LINES) log.removeChild(log.firstElementChild);
    log.scrollTop = log.scrollHeight;
  };

  const say = (text) => {
    const place = document.getElementById("connection");
    if (place && place.textContent !== text) place.textContent = text;
  };

  const refresh = () => {
    showAges();
    showChoice();
  };

  document.addEventListener("change", (event) => {
    const box = event.target;
    if (box.matches("input[name=ids][type=checkbox]")) {
      if (box.checked) chosen.add(box.value);
      else chosen.delete(box.value);
      showChoice();
    } else if (box.matches("[data-submit]")) {
      box.form.requestSubmit();
    } else if (box.id === "follow") {
      followEnd();
    }
  });

  document.addEventListener("keydown", (event) => {
    const field = document.querySelector(`[data-key="${CSS.escape(event.key)}"]`);
    if (!field || event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input, select, textarea")) return;
    event.preventDefault();
    field.focus();
  });

  document.addEventListener("htmx:sseOpen", (event) => {
    source = event.detail.source;
    say("Live");
  });
  document.addEventListener("htmx:sseError", () => say("Not connected; trying again"));
  document.addEventListener("htmx:sseMessage", () => {
    refresh();
    followEnd();
  });
  document.addEventListener("htmx:afterSettle", refresh);

  // A browser keeps six connections to a server: tabs that nobody sees give theirs back.
  let away = null;
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) {
      away = window.setTimeout(() => {
        if (!source) return;
        source.close();
        source = null;
        say("Paused");
      }, 20000);
    } else {
      window.clearTimeout(away);
      if (document.getElementById("connection").textContent === "Paused") window.location.reload();
    }
  });

  refresh();
  followEnd();
  window.setInterval(showAges, 5000);
})();
