"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const byId = (id) => document.getElementById(id);
  const cards = byId("cards");
  const pairs = data.pairs.map((pair, rank) => ({ ...pair, rank, card: byId(`pair-${pair.place}`) }));
  const ofCard = new Map(pairs.map((pair) => [pair.card, pair]));
  const RATINGS = ["good", "doubtful", "bad"];
  let current = null;
  let filter = "all";
  let timer = null;

  // What a person said of a result of a pair. A pair that was aligned anew with another result has another key, so that an
  // old rating never passes for one of the new result.
  const PREFIX = `dnet-registration/${data.cohort}/`;
  const keyOf = (pair) => `${PREFIX}${pair.result}/${pair.name}`;
  const memory = new Map();
  const store = (() => {
    try {
      const probe = `${PREFIX}probe`;
      localStorage.setItem(probe, "1");
      localStorage.removeItem(probe);
      return localStorage;
    } catch {
      return null;
    }
  })();
  byId("unkept").hidden = store !== null;

  function parsed(text) {
    try {
      const value = JSON.parse(text);
      const rating = RATINGS.includes(value.rating) ? value.rating : "";
      return { rating, note: String(value.note ?? ""), at: String(value.at ?? "") };
    } catch {
      return { rating: "", note: "", at: "" };
    }
  }
  const ratingOf = (pair) => parsed(memory.get(keyOf(pair)) ?? (store && store.getItem(keyOf(pair))));

  function put(key, value) {
    const text = JSON.stringify(value);
    try {
      if (!store) throw new Error("nothing is kept");
      store.setItem(key, text);
      memory.delete(key);
    } catch {
      memory.set(key, text);
      byId("unkept").hidden = false;
    }
  }

  function keep(pair, change) {
    put(keyOf(pair), { ...ratingOf(pair), ...change, at: new Date().toISOString() });
    showRating(pair);
    count();
  }

  function showRating(pair) {
    const { rating, note } = ratingOf(pair);
    for (const button of pair.card.querySelectorAll("[data-rating]"))
      button.setAttribute("aria-pressed", String(button.dataset.rating === rating));
    const field = pair.card.querySelector("textarea");
    if (field.value !== note) field.value = note;
    const earlier = pair.card.querySelector(".earlier");
    earlier.hidden = rating !== "" || !pair.earlier;
    earlier.textContent = pair.earlier ? `An earlier result of this pair was rated ${pair.earlier}.` : "";
  }

  function findEarlier() {
    const last = new Map();
    for (const key of new Set([...memory.keys(), ...Object.keys(store ?? {})])) {
      if (!key.startsWith(PREFIX)) continue;
      const [result, ...name] = key.slice(PREFIX.length).split("/");
      const value = parsed(memory.get(key) ?? store.getItem(key));
      const known = last.get(name.join("/")) ?? [];
      if (value.rating) last.set(name.join("/"), [...known, { result, ...value }]);
    }
    for (const pair of pairs) {
      const others = (last.get(pair.name) ?? []).filter((one) => one.result !== pair.result);
      others.sort((a, b) => (a.at < b.at ? 1 : -1));
      pair.earlier = others.length ? others[0].rating : "";
    }
  }

  function rate(pair, rating) {
    keep(pair, { rating: ratingOf(pair).rating === rating ? "" : rating });
    const now = ratingOf(pair).rating;
    byId("said").textContent = now ? `${pair.name} rated ${now}` : `${pair.name} not rated`;
  }

  // Which pairs are shown.
  const FILTERS = {
    all: () => true,
    look: (pair) => pair.look,
    accepted: (pair) => pair.status === "accepted",
    refused: (pair) => pair.status === "refused",
    failed: (pair) => pair.status === "failed",
    unrated: (pair) => !ratingOf(pair).rating,
  };

  function show() {
    const words = byId("search").value.toLowerCase().split(/\s+/).filter(Boolean);
    for (const pair of pairs) {
      const said = `${pair.words}\n${ratingOf(pair).note.toLowerCase()}`;
      pair.card.hidden = !FILTERS[filter](pair) || !words.every((word) => said.includes(word));
    }
    for (const button of byId("filters").children)
      button.setAttribute("aria-pressed", String(button.dataset.filter === filter));
    byId("empty").hidden = pairs.some((pair) => !pair.card.hidden);
    if (current && current.card.hidden) choose(null);
  }

  function count() {
    for (const button of byId("filters").children)
      button.querySelector("span").textContent = pairs.filter(FILTERS[button.dataset.filter]).length;
    const rated = pairs.filter((pair) => ratingOf(pair).rating).length;
    byId("done").textContent = `${rated} of ${pairs.length} rated`;
  }

  function order(by) {
    const missing = by === "expected_error_um" ? Infinity : -Infinity;
    const sign = by === "expected_error_um" ? -1 : 1;
    const value = (pair) => (by === "look" ? pair.rank : (pair[by] ?? missing));
    const sorted = [...pairs].sort((a, b) => {
      const [x, y] = [value(a), value(b)];
      return x === y ? a.rank - b.rank : sign * (x < y ? -1 : 1);
    });
    cards.append(...sorted.map((pair) => pair.card));
  }

  // The pair at hand.
  function choose(pair, scroll = true) {
    if (current) current.card.removeAttribute("aria-current");
    for (const point of document.querySelectorAll(".point.on")) point.classList.remove("on");
    current = pair;
    if (!pair) return;
    pair.card.setAttribute("aria-current", "true");
    for (const point of document.querySelectorAll(`.point[data-place="${pair.place}"]`)) point.classList.add("on");
    if (scroll) {
      pair.card.scrollIntoView({ block: "start" });
      pair.card.focus({ preventScroll: true });
    }
  }

  function step(by) {
    const shown = [...cards.children].filter((card) => !card.hidden);
    if (!shown.length) return;
    const place = current ? shown.indexOf(current.card) + by : by > 0 ? 0 : shown.length - 1;
    choose(ofCard.get(shown[Math.min(Math.max(place, 0), shown.length - 1)]));
  }

  // Keys that lead out of a field: Escape back to the pair at hand, Enter from the search to the first pair found.
  function leave(field, event) {
    const searches = field === byId("search");
    if (event.key !== "Escape" && !(searches && event.key === "Enter")) return;
    event.preventDefault();
    if (searches && event.key === "Escape") {
      field.value = "";
      show();
    }
    field.blur();
    if (event.key === "Enter") {
      choose(null);
      step(1);
    } else if (current) current.card.focus({ preventScroll: true });
  }

  function goto(place) {
    const pair = pairs.find((one) => one.place === place);
    if (!pair) return;
    if (pair.card.hidden) {
      filter = "all";
      byId("search").value = "";
      show();
    }
    choose(pair);
  }

  function flicker(pair) {
    const button = pair && pair.card.querySelector(".flicker");
    if (!button) return;
    load(pair.card);
    const first = button.classList.toggle("first");
    byId("said").textContent = first ? "before" : "after";
  }

  function play() {
    if (timer) clearInterval(timer);
    timer = timer ? null : setInterval(() => current && current.card.querySelector(".flicker")?.classList.toggle("first"), 600);
    byId("play").setAttribute("aria-pressed", String(timer !== null));
    if (timer && !current) step(1);
  }

  // Pictures are decoded when their pair comes near.
  function load(card) {
    const held = card.querySelector("script.pictures");
    if (!held) return;
    const pictures = JSON.parse(held.textContent);
    for (const [name, place] of [["before", "img.before"], ["after", "img.after"], ["cartilage", "img.map"]]) {
      const image = card.querySelector(place);
      if (image && pictures[name]) image.src = pictures[name];
    }
    held.remove();
  }
  const watcher = new IntersectionObserver(
    (entries) => {
      for (const entry of entries)
        if (entry.isIntersecting) {
          load(entry.target);
          watcher.unobserve(entry.target);
        }
    },
    { rootMargin: "1200px 0px" },
  );
  for (const pair of pairs) watcher.observe(pair.card);
  new ResizeObserver(([bar]) => {
    document.documentElement.style.setProperty("--bar", `${bar.target.offsetHeight}px`);
  }).observe(byId("bar"));
  addEventListener("beforeprint", () => pairs.forEach((pair) => load(pair.card)));

  // A cell that a spreadsheet would take for a formula is text, by an apostrophe before it.
  const FORMULA = /^'*[=+\-@\t\r\n]/;
  function cell(value) {
    const text = String(value ?? "");
    const safe = FORMULA.test(text) ? `'${text}` : text;
    return /[",\r\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
  }

  function csv() {
    const rows = [["pair", "rating", "note", "rated_at", "status", "result", "fixed", "moving"]];
    const sorted = [...pairs].sort((a, b) => a.place - b.place);
    for (const pair of sorted) {
      const { rating, note, at } = ratingOf(pair);
      rows.push([pair.name, rating, note, rating || note ? at : "", pair.status, pair.result, pair.fixed, pair.moving]);
    }
    return rows.map((row) => row.map(cell).join(",")).join("\r\n") + "\r\n";
  }

  function save() {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([csv()], { type: "text/csv;charset=utf-8" }));
    link.download = "ratings.csv";
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  }

  // The rows of a file that `save` wrote, also where a spreadsheet saved it again; null if it is another one.
  function rowsOf(text) {
    const separator = /^"?pair"?([,;\t])/.exec(text)?.[1];
    if (!separator) return null;
    const rows = [[""]];
    for (const [token, quoted] of text.matchAll(/"((?:[^"]|"")*)"|[^"\r\n,;\t]+|\r\n?|\n|[,;\t"]/g)) {
      const row = rows.at(-1);
      if (token[0] === "\r" || token[0] === "\n") rows.push([""]);
      else if (token === separator) row.push("");
      else row[row.length - 1] += quoted === undefined ? token : quoted.replaceAll('""', '"');
    }
    const plain = (text) => (FORMULA.test(text) && text.startsWith("'") ? text.slice(1) : text);
    const [names, ...others] = rows;
    return others.map((row) => Object.fromEntries(names.map((name, index) => [name, plain(row[index] ?? "")])));
  }

  // A rating of this result counts unless a later one is here; one of another result is told as an earlier one.
  function take(rows) {
    const byName = new Map(pairs.map((pair) => [pair.name, pair]));
    const counts = { loaded: 0, older: 0, "of other results": 0, "of pairs that are not here": 0 };
    for (const { pair: name, rating, note, rated_at: at, result } of rows) {
      if (!rating && !note) continue;
      const pair = byName.get(name);
      const same = pair?.result === result;
      const old = pair && parsed(memory.get(`${PREFIX}${result}/${name}`) ?? store?.getItem(`${PREFIX}${result}/${name}`));
      const older = old && (old.rating || old.note) && old.at > at;
      if (pair && !older) put(`${PREFIX}${result}/${name}`, { rating, note, at });
      counts[!pair ? "of pairs that are not here" : !same ? "of other results" : older ? "older" : "loaded"] += 1;
    }
    const [[, loaded], ...others] = Object.entries(counts);
    const more = others.filter(([, number]) => number).map(([what, number]) => `; ${number} ${what}`);
    return `${loaded} ${loaded === 1 ? "rating" : "ratings"} loaded${more.join("")}.`;
  }

  async function loadRatings(file) {
    const bytes = await file.arrayBuffer();
    let text;
    try {
      text = new TextDecoder("utf-8", { fatal: true }).decode(bytes);
    } catch {
      text = new TextDecoder("windows-1252").decode(bytes); // as spreadsheets save
    }
    const rows = rowsOf(text);
    byId("loaded").textContent = rows ? take(rows) : `${file.name} holds no ratings that this page saved.`;
    refresh();
  }

  function refresh() {
    findEarlier();
    pairs.forEach(showRating);
    count();
    show();
  }

  // What a person does.
  byId("filters").addEventListener("click", (event) => {
    const button = event.target.closest("[data-filter]");
    if (!button) return;
    filter = button.dataset.filter;
    show();
  });
  byId("search").addEventListener("input", show);
  byId("order").addEventListener("change", (event) => order(event.target.value));
  byId("play").addEventListener("click", play);
  byId("save").addEventListener("click", save);
  byId("load").addEventListener("change", (event) => {
    const [file] = event.target.files;
    if (file) loadRatings(file);
    event.target.value = ""; // so that the same file can be chosen again
    event.target.blur(); // so that keys rate
  });
  byId("copy").addEventListener("click", () => {
    getSelection().selectAllChildren(byId("methods"));
    byId("copied").textContent = document.execCommand("copy") ? "Copied." : "Selected: copy it with the keyboard.";
  });
  document.querySelector(".plot")?.addEventListener("click", (event) => {
    const point = event.target.closest(".point");
    if (!point) return;
    event.preventDefault();
    goto(Number(point.dataset.place));
  });
  cards.addEventListener("click", (event) => {
    const pair = ofCard.get(event.target.closest(".card"));
    if (!pair) return;
    if (pair !== current) choose(pair, false);
    const button = event.target.closest("button");
    if (!button) return;
    if (button.classList.contains("flicker")) flicker(pair);
    else rate(pair, button.dataset.rating);
  });
  cards.addEventListener("input", (event) => {
    const pair = ofCard.get(event.target.closest(".card"));
    if (pair && event.target.matches("textarea")) keep(pair, { note: event.target.value });
  });
  cards.addEventListener("focusin", (event) => {
    const pair = ofCard.get(event.target.closest(".card"));
    if (pair && pair !== current) choose(pair, false);
  });
  addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const writes = event.target.closest("textarea, input, select");
    if (writes) {
      leave(writes, event);
      return;
    }
    const keys = {
      j: () => step(1),
      k: () => step(-1),
      f: () => flicker(current),
      p: play,
      n: () => current && current.card.querySelector("textarea").focus(),
      "/": () => byId("search").focus(),
      1: () => current && rate(current, "good"),
      2: () => current && rate(current, "doubtful"),
      3: () => current && rate(current, "bad"),
    };
    if (!Object.hasOwn(keys, event.key)) return;
    event.preventDefault();
    keys[event.key]();
  });
  // Another tab of this page rated something.
  addEventListener("storage", () => {
    pairs.forEach(showRating);
    count();
  });

  refresh();
  const asked = /^#pair-(\d+)$/.exec(location.hash);
  if (asked) goto(Number(asked[1]));
})();
