// The dashboard: reads /events for what changes each second, /audit and /peers
// for reports, and draws. Everything from a server is set as text, never as
// markup; the page's policy would refuse that, too.
"use strict";

const $ = id => document.getElementById(id);
const WINDOW = 120; // most seconds that charts show
const KEY = "imagelab-ops-token";

/* Building blocks. */

// h makes an element: h("td.note", {title: "x"}, "text", child…); --names are
// custom properties, on… are listeners.
function h(spec, ...rest) {
  const [tag, ...classes] = spec.split(".");
  return fill(document.createElement(tag), classes, rest);
}

function svg(spec, ...rest) {
  const [tag, ...classes] = spec.split(".");
  return fill(document.createElementNS("http://www.w3.org/2000/svg", tag), classes, rest);
}

function fill(node, classes, rest) {
  if (classes.length) node.setAttribute("class", classes.join(" "));
  for (const item of rest.flat()) {
    if (item == null || item === false) continue;
    if (item instanceof Node || typeof item !== "object") {
      node.append(item);
      continue;
    }
    for (const [name, value] of Object.entries(item)) {
      if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
      else if (name.startsWith("--")) node.style.setProperty(name, value);
      else if (value === true) node.setAttribute(name, "");
      else if (value != null && value !== false) node.setAttribute(name, value);
    }
  }
  return node;
}

// put sets text only where it differs, so that selections and readers keep still.
function put(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

// swap replaces the children of a node when what they show has changed.
function swap(node, key, make) {
  key = JSON.stringify(key);
  if (node.shown === key) return;
  node.shown = key;
  node.replaceChildren(...[make()].flat());
}

/* Numbers in words. */

const MB = n => n == null ? "?" : (n / 1e6).toFixed(n < 1e7 ? 2 : 1) + " MB";
const MiB = n => n == null ? "?" : (n / 2 ** 20).toFixed(n < 2 ** 20 * 100 ? 1 : 0) + " MiB";
const plural = (n, word) => n + " " + word + (n === 1 ? "" : "s");
const whole = n => n == null ? "?" : Math.round(n).toLocaleString("en");

function span(s) {
  if (s == null) return "–";
  if (s < 0.001) return Math.round(s * 1e6) + " µs";
  if (s < 1) return (s * 1e3).toFixed(s < 0.1 ? 1 : 0) + " ms";
  if (s < 90) return s.toFixed(s < 10 ? 1 : 0) + " s";
  if (s < 5400) return Math.round(s / 60) + " min";
  return s < 172800 ? Math.round(s / 3600) + " h" : Math.round(s / 86400) + " days";
}

// edge writes the bound of a bucket, with no digit more than it has.
const digits = n => String(Number(n.toPrecision(4)));
const edge = s => s < .001 ? digits(s * 1e6) + " µs" : s < 1 ? digits(s * 1e3) + " ms" : digits(s) + " s";
let lastEdge = 10; // the greatest bound, in seconds
const atMost = s => s == null ? "–" : s === Infinity ? "> " + edge(lastEdge) : "≤ " + edge(s);

// share writes a part of all, and never nothing for something.
const share = (part, all) => part > 0 && part < all / 100 ? "< 1 %" : Math.floor(100 * part / all) + " %";

const rate = n => n == null ? "–" : (n < 10 ? n.toFixed(1) : whole(n)) + "/s";

const verdicts = {
  fail: ["✕", "fail"], warn: ["!", "warn"], unknown: ["?", "unknown"], pass: ["✓", "pass"], "not-applicable": ["–", "n/a"],
};
const order = ["fail", "warn", "unknown", "pass", "not-applicable"];
const severities = ["critical", "high", "medium", "low", "info"];
const states = { ready: "✓", starting: "…", disabled: "‖", draining: "↓", down: "✕", connecting: "…", restarting: "↻", failing: "✕", "given up": "✕" };

function pill(kind, icon, word) {
  return h("span.pill." + kind, h("span", { "aria-hidden": "true" }, icon), word);
}

/* What is known. Sides are this process and its peers, in a fixed order. */

let sides = [];
let link = "loading"; // live, lost, locked
let asked = 0; // when the reports were asked for
const open = new Set(); // ids of the checks that are unfolded

function side(name, self) {
  let s = sides.find(s => s.self === self && (self || s.name === name));
  if (!s) {
    s = { name, self, i: 0, points: [], state: "connecting", live: null, report: null, error: "" };
    sides.push(s);
  }
  s.name = name;
  return s;
}

// quantile returns the upper bound of the bucket that holds it, of the counts
// between two histograms; Infinity beyond the last, null for nothing.
function quantile(q, now, before) {
  const n = now.counts.map((c, i) => c - (before.counts[i] || 0));
  const total = n.reduce((a, b) => a + b, 0);
  if (!(total > 0) || n.some(c => c < 0)) return null;
  let rank = q * total;
  for (let i = 0; i < now.bounds.length; i++) {
    rank -= n[i];
    if (n[i] > 0 && rank <= 0) return now.bounds[i];
  }
  return Infinity;
}

// learn takes in one snapshot of a side, or that there is none.
function learn(s, live, error) {
  const before = s.state;
  s.error = error || "";
  s.state = live ? live.state : error ? "down" : s.live ? s.state : "connecting";
  if (live && !(s.live && s.live.time === live.time)) {
    if (s.live && s.live.uptime_seconds > live.uptime_seconds) {
      s.kept = []; // it was started again
      asked = 0;
    }
    const audit = a => JSON.stringify(a && a.audit);
    if (s.live && audit(s.live) !== audit(live) && s.report) asked = Math.min(asked, Date.now() - 55e3);
    s.kept = [...(s.kept || []), live].slice(-6);
    const previous = s.kept.at(-2), old = s.kept[0];
    const since = snapshot => (Date.parse(live.time) - Date.parse(snapshot.time)) / 1e3;
    const dt = previous && since(previous);
    lastEdge = live.latency.bounds.at(-1) ?? lastEdge;
    s.points.push({
      at: Date.now() / 1e3,
      rate: dt > 0 ? Math.max(0, live.requests.total - previous.requests.total) / dt : null,
      p50: previous ? quantile(.5, live.latency, old.latency) : null,
      p99: previous ? quantile(.99, live.latency, old.latency) : null,
      window: Math.round(since(old)), // seconds that the quantiles and the next three are about
      total: live.requests.total - old.requests.total,
      failed: live.requests.failed - old.requests.failed,
      full: live.store.full - old.store.full,
      memory: live.process.memory_bytes,
      limit: live.process.memory_limit_bytes,
      resident: live.process.resident_bytes,
      flight: live.requests.in_flight,
    });
    s.live = live;
    s.seen = Date.now();
  } else if (error && s.points.length && s.points.at(-1).rate !== undefined) {
    s.points.push({ at: Date.now() / 1e3 }); // a gap in the lines
  }
  const limit = Date.now() / 1e3 - WINDOW - 5;
  while (s.points.length && s.points[0].at < limit) s.points.shift();
  if (s.state === "draining" && before !== "draining") s.drainSince = Date.now();
  if (s.state === "down" && before !== "down" && before !== "connecting") say(s.name + " is down: " + s.error);
  if (s.state === "ready" && ["down", "draining"].includes(before)) say(s.name + " is back");
  if (s.state === "draining" && before === "ready") say(s.name + " is draining");
  if (s.state === "ready" && before !== "ready" && !s.report) asked = 0;
}

function say(text) { put($("say"), text); }

/* Talking to the server. */

function headers() {
  const token = sessionStorage.getItem(KEY);
  return token ? { Authorization: "Bearer " + token } : {};
}

async function ask(path, options) {
  const answer = await fetch(path, { headers: headers(), cache: "no-store", redirect: "error", ...options });
  if (answer.status === 401) throw Object.assign(new Error("locked"), { locked: true });
  if (!answer.ok) throw Object.assign(new Error(path + " answers " + answer.status), { status: answer.status });
  return answer;
}

// reports asks for the audits: at the start, once a minute, when something came
// back, and on demand.
async function reports() {
  if (link !== "live" || Date.now() - asked < 60e3) return;
  asked = Date.now();
  try {
    const peers = ask("peers").then(a => a.json());
    peers.catch(() => {}); // it is awaited below, if audit answers
    const self = sides.find(s => s.self);
    try {
      self.report = await ask("audit").then(a => a.json());
    } catch (e) {
      if (e.status !== 404) throw e;
      self.absent = "it runs in no container";
    }
    draw();
    for (const p of await peers) {
      const s = side(p.name, false);
      if (p.report) s.report = p.report;
      s.absent = p.error;
    }
    draw();
  } catch (e) {
    if (e.locked) lock();
    else asked = Date.now() - 55e3; // soon again
  }
}

// watch follows /events, and starts again whenever it ends.
async function watch() {
  for (let wait = 1; ; wait = Math.min(wait * 2, 8)) {
    const stop = new AbortController();
    let timer;
    const alive = () => { clearTimeout(timer); timer = setTimeout(() => stop.abort(), 6000); };
    try {
      alive();
      const answer = await ask("events", { signal: stop.signal });
      const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
      for (let text = ""; ;) {
        const { done, value } = await reader.read();
        if (done) break;
        alive();
        text += value;
        const frames = text.split("\n\n");
        text = frames.pop();
        for (const frame of frames) {
          try {
            take(frame);
          } catch (e) { // of another version, perhaps; the next may be better
            console.error(e);
          }
        }
        wait = 1;
      }
    } catch (e) {
      if (e.locked) {
        clearTimeout(timer);
        return lock();
      }
    }
    clearTimeout(timer);
    if (link === "live") say("Connection lost");
    link = "lost";
    for (let left = wait; left > 0; left--) {
      status("Connection lost, trying again in " + left + " s");
      await new Promise(done => setTimeout(done, 1000));
    }
    status("Connecting…");
  }
}

function take(frame) {
  const data = frame.split("\n").filter(l => l.startsWith("data: ")).map(l => l.slice(6)).join("\n");
  if (!data) return;
  const { live, peers } = JSON.parse(data);
  if (link === "lost") {
    say("Connected again");
    asked = 0;
  }
  link = "live";
  status("Live");
  learn(side(live.variant || "imagelab", true), live);
  for (const p of peers) learn(side(p.name, false), p.live, p.error);
  // By name, so that a variant has the same colour on every dashboard.
  [...sides].sort((a, b) => a.name < b.name ? 1 : -1).forEach((s, i) => { s.i = i % 4; });
  if (frame.startsWith("event: end")) sides[0].ended = live.drain;
  else delete sides[0].ended;
  draw();
  reports();
}

function status(text) {
  document.body.dataset.link = link;
  put($("link-text"), text);
}

function lock() {
  const tried = sessionStorage.getItem(KEY);
  sessionStorage.removeItem(KEY);
  link = "locked";
  status("Locked");
  $("content").hidden = true;
  $("token").hidden = false;
  if (tried) {
    put($("token-hint"), "That was not it. The token is the value of IMAGELAB_OPS_TOKEN, or what its _FILE holds.");
    say("The token was refused");
  }
  $("token-field").focus();
}

/* Drawing. Everything is drawn from what is known, and changes only what differs. */

const title = s => s.name || "?";
const key = s => h("span.key.c" + s.i, { "aria-hidden": "true" });
const image = s => s.report ? s.report.facts.image : {};
const summary = s => (s.report && s.report.summary) || (s.live && s.live.audit);
const alone = () => sides.length < 2;

function draw() {
  if (!sides.length) return;
  const self = sides[0];
  document.title = title(self) + " · imagelab";
  $("self").hidden = false;
  put($("self"), title(self));
  drawLead();
  drawCards();
  drawFixes();
  drawBars();
  drawCharts();
  drawChecks();
  drawLimits();
}

function drawLead() {
  const sized = sides.filter(s => image(s).bytes != null).sort((a, b) => image(a).bytes - image(b).bytes);
  let head = "";
  const [small, large] = [sized[0], sized.at(-1)];
  if (sized.length > 1) {
    const less = image(large).bytes - image(small).bytes;
    head = less ? `${title(small)} is ${MB(less)} smaller than ${title(large)} (${Math.round(100 * less / image(large).bytes)} %)` : "All images have the same size";
  } else if (sized.length) head = `${title(small)} is ${MB(image(small).bytes)}`;
  else if (sides.every(s => s.absent)) {
    head = "Nothing to audit";
    put($("subline"), "No side runs in a container, or none could be asked. The live numbers are below.");
    put($("fixes"), "");
    put($("fixes-title"), "No report, so nothing to fix");
  }
  if (head) put($("headline"), head);
  const known = sides.filter(summary), down = sides.filter(s => s.state === "down");
  if (!known.length && !down.length) return;
  swap($("subline"), [known.map(s => [title(s), summary(s)]), down.map(title)], () => {
    const failing = known.filter(s => summary(s).fail > 0), clean = known.filter(s => !summary(s).fail);
    return [
      ...down.flatMap(s => [h("b", title(s) + " is down"), ". "]),
      ...failing.flatMap(s => [h("b", `${title(s)} fails ${plural(summary(s).fail, "check")}`), ". "]),
      clean.length ? `${clean.map(title).join(" and ")}${clean.length > 1 ? (clean.length > 2 ? " all fail" : " both fail") : " fails"} none.` : "",
      failing.length ? " How to fix the worst is below." : "",
    ];
  });
}

function drawCards() {
  swap($("cards"), [sides.map(s => [s.name, s.self])], () => [
    ...sides.map(s => s.card = h("article.card.c" + s.i, { "aria-label": title(s) })),
    alone() && h("div.card.hint", h("h3", "Nothing beside it"), h("p.note", "Set IMAGELAB_PEERS to other ops listeners, and they are shown here: ", h("code", "IMAGELAB_PEERS=alpine=http://alpine:9000"))),
  ].filter(Boolean));
  const sizes = sides.map(s => image(s).bytes).filter(n => n != null);
  for (const s of sides) {
    const bytes = image(s).bytes, sum = summary(s), l = s.live, p = s.points.at(-1) || {};
    const best = sizes.length > 1 && bytes === Math.min(...sizes) && bytes !== Math.max(...sizes);
    let where = l ? `${s.self ? "this one · " : ""}${l.version} · up ${span(l.uptime_seconds)}` : "";
    if (l && l.command) where += ` · command: start ${l.command.generation}, ` + (l.command.up ? `up ${span(l.command.uptime_seconds)}` : "not up") + (l.command.last ? `, the one before: ${l.command.last}` : "");
    if (s.state === "down") where = s.error + (s.seen ? ` · last seen ${span((Date.now() - s.seen) / 1e3)} ago` : "");
    else if (s.ended) where = s.ended.seconds != null ? `drained in ${span(s.ended.seconds)}, ${plural(s.ended.cut, "connection")} cut` : "it ends";
    else if (s.state === "draining") where = `draining for ${span((Date.now() - s.drainSince) / 1e3)} · ${plural(l.requests.in_flight, "request")} in flight · ${plural(l.connections, "connection")} open`;
    else if (s.state === "disabled") where = "closed by hand: POST readyz/enable opens it";
    const trouble = troubleOf(p), quick = quickOf(s, p);
    swap(s.card, [s.name, s.state, where, s.absent, bytes, best, sum, s.error, trouble, quick], () => [
      h("header", key(s), h("h3", title(s)), pill(s.state, states[s.state] || "?", s.state)),
      h("p.size", h("b", MB(bytes)), best ? h("span.win", "✓ smallest image") : h("span.note", "image")),
      h("p.where", where || " "),
      h("div.split", { "aria-hidden": "true" }, sum && ["fail", "warn", "unknown", "pass"].filter(v => sum[v]).map(v => h("i." + v, { "--n": sum[v] }))),
      h("p.counts", sum ? [
        h(sum.fail ? "span.bad" : "span", `${sum.fail ? "✕ " : ""}${sum.fail} failed`), h("span", plural(sum.warn, "warning")),
        sum.unknown > 0 && h("span", sum.unknown + " unknown"), h("span", sum.pass + " passed"),
      ] : h("span", s.absent ? "no audit: " + s.absent : "waiting for the audit")),
      h("p.trouble", { hidden: !trouble }, trouble && "✕ " + trouble),
      h("dl.quick", quick.map(([name, value, bad]) => h("div", h("dt", name), h(bad ? "dd.bad" : "dd", value)))),
    ]);
  }
}

// troubleOf says what went wrong in the last seconds, or nothing.
function troubleOf(p) {
  if (!(p.failed > 0)) return "";
  const full = p.full > 0 ? `; the store is full, ${plural(p.full, "upload")} refused` : "";
  return `${share(p.failed, p.total)} of the requests failed in the last ${p.window} s: ${whole(p.failed)} of ${whole(p.total)}${full}`;
}

// quickOf lists the numbers of a card: name, value, whether it is bad. Health probes
// are no part of them. Without a container and a limit the cgroup is anybody's.
function quickOf(s, p) {
  const over = p.window > 0 ? ` in ${p.window} s` : "";
  const mine = p.memory != null && (p.limit != null || !s.absent);
  const memory = mine ? p.memory : p.resident;
  return [
    ["Requests", rate(p.rate)],
    ["Failed" + over, p.total > 0 ? p.failed > 0 ? share(p.failed, p.total) : "none" : "–", p.failed > 0],
    ["p99" + over, atMost(p.p99)],
    [mine ? "Memory" : "Memory, resident", memory == null ? "–" : MiB(memory) + (mine && p.limit ? " of " + MiB(p.limit) : "")],
    ["In flight", p.flight == null ? "–" : String(p.flight)],
  ];
}

// table merges the reports: a line for each check, with the result of each side.
function table() {
  const lines = new Map();
  for (const s of sides) {
    for (const c of (s.report ? s.report.checks : [])) {
      if (!lines.has(c.id)) lines.set(c.id, { id: c.id, check: c, by: new Map() });
      lines.get(c.id).by.set(s, c);
    }
  }
  for (const line of lines.values()) {
    const found = [...line.by.values()].map(c => c.status);
    line.worst = order.find(v => found.includes(v)) || "unknown";
    line.differ = new Set(found).size > 1;
    line.todo = ["fail", "warn", "unknown"].includes(line.worst);
    line.example = [...line.by.values()].find(c => c.status === line.worst);
  }
  const weight = l => order.indexOf(l.worst) * 10 + severities.indexOf(l.check.severity);
  return [...lines.values()].sort((a, b) => weight(a) - weight(b));
}

const reported = () => sides.map(s => [s.name, s.report && s.report.checks.map(c => [c.id, c.status, c.evidence])]);

function drawFixes() {
  if (!sides.some(s => s.report)) return;
  swap($("fixes"), reported(), () => {
    const lines = table();
    const failing = lines.filter(l => l.worst === "fail");
    const groups = new Map(); // checks that the same lines fix, where the same sides fail
    for (const l of failing.length ? failing : lines.filter(l => l.worst === "warn")) {
      const where = [...l.by].filter(([, c]) => c.status === l.worst).map(([s]) => s);
      const id = JSON.stringify([l.example.fix, where.map(title)]);
      if (!groups.has(id)) groups.set(id, { where, lines: [] });
      groups.get(id).lines.push(l);
    }
    const list = [...groups.values()].slice(0, 3);
    put($("fixes-title"), failing.length ? "Fix first" : list.length ? "Nothing fails" + (sides.every(s => s.report) ? "" : " in " + sides.filter(s => s.report).map(title).join(" and ")) + ". Worth a look" : "Nothing to fix");
    if (!list.length) return h("li.fix.pass-edge", h("p", "Every check that could be decided has passed."));
    return list.map(g => h("li.fix." + g.lines[0].worst + "-edge",
      h("div.what", pill(g.lines[0].worst, ...verdicts[g.lines[0].worst]), h("span.note", g.lines[0].check.severity + " · in"), g.where.map(s => h("span.tag", key(s), title(s)))),
      g.lines.slice(0, 4).map(l => h("p", h("strong", "Not met: " + l.check.title), h("span.note", " · " + (l.example.evidence || l.example.reason)))),
      snippets(g.lines[0].example.fix, true)));
  });
}

// snippets are the lines that fix a check, the nearest one alone or all.
function snippets(fix, first) {
  const dockerfile = /^(FROM|RUN|COPY|ENTRYPOINT) /m.test(fix.docker) ? "Dockerfile" : "docker run";
  const all = [["compose", fix.compose], [dockerfile, fix.docker], ["Kubernetes", fix.kubernetes]].filter(([, text]) => text);
  return (first ? all.slice(0, 1) : all).map(([kind, text]) => h("div.snippet",
    h("span.kind", kind), h("pre", { tabindex: "-1" }, text),
    h("button", { type: "button", "aria-label": "Copy the " + kind + " lines", onclick: e => copy(e.currentTarget, text) }, "Copy")));
}

async function copy(button, text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch { // not a secure context: the old way
    getSelection().selectAllChildren(button.previousElementSibling);
    document.execCommand("copy");
  }
  put(button, "Copied");
  say("Copied");
  setTimeout(() => put(button, "Copy"), 1500);
}

const contents = [
  ["Size", f => f.bytes, MB], ["Executables", f => f.executables, whole],
  ["Packages", f => f.packages && f.packages.reduce((n, p) => n + (p.packages || 0), 0), whole, f => (f.packages || []).map(p => p.database)],
  ["Shells", f => f.shells && f.shells.count, whole, f => names(f.shells)],
  ["Files", f => f.files, whole], ["Network clients", f => f.network_clients && f.network_clients.count, whole, f => names(f.network_clients)],
  ["Package managers", f => f.package_managers && f.package_managers.count, whole, f => names(f.package_managers)],
  ["Setuid files", f => f.setuid_files && f.setuid_files.count, whole, f => names(f.setuid_files)],
];
const names = c => [...new Set((c && c.paths || []).map(p => p.split("/").at(-1)))];

function drawBars() {
  swap($("bars"), sides.map(s => [s.name, s.report && s.report.facts.image]), () => contents.map(([label, of, show, detail]) => {
    const values = sides.map(s => s.report ? of(image(s)) : null);
    const most = Math.max(...values.map(v => v || 0));
    const found = sides.map(s => detail && s.report ? detail(image(s)) : []);
    return h("div", h("h3", label), sides.map((s, i) => h("div.bar",
      h("span.name", title(s)),
      h("span.track", { "aria-hidden": "true" }, h("div.fill.c" + s.i, { "--w": most ? (values[i] || 0) / most : 0 })),
      h("span.value", values[i] == null ? "–" : values[i] === 0 ? "none" : show(values[i])))),
    found.some(f => f.length) && h("p.detail", sides.map((s, i) => found[i].length ? `${title(s)}: ${found[i].join(", ")}` : "").filter(Boolean).join(" · ")));
  }));
}

/* Charts, in SVG. */

const charts = [
  { title: "Requests a second, without health probes", lines: [["rate", ""]], show: rate, least: 4 },
  { title: "Latency over about 5 s", lines: [["p99", "p99"], ["p50", "median", true]], show: span, say: atMost, least: .001 },
  { title: "Memory of the cgroup, and resident", lines: [["memory", "cgroup"], ["resident", "resident", true]], show: MiB, least: 2 ** 23, unit: 2 ** 20 },
  { title: "Requests in flight", lines: [["flight", ""]], show: n => n == null ? "–" : whole(n), least: 4 },
];

// nice rounds up to what has a round half, by powers of ten of the unit.
function nice(n, unit) {
  n /= unit;
  const power = 10 ** Math.floor(Math.log10(n));
  return [1, 2, 4, 6, 8, 10].find(f => f * power >= n * .999) * power * unit;
}

function drawCharts() {
  for (const c of charts) {
    if (!c.figure) {
      c.plot = svg("svg", { role: "img", onpointermove: e => { c.at = e.offsetX; drawChart(c); }, onpointerleave: () => { c.at = null; drawChart(c); } });
      c.legend = h("p.legend");
      c.caption = h("figcaption", h("h3", c.title), c.legend);
      c.figure = h("figure.chart", c.caption, c.plot);
      $("charts").append(c.figure);
    }
    drawChart(c);
  }
}

function drawChart(c) {
  const width = c.plot.clientWidth || 400, height = 168, left = 62, right = 10, top = 10, bottom = 24;
  const now = Date.now() / 1e3;
  const all = sides.flatMap(s => s.points.flatMap(p => c.lines.map(([f]) => p[f] === Infinity ? 1.5 * lastEdge : p[f] || 0)));
  const most = nice(Math.max(c.least, ...all.map(v => v * 1.05)), c.unit || 1);
  const age = Math.min(WINDOW, Math.max(30, now - Math.min(now, ...sides.flatMap(s => s.points.slice(0, 1).map(p => p.at)))));
  const x = t => left + (width - left - right) * Math.max(0, 1 - (now - t) / age);
  const y = v => top + (height - top - bottom) * (1 - Math.min(v, most) / most);
  const marks = [];
  for (const part of [0, .5, 1]) {
    marks.push(svg("line.grid", { x1: left, x2: width - right, y1: y(most * part), y2: y(most * part) }));
    marks.push(svg("text", { x: left - 8, y: y(most * part) + 4, "text-anchor": "end" }, part ? c.show(most * part) : "0"));
  }
  for (const [ago, anchor, word] of [[age, "start", span(Math.round(age)) + " ago"], [age / 2, "middle", span(Math.round(age / 2))], [0, "end", "now"]]) {
    marks.push(svg("text", { x: x(now - ago), y: height - 6, "text-anchor": anchor }, word));
  }
  const legend = [];
  for (const s of sides) {
    let point = s.points.at(-1) || {};
    if (c.at != null && s.points.length) {
      point = s.points.reduce((a, b) => Math.abs(x(b.at) - c.at) < Math.abs(x(a.at) - c.at) ? b : a);
    }
    for (const [field, word, thin] of c.lines) {
      let d = "", pen = "M";
      for (const p of s.points) {
        if (p[field] == null) pen = "M";
        else {
          d += pen + x(p.at).toFixed(1) + " " + y(p[field]).toFixed(1);
          pen = "L";
        }
      }
      marks.push(svg(`path.line.c${s.i}${thin ? ".thin" : ""}`, { d }));
      if (point[field] != null) marks.push(svg("circle.end.c" + s.i, { cx: x(point.at), cy: y(point[field]), r: thin ? 3 : 4.5 }));
      legend.push([s, word, (c.say || c.show)(point[field])]);
    }
  }
  if (c.at != null) marks.push(svg("line.cursor", { x1: c.at, x2: c.at, y1: top, y2: height - bottom }));
  c.plot.setAttribute("viewBox", `0 0 ${width} ${height}`);
  c.plot.setAttribute("aria-label", c.title + ": " + legend.map(([s, word, value]) => `${title(s)} ${word} ${value}`).join(", "));
  c.plot.replaceChildren(...marks);
  const texts = legend.map(l => [l[0].name, l[1]]);
  if (c.keys !== JSON.stringify(texts)) {
    c.keys = JSON.stringify(texts);
    c.values = legend.map(() => h("b"));
    c.legend.replaceChildren(...legend.map(([s, word], i) => h("span", key(s), (word ? title(s) + " " + word : title(s)) + " ", c.values[i])));
  }
  legend.forEach((l, i) => put(c.values[i], l[2]));
}

/* The table of checks. */

function drawChecks() {
  if (!sides.some(s => s.report)) return;
  const form = $("filter");
  const all = table();
  put($("n-todo"), String(all.filter(l => l.todo).length));
  put($("n-differ"), String(all.filter(l => l.differ).length));
  put($("n-all"), String(all.length));
  if (!form.show.value) form.show.value = all.some(l => l.todo) ? "todo" : "all";
  const show = form.show.value, words = $("find").value.toLowerCase().split(/\s+/).filter(Boolean);
  const text = l => [l.id, l.check.title, l.check.subject, l.check.severity, ...l.check.references, ...[...l.by.values()].map(c => c.status)].join(" ").toLowerCase();
  const lines = all.filter(l => (show === "all" || l[show]) && words.every(w => text(l).includes(w)));
  $("no-checks").hidden = lines.length > 0;
  put($("no-checks"), words.length ? "No check matches. " + (show === "all" ? "" : "“All” shows the others.") : show === "todo" ? "Nothing to do." : "No check differs.");
  const [head, body] = [$("checks").tHead, $("checks").tBodies[0]];
  swap(head, sides.map(s => s.name), () => h("tr", h("th", { scope: "col" }, "Check"), h("th.severity", { scope: "col" }, "Severity"), sides.map(s => h("th", { scope: "col" }, key(s), title(s)))));
  swap(body, [lines.map(l => l.id), reported(), [...open]], () => lines.flatMap(row));
}

function row(l) {
  const unfolded = open.has(l.id), id = "more-" + l.id;
  const toggle = () => {
    if (!open.delete(l.id)) open.add(l.id);
    const focused = document.activeElement && document.activeElement.dataset.check;
    drawChecks();
    if (focused) document.querySelector(`[data-check="${CSS.escape(focused)}"]`)?.focus();
  };
  const line = h("tr.row", { onclick: e => { if (!getSelection().toString() || e.target.closest("button")) toggle(); } },
    h("th", { scope: "row" },
      h("button.toggle", { type: "button", "aria-expanded": String(unfolded), "aria-controls": unfolded ? id : null, "data-check": l.id }, l.check.title),
      h("div.sub", { "data-severity": l.check.severity }, l.id)),
    h("td.severity", l.check.severity),
    sides.map(s => {
      const c = l.by.get(s);
      return h("td", c ? pill(c.status, ...verdicts[c.status] || ["?", c.status]) : "–");
    }));
  if (!unfolded) return [line];
  return [line, h("tr.more", { id }, h("td", { colspan: String(2 + sides.length) },
    h("p.note", l.check.why),
    h("dl", sides.filter(s => l.by.get(s)).flatMap(s => {
      const c = l.by.get(s);
      return [h("dt", key(s), title(s)), h("dd", `${(verdicts[c.status] || ["", c.status])[1]}: ${[c.evidence, c.reason].filter(Boolean).join("; ")}`)];
    }), h("dt", "See"), h("dd", l.check.references.join(", "))),
    snippets(l.example.fix, false)))];
}

/* Limits, store and process. */

function meter(used, of, s, show) {
  if (of == null) return [used == null ? "?" : show(used) + ", ", "no limit"];
  return [used == null ? "" : show(used) + " of ", show(of), used != null && h("span.meter", { "aria-hidden": "true" }, h("i.c" + s.i, { "--w": Math.min(1, used / of) }))];
}

const none = (n, word) => n == null ? "no limit" : whole(n) + (word || "");
const list = (a, empty) => !a ? "?" : a.length ? a.join(" ") : empty;
const facts = [
  ["Memory", (f, l, s) => [...meter(l && l.process.memory_bytes, f.limits.memory_bytes, s, MiB), l && ` resident ${MiB(l.process.resident_bytes)}`]],
  ["CPUs", (f, l) => (f.limits.cpus == null ? "no limit" : String(f.limits.cpus)) + (l && l.process.cpu_throttled_seconds > 0 ? `, throttled for ${span(l.process.cpu_throttled_seconds)}` : "")],
  ["Processes", f => none(f.limits.pids)],
  ["Open files", (f, l, s) => meter(l && l.process.open_files, f.limits.open_files_soft, s, whole)],
  ["Store", (f, l, s) => l ? [...meter(l.store.bytes, l.store.capacity_bytes, s, n => n < 1e4 ? plural(n, "byte") : MiB(n)), ` ${plural(l.store.blobs, "blob")}`, l.store.full > 0 && `, ${plural(l.store.full, "upload")} refused for want of room`] : "?"],
  ["Writable", f => list(f.writable_mounts, "nothing")],
  ["User", f => `${f.process.uid ?? "?"}:${f.process.gid ?? "?"}`],
  ["Capabilities", f => list(f.process.bounding, "none")],
  ["No new privileges", f => f.process.no_new_privileges == null ? "?" : f.process.no_new_privileges ? "set" : "not set"],
  ["seccomp", f => f.process.seccomp || "?"],
  ["Sandbox", f => !f.sandbox || !f.sandbox.of ? "none" : `${f.sandbox.of}: ${list(f.sandbox.applied, "nothing")}` +
    (f.sandbox.refused.length ? `, refused ${f.sandbox.refused.map(r => r.part).join(" ")}` : "")],
  ["Health probe", (f, l) => l && l.probes.total ? `${span(l.probes.sum_seconds / l.probes.total)} each, ${whole(l.probes.total)} answered` : "none yet"],
  ["Start to ready", f => f.app ? span(f.app.start_seconds) : "?"],
  ["Requests, without probes", (f, l) => l ? `${whole(l.requests.total)}, ${whole(l.requests.failed)} failed, ${whole(l.requests.rejected)} turned away` : "?"],
  ["Base", f => f.image.distribution || "none"],
];

function drawLimits() {
  swap($("limits").tHead, sides.map(s => s.name), () => h("tr", h("td", h("span.quiet", "Fact")), sides.map(s => h("th", { scope: "col" }, key(s), title(s)))));
  const body = $("limits").tBodies[0];
  facts.forEach(([label, of], i) => {
    const line = body.rows[i] || body.appendChild(h("tr", h("th", { scope: "row" }, label)));
    sides.forEach((s, j) => {
      const cell = line.cells[j + 1] || line.appendChild(h("td"));
      const content = s.report ? [of(s.report.facts, s.live, s)].flat() : [s.state === "down" ? "–" : "…"];
      swap(cell, content.map(c => c instanceof Node ? c.firstChild.getAttribute("style") : c), () => content.filter(Boolean));
    });
  });
}

/* Start. */

$("filter").addEventListener("input", drawChecks);
$("filter").addEventListener("submit", e => e.preventDefault());
$("again").addEventListener("click", () => { asked = 0; reports().then(() => say("Audited")); });
$("token-form").addEventListener("submit", e => {
  e.preventDefault();
  sessionStorage.setItem(KEY, $("token-field").value);
  $("token-field").value = "";
  $("token").hidden = true;
  $("content").hidden = false;
  link = "loading";
  status("Connecting…");
  watch();
});
watch();
