"use strict";
// The sample browser. Samples are text of strangers: they reach the page by textContent alone.
(() => {
  const root = document.documentElement;
  root.classList.remove("no-script");
  const find = (id) => document.getElementById(id);

  // --- theme and print ---

  const themes = ["system", "light", "dark"];
  let theme = 0;
  const useTheme = () => {
    if (theme === 0) delete root.dataset.theme;
    else root.dataset.theme = themes[theme];
    find("theme").textContent = `Theme: ${themes[theme]}`;
  };
  find("theme").addEventListener("click", () => {
    theme = (theme + 1) % themes.length;
    useTheme();
  });
  let closed = [];
  addEventListener("beforeprint", () => {
    closed = [...document.querySelectorAll("details:not([open])")];
    for (const one of closed) one.open = true;
  });
  addEventListener("afterprint", () => {
    for (const one of closed) one.open = false;
  });

  if (!find("list")) return;

  // --- data ---

  const about = JSON.parse(find("about").textContent);
  const { sets, runs } = about;
  const listTexts = [...document.querySelectorAll(".list-data")];
  const chunkTexts = [...document.querySelectorAll(".chunk-data")];
  const chunks = new Map(); // number -> promise of its samples
  const ready = new Map(); // number -> its samples, once they are there

  const unpack = async (element) => {
    const packed = atob(element.textContent.trim());
    const bytes = new Uint8Array(packed.length);
    for (let i = 0; i < packed.length; i += 1) bytes[i] = packed.charCodeAt(i);
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
    return JSON.parse(await new Response(stream).text());
  };
  const chunk = (number) => {
    if (!chunks.has(number)) {
      chunks.set(number, unpack(chunkTexts[number]).then((samples) => {
        ready.set(number, samples);
        return samples;
      }));
    }
    return chunks.get(number);
  };

  // A row is [set, position in the set's lists]; `rows` are all, `shown` those that the filters leave.
  let rows = [];
  let shown = [];
  let selected = 0;
  const lists = [];

  const whereText = (set, position) => {
    let first = 0;
    for (const [number, count] of sets[set].chunks) {
      if (position < first + count) return [number, position - first];
      first += count;
    }
    return null;
  };
  const textNow = ([set, position]) => {
    const where = whereText(set, position);
    return where && ready.has(where[0]) ? ready.get(where[0])[where[1]] : null;
  };
  const text = async ([set, position]) => {
    const where = whereText(set, position);
    return where ? (await chunk(where[0]))[where[1]] : null;
  };

  const metricPlace = (set) => {
    const wanted = sets[set].metrics.indexOf(find("metric").value);
    return wanted < 0 ? 0 : wanted;
  };
  const value = ([set, position], run) => {
    const place = sets[set].runs.indexOf(run);
    const values = lists[set].values[metricPlace(set)];
    return place < 0 || !values ? null : values[place][position];
  };
  const spread = (row) => {
    const known = runs.map((_, run) => value(row, run)).filter((one) => one !== null);
    return known.length > 1 ? Math.max(...known) - Math.min(...known) : 0;
  };
  const EQUAL = 1e-9;

  // --- small parts ---

  const make = (tag, name, content) => {
    const element = document.createElement(tag);
    if (name) element.className = name;
    if (content !== undefined) element.textContent = content;
    return element;
  };
  const option = (select, name, label) => {
    const made = make("option", "", label);
    made.value = name;
    select.append(made);
  };
  const setName = (set) => {
    const { key, task, filter } = sets[set];
    const parts = [key];
    if (task !== key) parts.push(task);
    if (filter !== "none") parts.push(filter);
    return parts.join(" · ");
  };
  const shownValue = (one) => (one === null ? "–" : String(one));
  const words = () => find("search").value.toLowerCase().split(/\s+/).filter(Boolean);
  const plural = (count) => `${count.toLocaleString("en")} ${count === 1 ? "sample" : "samples"}`;

  // --- filters ---

  const passes = {
    all: () => true,
    changed: (row) => spread(row) > EQUAL,
    above: (row, run) => value(row, run) !== null && value(row, 0) !== null && value(row, run) > value(row, 0) + EQUAL,
    below: (row, run) => value(row, run) !== null && value(row, 0) !== null && value(row, run) < value(row, 0) - EQUAL,
    zero: (row, run) => value(row, run) === 0,
    more: (row, run) => value(row, run) !== null && value(row, run) > 0,
    none: (row, run) => sets[row[0]].runs.includes(run) && value(row, run) === null,
  };
  const fillSelects = () => {
    option(find("set"), "", `all (${sets.length})`);
    sets.forEach((set, place) => option(find("set"), String(place), `${setName(place)} (${set.n.toLocaleString("en")})`));
    const show = find("show");
    option(show, "all", "all");
    if (runs.length > 1) option(show, "changed", "scored differently");
    runs.forEach((run, place) => {
      if (place) option(show, `above ${place}`, `${run.mark} above ${runs[0].mark}`);
      if (place) option(show, `below ${place}`, `${run.mark} below ${runs[0].mark}`);
    });
    runs.forEach((run, place) => {
      option(show, `zero ${place}`, `${run.mark} scored 0`);
      option(show, `more ${place}`, `${run.mark} scored above 0`);
      option(show, `none ${place}`, `${run.mark} has no score`);
    });
    const order = find("order");
    option(order, "file", "as in the data");
    if (runs.length > 1) option(order, "changed", "changed most first");
    runs.forEach((run, place) => {
      option(order, `low ${place}`, `lowest ${run.mark} first`);
      option(order, `high ${place}`, `highest ${run.mark} first`);
    });
  };
  const fillMetrics = () => {
    const select = find("metric");
    const before = select.value;
    const set = find("set").value;
    const metrics = set === "" ? [...new Set(sets.flatMap((one) => one.metrics))] : sets[Number(set)].metrics;
    select.replaceChildren();
    if (set === "") option(select, "", "first of each task");
    for (const metric of metrics) option(select, metric, metric);
    if ([...select.options].some((one) => one.value === before)) select.value = before;
  };
  const matching = () => {
    const set = find("set").value;
    const [kind, run] = find("show").value.split(" ");
    return rows.filter((row) => (set === "" || row[0] === Number(set)) && passes[kind](row, Number(run)));
  };
  const ordered = (found) => {
    const [kind, run] = find("order").value.split(" ");
    if (kind === "file") return found;
    const missing = kind === "low" ? Infinity : -Infinity;
    const key = new Map(found.map((row) => {
      if (kind === "changed") return [row, -spread(row)];
      const known = value(row, Number(run)) ?? missing;
      return [row, kind === "low" ? known : -known];
    }));
    return [...found].sort((one, other) => (key.get(one) === key.get(other) ? 0 : key.get(one) - key.get(other)));
  };

  // --- search: through all texts, a chunk at a time, newest wish only ---

  let wish = 0;
  const haystacks = new Map();
  const haystack = (number, place, sample) => {
    const key = number * 65536 + place;
    if (!haystacks.has(key)) haystacks.set(key, sample.flat(3).filter(Boolean).join("\n").toLowerCase());
    return haystacks.get(key);
  };
  const narrow = async (found, wanted, mine) => {
    const kept = [];
    let last = performance.now();
    for (const row of found) {
      const where = whereText(...row);
      const id = String(lists[row[0]].ids[row[1]]).toLowerCase();
      let all = id;
      if (where) {
        const samples = ready.get(where[0]) ?? (await chunk(where[0]));
        if (mine !== wish) return null;
        all += `\n${haystack(where[0], where[1], samples[where[1]])}`;
      }
      if (wanted.every((word) => all.includes(word))) kept.push(row);
      if (performance.now() - last > 40) {
        find("found").textContent = `Searching … ${plural(kept.length)} so far`;
        await new Promise((resolve) => setTimeout(resolve));
        if (mine !== wish) return null;
        last = performance.now();
      }
    }
    return kept;
  };
  const refresh = async (keep) => {
    wish += 1;
    const mine = wish;
    root.dataset.samples = "busy";
    const wanted = words();
    let found = matching();
    if (wanted.length) found = await narrow(found, wanted, mine);
    if (found === null) return;
    shown = ordered(found);
    const place = keep ? shown.indexOf(keep) : -1;
    selected = Math.max(0, place);
    const silent = wanted.length && about.without_text ? `, not searched: texts of ${plural(about.without_text)} that are not in this file` : "";
    find("found").textContent = `${plural(shown.length)} of ${rows.length.toLocaleString("en")}${silent}`;
    find("list").scrollTop = 0;
    draw();
    select(selected);
    root.dataset.samples = "ready";
  };

  // --- the list: only rows in sight exist ---

  const ROW = 58;
  const list = find("list");
  const space = make("div");
  space.setAttribute("role", "presentation");
  list.append(space);
  const drawn = new Map();

  const snippet = (sample) => {
    const prompt = (Array.isArray(sample[0]) ? sample[0].find(Boolean) : sample[0]) ?? "";
    const blocks = prompt.split(/\n\s*\n/).map((one) => one.trim()).filter(Boolean);
    return (blocks.at(-1) ?? "").replace(/\s+/g, " ").slice(0, 200);
  };
  const drawRow = (place) => {
    const row = shown[place];
    const element = make("div", "row");
    element.id = `row-${place}`;
    element.setAttribute("role", "option");
    element.setAttribute("aria-setsize", shown.length);
    element.setAttribute("aria-posinset", place + 1);
    element.setAttribute("aria-selected", place === selected);
    element.style.transform = `translateY(${place * ROW}px)`;
    const top = make("div", "top");
    const name = make("span", "name", `${setName(row[0])} #${lists[row[0]].ids[row[1]]}`);
    const chips = make("span", "chips");
    runs.forEach((run, at) => {
      if (!sets[row[0]].runs.includes(at)) return;
      const own = value(row, at);
      const base = value(row, 0);
      const moved = at && own !== null && base !== null && Math.abs(own - base) > EQUAL ? (own > base ? " ▲" : " ▼") : "";
      const chip = make("span", "chip");
      chip.append(make("b", "", run.mark), shownValue(own) + moved);
      chips.append(chip);
    });
    top.append(name, chips);
    const line = make("div", "snippet", "…");
    line.dir = "auto";
    const where = whereText(...row);
    if (!where) line.textContent = "text left out";
    else if (ready.has(where[0])) line.textContent = snippet(textNow(row));
    else text(row).then((sample) => { line.textContent = snippet(sample); });
    element.append(top, line);
    element.addEventListener("click", () => {
      select(place);
      if (matchMedia("(max-width: 720px)").matches) find("detail").scrollIntoView();
    });
    return element;
  };
  const draw = () => {
    for (const element of drawn.values()) element.remove();
    drawn.clear();
    space.style.height = `${shown.length * ROW}px`;
    fill();
  };
  const fill = () => {
    const first = Math.max(0, Math.floor(list.scrollTop / ROW) - 4);
    const last = Math.min(shown.length, Math.ceil((list.scrollTop + list.clientHeight) / ROW) + 4);
    for (const [place, element] of drawn) {
      if ((place < first || place >= last) && place !== selected) {
        element.remove();
        drawn.delete(place);
      }
    }
    for (let place = first; place < last; place += 1) {
      if (!drawn.has(place)) {
        drawn.set(place, drawRow(place));
        space.append(drawn.get(place));
      }
    }
  };
  list.addEventListener("scroll", () => requestAnimationFrame(fill), { passive: true });
  addEventListener("resize", () => requestAnimationFrame(fill));

  // --- one sample ---

  const marked = (element, content, wanted) => {
    // What was searched for, marked: pieces of text, never markup.
    const lower = content.toLowerCase();
    if (!wanted.length || lower.length !== content.length) {
      element.textContent = content;
      return;
    }
    let at = 0;
    for (let pieces = 0; pieces < 400; pieces += 1) {
      const hits = wanted.map((word) => [lower.indexOf(word, at), word.length]).filter(([hit]) => hit >= 0);
      if (!hits.length) break;
      const [hit, length] = hits.reduce((one, other) => (other[0] < one[0] ? other : one));
      element.append(content.slice(at, hit), make("mark", "", content.slice(hit, hit + length)));
      at = hit + length;
    }
    element.append(content.slice(at));
  };
  const block = (title, content, wanted) => {
    const part = make("div");
    part.append(make("h4", "", title));
    const pre = make("pre");
    pre.dir = "auto";
    pre.tabIndex = 0;
    pre.setAttribute("aria-label", title);
    if (content === null || content === undefined) pre.textContent = "not in this run";
    else if (content === "") pre.textContent = "(empty)";
    else marked(pre, content, wanted);
    part.append(pre);
    return part;
  };
  const perRun = (title, contents, row, wanted) => {
    if (!Array.isArray(contents)) return [block(title, contents, wanted)];
    const grid = make("div", "answers");
    sets[row[0]].runs.forEach((run, place) => grid.append(block(`${title}, ${runs[run].mark}`, contents[place], wanted)));
    return [grid];
  };
  const scoreTable = (row) => {
    const set = sets[row[0]];
    const table = make("table", "tight");
    const head = make("tr");
    head.append(make("th", "", "metric"), ...set.runs.map((run) => make("th", "number", runs[run].mark)));
    const body = set.metrics.map((metric, place) => {
      const line = make("tr");
      const cells = set.runs.map((_, at) => make("td", "number", shownValue(lists[row[0]].values[place][at][row[1]])));
      line.append(make("td", "", metric), ...cells);
      return line;
    });
    table.append(head, ...body);
    return table;
  };
  const answers = (contents, row, wanted) => {
    const set = sets[row[0]];
    const grid = make("div", "answers");
    set.runs.forEach((run, place) => {
      const content = contents[place];
      if (!Array.isArray(content)) grid.append(block(`Answer of ${runs[run].mark}`, content, wanted));
      else content.forEach((one, at) => grid.append(block(`Answer of ${runs[run].mark} by ${set.metrics[at]}`, one, wanted)));
    });
    return grid;
  };
  let looking = 0;
  const show = async (row) => {
    looking += 1;
    const mine = looking;
    const detail = find("detail");
    if (!row) {
      detail.replaceChildren(make("p", "quiet", "No sample fits. Clear the search, or show all."));
      return;
    }
    const sample = await text(row);
    if (mine !== looking) return;
    const head = make("h3", "", `${setName(row[0])} #${lists[row[0]].ids[row[1]]}`);
    if (!sample) {
      detail.replaceChildren(head, scoreTable(row), make("p", "quiet", "The text of this sample was left out to keep the file small."));
      return;
    }
    const [prompt, target, said] = sample;
    const wanted = words();
    detail.replaceChildren(
      head,
      scoreTable(row),
      answers(said, row, wanted),
      ...perRun("Target", target, row, wanted),
      ...perRun("Prompt", prompt, row, wanted),
    );
  };
  const select = (place) => {
    selected = Math.max(0, Math.min(shown.length - 1, place));
    const top = selected * ROW;
    if (shown.length && top < list.scrollTop) list.scrollTop = top;
    else if (top + ROW > list.scrollTop + list.clientHeight) list.scrollTop = top + ROW - list.clientHeight;
    fill();
    for (const [at, element] of drawn) element.setAttribute("aria-selected", at === selected);
    if (shown.length) list.setAttribute("aria-activedescendant", `row-${selected}`);
    else list.removeAttribute("aria-activedescendant");
    show(shown[selected]);
  };

  // --- keys ---

  const page = () => Math.max(1, Math.floor(list.clientHeight / ROW) - 1);
  const moves = {
    ArrowDown: () => selected + 1,
    ArrowUp: () => selected - 1,
    PageDown: () => selected + page(),
    PageUp: () => selected - page(),
    Home: () => 0,
    End: () => shown.length - 1,
  };
  list.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key in moves) {
      event.preventDefault();
      select(moves[event.key]());
    } else if (event.key === "Enter") {
      event.preventDefault();
      find("detail").focus();
    }
  });
  addEventListener("keydown", (event) => {
    const typing = event.target.closest("input, select, textarea");
    if (event.key !== "/" || typing || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    find("search").focus();
    find("search").select();
  });
  find("detail").addEventListener("keydown", (event) => {
    if (event.key === "Escape") list.focus();
  });
  let pause;
  find("search").addEventListener("input", () => {
    root.dataset.samples = "busy";
    clearTimeout(pause);
    pause = setTimeout(() => refresh(), 120);
  });
  find("search").addEventListener("keydown", (event) => {
    if (event.key === "ArrowDown") {
      event.preventDefault();
      list.focus();
    }
  });
  document.querySelector(".tools").addEventListener("submit", (event) => event.preventDefault());
  find("set").addEventListener("change", () => {
    fillMetrics();
    refresh(shown[selected]);
  });
  for (const name of ["metric", "show", "order"]) find(name).addEventListener("change", () => refresh(shown[selected]));
  for (const button of document.querySelectorAll("button[data-key]")) {
    button.addEventListener("click", () => {
      const { key, task, filter, metric } = button.dataset;
      const set = sets.findIndex((one) => one.key === key && one.task === task && one.filter === filter);
      if (set < 0) return;
      find("search").value = "";
      find("set").value = String(set);
      fillMetrics();
      find("metric").value = metric;
      find("show").value = "changed";
      find("samples").scrollIntoView();
      refresh().then(() => list.focus({ preventScroll: true }));
    });
  }

  // --- begin ---

  const begin = async () => {
    if (!("DecompressionStream" in window)) {
      find("found").textContent = "This browser cannot unpack the samples; one of 2023 or later can.";
      return;
    }
    const found = await Promise.all(listTexts.map(unpack));
    found.forEach((one, set) => {
      lists.push(one);
      const places = one.at.map((at, position) => [at, position]).sort((a, b) => a[0] - b[0]);
      for (const [, position] of places) rows.push([set, position]);
    });
    fillSelects();
    fillMetrics();
    await refresh();
    performance.mark("samples-ready");
  };
  begin();
})();
