// The page of `edge-train watch`: asks for the list and the chosen run, and draws them.
"use strict";

const SECONDS = 3; // between two looks at a run that goes on
const CALM_SECONDS = 12; // where nothing does
const SVG = "http://www.w3.org/2000/svg";
const LOOKS = {
  running: "live", starting: "live", stopping: "warn", done: "good", interrupted: "warn",
  stopped: "warn", "broken off": "bad", "over cap": "bad", "not begun": "warn",
};
const WORDS = {
  running: "running", starting: "starting", stopping: "saving and stopping", done: "finished",
  interrupted: "interrupted, can go on", stopped: "stopped early, can go on",
  "broken off": "broken off, can go on", "over cap": "held more than its cap",
  "not begun": "no step was taken",
};
let token = "", chosen = readChosen(), timer = 0, shownPictures = "", asked = 0;

const byId = (id) => document.getElementById(id);

function make(tag, style, ...inside) {
  const one = document.createElement(tag);
  if (style) one.className = style;
  one.append(...inside.filter((part) => part !== null));
  return one;
}

function readChosen() {
  try { return decodeURIComponent(location.hash.slice(1)); } catch { return ""; }
}

function bytes(count) {
  if (!count) return "0 MB";
  return count >= 1e9 ? `${(count / 1e9).toFixed(2)} GB` : `${Math.round(count / 1e6)} MB`;
}

function span(seconds) {
  if (seconds < 60) return `${Math.round(seconds)} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  if (seconds < 172800) return `${(seconds / 3600).toFixed(1)} h`;
  return `${(seconds / 86400).toFixed(1)} days`;
}

function number(value) {
  if (value === null || value === undefined) return "-";
  const size = Math.abs(value);
  return size !== 0 && (size < 0.001 || size >= 1e5) ? value.toExponential(2) : value.toPrecision(4);
}

const short = (value) => String(Number(value.toPrecision(3)));
const count = (value) => value.toLocaleString("en");

function bar(share, style) {
  const inside = make("i", style);
  inside.style.width = `${Math.min(Math.max(share, 0), 1) * 100}%`;
  return make("div", "bar", inside);
}

async function ask(path) {
  const answer = await fetch(path, { cache: "no-store" });
  if (answer.status === 401) location.reload();
  if (!answer.ok) throw new Error((await answer.text()).trim());
  return answer.json();
}

async function look() {
  clearTimeout(timer);
  const number_ = ++asked;
  let calm = true;
  try {
    const found = await ask("/runs");
    token = found.token;
    byId("where").textContent = found.root;
    if (!found.runs.some((run) => run.name === chosen)) {
      chosen = (found.runs.find((run) => LOOKS[run.status] === "live") || found.runs[0] || {}).name || "";
    }
    drawList(found.runs);
    calm = !found.runs.some((run) => ["live", "warn"].includes(LOOKS[run.status]) && run.stops || run.behind
      || run.status === "stopping");
    if (chosen) {
      const run = await ask(`/run/${encodeURIComponent(chosen)}/data`);
      if (number_ === asked) drawRun(run);
    } else {
      byId("run").replaceChildren(make("p", "quiet",
        "No run here yet. Start one with ", make("code", "", "edge-train run"), "; it appears by itself."));
    }
    problem("");
  } catch (error) {
    problem(error instanceof TypeError
      ? "The watch cannot be reached; this page tries again by itself. Is `edge-train watch` still there?"
      : error.message);
  }
  if (number_ === asked) {
    timer = setTimeout(look, 1000 * (document.hidden ? 10 * CALM_SECONDS : calm ? CALM_SECONDS : SECONDS));
  }
}

function problem(text) {
  byId("problem").textContent = text;
  byId("problem").hidden = !text;
}

function drawList(runs) {
  byId("runs").replaceChildren(...runs.map((run) => {
    const style = LOOKS[run.status] || "warn";
    const right = run.eval !== null ? `eval ${number(run.best ? run.best[1] : run.eval)}` : "";
    const one = make("button", "",
      make("b", "", run.name),
      make("div", "row", make("span", `dot ${style}`, run.status), make("span", "", right)));
    if (style === "live" && run.planned) {
      one.append(bar(run.steps / run.planned, ""));
      one.append(make("div", "row", make("span", "", `${count(run.steps)} of ${count(run.planned)}`),
        make("span", "", run.left === null ? "" : `${span(run.left)} left`)));
    }
    one.type = "button";
    if (run.name === chosen) one.setAttribute("aria-current", "true");
    one.onclick = () => { chosen = run.name; location.hash = encodeURIComponent(chosen); look(); };
    return make("li", "", one);
  }));
}

function tile(name, value, under, extra) {
  return make("div", "tile", make("h3", "", name), make("b", "", value), extra || null,
    under ? make("small", "", under) : null);
}

function drawRun(run) {
  const style = LOOKS[run.status] || "warn";
  document.title = `${run.name}: ${run.status} - edge-train`;
  const made = [run.task, run.method, run.model].filter(Boolean).join(" \u00b7 ");
  const head = make("div", "top",
    make("div", "", make("h2", "", run.name), make("p", "quiet", made),
      make("span", `pill dot ${style}`, WORDS[run.status] || run.status)),
    make("div", "does", ...doings(run)));
  const share = run.planned ? run.steps / run.planned : 0;
  const going = style === "live" || run.status === "stopping";
  const steps = tile("Steps", count(run.steps), run.planned ? `of ${count(run.planned)}` : "",
    run.planned ? bar(share, run.status === "done" ? "good" : "") : null);
  const pace = run.pace === null ? "" : run.pace < 1 ? `${(1 / run.pace).toFixed(1)} steps a second`
    : `${run.pace.toFixed(1)} s a step`;
  const left = tile(going ? "Time left" : "Pace", going && run.left !== null ? span(run.left)
    : run.pace === null ? "-" : run.pace < 1 ? (1 / run.pace).toFixed(1) : `${run.pace.toFixed(1)} s`,
  going ? pace : pace.replace(/^[0-9.]+ (s )?/, ""));
  const losses = tile("Evaluation loss", number(run.eval),
    run.best ? `best ${number(run.best[1])} after ${count(run.best[0])} steps` : "not measured yet");
  const held = going ? run.held : run.peak;
  const full = run.cap ? held / run.cap : 0;
  const memory = run.devices ? tile("Devices", count(run.devices[0]),
    `in the last step, ${count(run.devices[1])} bytes up, ${count(run.devices[2])} down`)
    : tile(going ? "Memory held" : "Peak memory", bytes(held),
    run.cap ? `${Math.round(100 * full)}% of the cap, ${bytes(run.cap)}` : "no cap was set",
    run.cap ? bar(full, full > 1 ? "bad" : full > 0.95 ? "warn" : "good") : null);
  const parts = [head];
  if (run.said) parts.push(note(run.said, "bad"));
  if (run.damaged) parts.push(note(`The journal is damaged after step ${run.steps}; what stands before is shown.`, "bad"));
  if (run.behind) parts.push(note("A long journal: the curves grow until all of it is read.", "quiet"));
  parts.push(make("div", "tiles", steps, left, losses, memory));
  if (run.losses && run.losses.length + run.evals.length) {
    parts.push(make("section", "card", make("h3", "", "Loss"),
      chart(run, [[run.losses, "faint"], [run.evals, "line"]], null, short),
      make("p", "keys", make("span", "", make("i", "faint"), "training"),
        make("span", "", make("i", ""), "evaluation"))));
  }
  if (run.memory && run.memory.length) {
    parts.push(make("section", "card", make("h3", "", "Memory"),
      chart(run, [[run.memory, "line"]], run.cap, bytes)));
  }
  parts.push(drawPictures(run));
  if (run.events.length) {
    parts.push(make("section", "card events", make("h3", "", "What happened"),
      make("ul", "", ...run.events.slice().reverse().map(([step, text]) =>
        make("li", "", make("span", "", step === null || step < 0 ? "" : `step ${step}`), text)))));
  }
  byId("run").replaceChildren(...parts.filter(Boolean));
}

function note(text, style) {
  return make("p", `card ${style}`, text);
}

function doings(run) {
  const found = [];
  const add = (words, style, path) => {
    const one = make("button", style, words);
    one.type = "button";
    one.onclick = () => act(one, run.name, path);
    found.push(one);
  };
  if (run.resumes) add("Resume", "primary", "resume");
  if (run.stops) add("Stop", "ends", "stop");
  if (run.report) {
    const link = make("a", "", "Report");
    link.href = `/run/${encodeURIComponent(run.name)}/report.html`;
    found.push(link);
  }
  return found;
}

async function act(button, name, what) {
  if (what === "stop" && !confirm(`Stop ${name}? It finishes the step in progress and saves; it can go on later.`)) return;
  button.disabled = true;
  try {
    const answer = await fetch(`/run/${encodeURIComponent(name)}/${what}`,
      { method: "POST", headers: { "X-Token": token } });
    if (!answer.ok) throw new Error((await answer.text()).trim());
    await look();
    setTimeout(look, 1200); // a process that was started or stopped shows soon
  } catch (error) {
    problem(error.message);
    button.disabled = false;
  }
}

// Pictures are kept as they are while their names stay, so that nothing flickers or loads again.
let gallery = null;
function drawPictures(run) {
  const key = `${run.name}\n${run.status}\n${run.pictures.join("\n")}`;
  if (key === shownPictures) return gallery;
  shownPictures = key;
  gallery = run.pictures.length === 0 ? null : make("section", "card", make("h3", "", "Latest pictures"),
    make("div", "pictures", ...run.pictures.slice().reverse().map((name) => {
      const image = make("img");
      image.alt = name;
      image.onload = () => { if (image.naturalWidth <= 128) image.className = "tiny"; };
      image.src = `/run/${encodeURIComponent(run.name)}/samples/${encodeURIComponent(name)}`;
      return make("figure", "", image, make("figcaption", "", name.replace(/\.png$/, "").replaceAll("-", " ")));
    })));
  return gallery;
}

function drawn(tag, attributes, text) {
  const one = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) one.setAttribute(name, value);
  if (text !== undefined) one.textContent = text;
  return one;
}

// Round values between two others, three to six of them, or those of a given distance.
function marks(least, most, apart) {
  const rough = (most - least) / 3, size = 10 ** Math.floor(Math.log10(rough));
  const distance = apart || size * [1, 2, 5].filter((one) => one * size <= rough * 1.0001).pop();
  const found = [];
  for (let at = Math.ceil(least / distance - 1e-9); at * distance <= most * (1 + 1e-9); at++) found.push(at * distance);
  return found;
}

function chart(run, lines, cap, words) {
  const narrow = window.innerWidth <= 520;
  const width = narrow ? 380 : 800, height = narrow ? 210 : 230, left = 62, low = height - 24, top = 12;
  const values = lines.flatMap(([points]) => points.map((point) => point[1]));
  const far = cap > 2 * Math.max(...values); // then it is a number, or the curve could not be read
  if (cap && !far) values.push(cap);
  let [least, most] = [Math.min(...values), Math.max(...values)];
  if (cap) least = 0;
  if (most - least < Math.abs(most) * 0.02) { least -= Math.abs(most) * 0.05 || 1; most += Math.abs(most) * 0.05 || 1; }
  if (cap) most *= far ? 1.15 : 1.02;
  const end = Math.max(run.steps, 1);
  const x = (step) => left + (width - left - 8) * step / end;
  const y = (value) => low - (low - top) * (value - least) / (most - least);
  const picture = drawn("svg", { viewBox: `0 0 ${width} ${height}`, role: "img" });
  for (const value of marks(least, most, cap && !far ? cap / 4 : 0)) {
    picture.append(drawn("path", { class: "grid", d: `M${left} ${y(value)}H${width - 8}` }),
      drawn("text", { x: left - 8, y: y(value) + 4, "text-anchor": "end" }, words(value)));
  }
  picture.append(drawn("text", { x: left, y: height - 4 }, "step 0"),
    drawn("text", { x: width - 8, y: height - 4, "text-anchor": "end" }, count(run.steps)));
  if (far) {
    picture.append(drawn("text", { x: width - 8, y: low - 8, "text-anchor": "end" }, `cap ${bytes(cap)}, above the picture`));
  } else if (cap) {
    picture.append(drawn("path", { class: "cap", d: `M${left} ${y(cap)}H${width - 8}` }),
      drawn("text", { class: "cap-label", x: width - 8, y: y(cap) + 16, "text-anchor": "end" }, `cap ${bytes(cap)}`));
  }
  for (const [points, style] of lines) {
    if (!points.length) continue;
    picture.append(drawn("path", { class: style,
      d: points.map(([step, value], at) => `${at ? "L" : "M"}${x(step).toFixed(1)} ${y(value).toFixed(1)}`).join("") }));
    const [step, value] = points[points.length - 1];
    if (style === "line") picture.append(drawn("circle", { class: "last", cx: x(step), cy: y(value), r: 3.5 }));
  }
  return picture;
}

window.addEventListener("hashchange", () => { const now = readChosen(); if (now !== chosen) { chosen = now; look(); } });
document.addEventListener("visibilitychange", () => { if (!document.hidden) look(); });
look();
