/* Shows on the cards of Pachyderm storages what Label Studio's own cards have no place for: the commit of the last Sync,
 * what changed in it, and why a Sync failed.
 *
 * The storages are read from the answers that the page fetches anyway. A card is found by its "Type: Pachyderm" row and
 * its title; rows are only ever added at the end of its list, so what the page renders itself is left alone. The last
 * page of the dialog, which knows buckets only, is told the repository that was checked.
 *
 * Browsers say "offline" on a machine without a network, and the dialog then waits for ever before it asks the server. A
 * page that came from the machine itself can always ask it. */
(function () {
  "use strict";
  if (/^(localhost|127\.[\d.]+|\[::1\])$/.test(window.location.hostname)) {
    Object.defineProperty(window.navigator, "onLine", { get: () => true });
  }

  const known = { import: new Map(), export: new Map() };

  function learn(url, body) {
    const path = new URL(url, window.location.href).pathname;
    const found = path.match(/\/api\/storages\/?(export)?\/?(pachyderm)?\/?(\d+)?\/?(sync)?\/?$/);
    if (!found) return;
    const kind = found[1] ? "export" : "import";
    const storages = (Array.isArray(body) ? body : [body]).filter((one) => one && one.type === "pachyderm");
    if (Array.isArray(body)) known[kind].clear();
    storages.forEach((one) => known[kind].set(one.id, one));
    window.requestAnimationFrame(draw);
  }

  let checked = "";

  const fetchStock = window.fetch;
  window.fetch = function (resource, options) {
    const answer = fetchStock.apply(this, arguments);
    const url = resource && resource.url ? resource.url : String(resource);
    if (/\/api\/storages\/(export\/)?pachyderm\/validate/.test(url)) {
      try { checked = JSON.parse(options.body).repository || ""; } catch (error) { checked = ""; }
    }
    if (url.includes("/api/storages")) {
      answer.then((response) => response.clone().json()).then((body) => learn(url, body)).catch(() => {});
    }
    return answer;
  };

  function rowsOf(kind, storage) {
    const meta = storage.meta || {};
    const rows = [["Repository", storage.repository]];
    if (storage.status === "failed") rows.push(["Reason", String(storage.traceback || "").split("\n")[0]]);
    if (kind === "import") {
      if (storage.imported_commit) rows.push(["Commit", storage.imported_commit]);
      if (meta.removed) rows.push(["Removed", `${meta.removed} files are gone from the repository, their tasks stay`]);
      return rows;
    }
    if (storage.last_commit) rows.push(["Commit", storage.last_commit]);
    if (storage.status.startsWith("completed")) {
      const changes = `+${meta.added} ~${meta.changed} -${meta.deleted} labels by ${meta.by}`;
      rows.push(["Last change", meta.commit ? changes : "nothing new, no commit"]);
      if (meta.note) rows.push(["Note", meta.note]);
    }
    return rows;
  }

  function titleOf(list) {
    // Climb to the card: the first ancestor that holds more text than the list, its first line is the title.
    for (let node = list.parentElement; node; node = node.parentElement) {
      const first = node.innerText.trim().split("\n")[0].trim();
      if (first && first !== "Type" && !first.startsWith("Type")) return first;
    }
    return "";
  }

  function draw() {
    const counted = new Map();
    document.querySelectorAll("dt").forEach((term) => {
      const value = term.nextElementSibling;
      if (term.textContent.trim() !== "Type" || !value || value.textContent.trim().toLowerCase() !== "pachyderm") return;
      const list = term.parentElement;
      const kind = Array.from(list.querySelectorAll("dt")).some((one) => one.textContent.startsWith("Annotations"))
        ? "export" : "import";
      const title = titleOf(list);
      const same = Array.from(known[kind].values()).filter((one) => (one.title || "Untitled pachyderm") === title);
      const key = `${kind} ${title}`;
      const index = counted.get(key) || 0;
      counted.set(key, index + 1);
      if (same[index]) fill(list, term, value, rowsOf(kind, same[index]));
    });
  }

  function fill(list, term, value, rows) {
    const wanted = JSON.stringify(rows);
    if (list.dataset.howdah === wanted) return;
    list.dataset.howdah = wanted;
    list.querySelectorAll("[data-howdah-row]").forEach((node) => node.remove());
    rows.forEach(([name, text]) => {
      const dt = document.createElement("dt");
      const dd = document.createElement("dd");
      dt.className = term.className;
      dd.className = value.className;
      dt.textContent = name;
      dd.textContent = text;
      dd.style.overflowWrap = "anywhere";
      [dt, dd].forEach((node) => { node.dataset.howdahRow = name; list.appendChild(node); });
    });
  }

  function review() {
    if (!checked) return;
    document.querySelectorAll("p, dt, dd, span, div").forEach((node) => {
      if (node.childElementCount || node.textContent !== "Storage Location") return;
      const value = node.nextElementSibling;
      if (value && !value.childElementCount && value.textContent === "Not specified") value.textContent = checked;
    });
  }

  let waiting = false;
  new MutationObserver(() => {
    if (waiting || !window.location.pathname.includes("/settings/storage")) return;
    waiting = true;
    window.requestAnimationFrame(() => { waiting = false; draw(); review(); });
  }).observe(document.documentElement, { childList: true, subtree: true });
})();
