"use strict";
// The sample filters. Their state lives in the address (#disagree&malformed&family=count), so that a view can be linked.
(() => {
  const box = document.getElementById("filters");
  if (!box) return;
  const articles = [...document.querySelectorAll("#samples article")];
  const flags = ["disagree", "malformed"];
  const choices = ["family", "setting"].filter((name) => control(name));
  const count = document.getElementById("filter-count");

  function control(name) {
    return document.getElementById(`filter-${name}`);
  }

  function matches(article) {
    return (
      flags.every((name) => !control(name).checked || name in article.dataset) &&
      choices.every((name) => !control(name).value || article.dataset[name] === control(name).value)
    );
  }

  function show() {
    for (const article of articles) article.hidden = !matches(article);
    const shown = articles.filter((article) => !article.hidden).length;
    count.textContent = `${shown} of ${articles.length} samples shown`;
  }

  function read() {
    const state = new URLSearchParams(location.hash.slice(1));
    // An address such as #arms leads to a place on the page and says nothing about filters.
    if (![...state.keys()].some((name) => flags.includes(name) || choices.includes(name))) return;
    for (const name of flags) control(name).checked = state.has(name);
    for (const name of choices) {
      control(name).value = state.get(name) ?? "";
      if (control(name).selectedIndex < 0) control(name).value = "";
    }
  }

  function write() {
    const state = [
      ...flags.filter((name) => control(name).checked),
      ...choices.filter((name) => control(name).value).map((name) => `${name}=${encodeURIComponent(control(name).value)}`),
    ];
    history.replaceState(null, "", `#${state.join("&") || "samples"}`);
    show();
  }

  function reset() {
    for (const name of flags) control(name).checked = false;
    for (const name of choices) control(name).value = "";
    write();
  }

  box.hidden = false;
  box.addEventListener("change", write);
  control("reset").addEventListener("click", reset);
  window.addEventListener("hashchange", () => {
    read();
    show();
  });
  read();
  show();
})();
