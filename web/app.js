// The dashboard: reads /events for what has been and what changes each second,
// /audit and /peers for reports, and draws. Everything from a server is set as
// text, never as markup; the page's policy would refuse that, too.
"use strict";

const $ = id => document.getElementById(id);
const WINDOW = 600; // most seconds that charts show
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
  node.replaceChildren(...[make()].flat().filter(Boolean));
}

/* Numbers in words. */

const fixed = (n, digits) => Math.abs(n) < 1e15 ? n.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits }) : n.toPrecision(3);
const MB = n => n == null ? "?" : fixed(n / 1e6, n < 1e7 ? 2 : 1) + " MB";
const GiB = 2 ** 30;
// memory writes bytes in KiB, MiB or GiB.
function memory(n) {
  if (n == null) return "?";
  if (n < GiB / 1024) return fixed(n / 1024, 0) + " KiB";
  return n < GiB ? fixed(n * 1024 / GiB, n < GiB / 10 ? 1 : 0) + " MiB" : fixed(n / GiB, 1) + " GiB";
}
const plural = (n, word) => whole(n) + " " + word + (n === 1 ? "" : "s");
const whole = n => n == null ? "?" : fixed(n, 0);

function span(s) {
  if (s == null) return "–";
  if (s < 0.001) return Math.round(s * 1e6) + " µs";
  if (s < 1) return (s * 1e3).toFixed(s < 0.1 ? 1 : 0) + " ms";
  if (s < 90) return s.toFixed(s < 10 ? 1 : 0) + " s";
  if (s < 5400) return Math.round(s / 60) + " min";
  return s < 172800 ? Math.round(s / 3600) + " h" : Math.round(s / 86400) + " days";
}

// lasting is for how long something has been so, in whole seconds.
function lasting(s) {
  s = Math.max(1, Math.round(s));
  return s < 90 ? s + " s" : s < 600 ? `${Math.floor(s / 60)} min ${s % 60} s` : span(s);
}

// edge writes the bound of a bucket, with no digit more than it has.
const digits = n => String(Number(n.toPrecision(4)));
const edge = s => s < .001 ? digits(s * 1e6) + " µs" : s < 1 ? digits(s * 1e3) + " ms" : digits(s) + " s";
// atMost writes what is known of a quantile: the bound of the bucket that it is in, by its number.
const atMost = (i, bounds) => i == null || i < 0 || !bounds.length ? "–" : bounds[i] ? "≤ " + edge(bounds[i]) : "> " + edge(bounds.at(-1));

// share writes a part of all, and never nothing for something.
const share = (part, all) => part > 0 && part < all / 100 ? "< 1 %" : Math.floor(100 * part / all) + " %";

const rate = n => n == null ? "–" : (n < 10 ? n.toFixed(1) : whole(n)) + "/s";

const verdicts = {
  __proto__: null, fail: ["✕", "fail"], warn: ["!", "warn"], unknown: ["?", "unknown"], pass: ["✓", "pass"], "not-applicable": ["–", "n/a"],
};
const order = ["fail", "warn", "unknown", "pass", "not-applicable"];
const severities = ["critical", "high", "medium", "low", "info"];
const states = {
  __proto__: null, ready: "✓", starting: "…", disabled: "‖", draining: "↓", stopped: "■", down: "✕", mute: "✕", connecting: "…", restarting: "↻",
  failing: "✕", "given up": "✕",
};
// wordOf is a state as the page says it.
const wordOf = s => s.state === "mute" ? "no figures" : s.state;

function pill(kind, icon, word) {
  return h("span.pill." + kind, h("span", { "aria-hidden": "true" }, icon), word);
}

/* What is known. Sides are this process and its peers, in a fixed order. */

let sides = [];
let link = "loading"; // live, lost, locked
let lostAt = 0; // when the link was lost
let asked = 0; // when the reports were asked for
let cross = null; // the moment that all charts show the values of; null is now
const open = new Set(); // ids of the checks that are unfolded
const now = () => Date.now() / 1e3;

function side(name, self) {
  let s = sides.find(s => s.self === self && (self || s.name === name));
  if (!s) {
    s = { name, self, i: 0, rows: [], marks: [], bounds: [], state: "connecting", live: null, report: null, error: "", shift: 0 };
    sides.push(s);
  }
  s.name = name;
  return s;
}

// A row of the history is an array; these are the places of its numbers.
const [TIME, OK, REDIRECT, REFUSED, FAILED, P50, P90, P99, REJECTED, CPU, THROTTLED, MEMORY, FLIGHT, CONNS] = Array(14).keys();

// remember takes in what a side's history has that is not known yet. Times become those of this page's clock: the
// other one may be an hour off.
function remember(s, live) {
  const shift = now() - Date.parse(live.time) / 1e3;
  if (Math.abs(shift - s.shift) > 2) {
    for (const r of s.rows) r[TIME] += shift - s.shift; // either clock was set
    for (const m of s.marks) if (!m.own) m.time += shift - s.shift;
    s.shift = shift;
  }
  const known = live.history || { rows: [], marks: [] };
  const last = s.rows.length ? s.rows.at(-1)[TIME] : -Infinity;
  const rows = known.rows.map(r => [r[TIME] + s.shift, ...r.slice(1)]);
  if (rows.length > s.rows.length) s.rows = rows; // it is all that the server has
  else for (const r of rows) if (r[TIME] > last + .2) s.rows.push(r);
  const least = now() - WINDOW - 5;
  while (s.rows.length && s.rows[0][TIME] < least) s.rows.shift();
  for (const m of known.marks) {
    const time = m.time + s.shift;
    if (!s.marks.some(k => k.what === m.what && Math.abs(k.time - time) < 1)) s.marks.push({ time, what: m.what });
  }
  s.marks = s.marks.filter(m => m.time > least).sort((a, b) => a.time - b.time).slice(-60);
}

function note(s, what) { s.marks.push({ time: now(), what, own: true }); }

const STOPPED = 60; // for so many seconds a peer that has said that it stops is not called down

// learn takes in one snapshot of a side; or, in peer, why there is none, and how it has ended.
function learn(s, live, peer = {}) {
  const before = s.state, { error, ended } = peer;
  s.error = error || "";
  if (!s.self) {
    if (ended && !s.ended) s.endedAt = Date.now() - peer.ended_seconds * 1e3;
    s.ended = ended;
  }
  s.state = live ? live.state : !error ? s.live ? s.state : "connecting" : peer.answers ? "mute" : ended && peer.ended_seconds < STOPPED ? "stopped" : "down";
  if (live && !(s.live && s.live.time === live.time && live.history && live.history.rows.length < 4)) {
    if (s.live && s.live.uptime_seconds > live.uptime_seconds) asked = 0; // it was started again
    const audit = a => JSON.stringify(a && a.audit);
    if (s.live && audit(s.live) !== audit(live) && s.report) asked = Math.min(asked, Date.now() - 55e3);
    if (live.latency.bounds.length) s.bounds = live.latency.bounds;
    remember(s, live);
    s.live = { ...live, history: null };
    s.seen = Date.now();
  }
  if (ended && s.marked !== s.endedAt) {
    s.marked = s.endedAt;
    note(s, lossOf(ended));
    say(s.name + " s" + lossOf(ended).slice(1));
  }
  if (["down", "mute"].includes(s.state) && before !== s.state) {
    s.downSince = ended ? s.endedAt : Date.now();
    s.least = before === "connecting" ? "at least " : "";
    note(s, wordOf(s) + ": " + s.error);
    if (before !== "connecting") say(`${s.name} ${s.state === "down" ? "is down" : "gives no figures"}: ${s.error}`);
  }
  if (s.state === "ready" && ["down", "mute", "stopped", "draining"].includes(before)) {
    if (before !== "draining") note(s, "back");
    say(s.name + " is back");
  }
  // Since when it has been full is known of what has changed while the page was open.
  const full = live && isFull(live.store);
  if (live && full !== s.full) [s.full, s.fullAt] = [full, s.full === false ? Date.now() : null];
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

// sound is a report of which each part can be relied on.
function sound(r) {
  if (!Array.isArray(r.checks)) return null;
  for (const c of r.checks) c.references = c.references || [];
  if (r.facts.sandbox) r.facts.sandbox.refused = r.facts.sandbox.refused || [];
  return r;
}

// reports asks for the audits: at the start, once a minute, when something came
// back, and on demand. The peers' histories come with them where there is a gap.
async function reports() {
  if (link !== "live" || Date.now() - asked < 60e3) return;
  const gap = asked === 0;
  asked = Date.now();
  try {
    const peers = ask("peers" + (gap ? "?history=1" : "")).then(a => a.json());
    peers.catch(() => {}); // it is awaited below, if audit answers
    const self = sides.find(s => s.self);
    try {
      self.report = sound(await ask("audit").then(a => a.json()));
    } catch (e) {
      if (e.status !== 404) throw e;
      self.absent = "it runs in no container";
    }
    draw();
    for (const p of await peers) {
      const s = side(p.name, false);
      if (p.report) s.report = sound(p.report);
      if (p.live) remember(s, p.live);
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
    if (link !== "lost") lostAt = Date.now();
    link = "lost";
    for (let left = wait; left > 0; left--) {
      status("Connection lost, trying again in " + left + " s");
      draw();
      await new Promise(done => setTimeout(done, 1000));
    }
    status("Connecting…");
  }
}

function take(frame) {
  const data = frame.split("\n").filter(l => l.startsWith("data: ")).map(l => l.slice(6)).join("\n");
  if (!data) return;
  if (link === "locked") return;
  if (frame.startsWith("event: history")) return learn(side(JSON.parse(data).variant || "imagelab", true), JSON.parse(data));
  const { live, peers } = JSON.parse(data);
  if (link === "lost") {
    say("Connected again");
    asked = 0;
  }
  link = "live";
  status("Live");
  learn(side(live.variant || "imagelab", true), live);
  for (const p of peers) learn(side(p.name, false), p.live, p);
  // By name, so that a variant has the same colour on every dashboard.
  [...sides].sort((a, b) => a.name < b.name ? 1 : -1).forEach((s, i) => { s.i = i % 9; });
  if (frame.startsWith("event: end")) {
    sides[0].ended = live.drain;
    sides[0].endedAt = Date.now();
    sides[0].state = "stopped";
    note(sides[0], lossOf(live.drain));
    say(title(sides[0]) + " s" + lossOf(live.drain).slice(1));
  } else delete sides[0].ended;
  draw();
  reports();
}

function status(text) {
  document.body.dataset.link = link;
  put($("link-text"), text);
}

function lock() {
  if (link === "locked") return;
  const tried = sessionStorage.getItem(KEY);
  sessionStorage.removeItem(KEY);
  link = "locked";
  status("Locked");
  $("content").hidden = true;
  $("token").hidden = false;
  $("token-field").setAttribute("aria-invalid", String(!!tried));
  put($("token-error"), tried ? "✕ That is not the token. It is in IMAGELAB_OPS_TOKEN, or in the file of IMAGELAB_OPS_TOKEN_FILE." : "");
  $("token-field").focus();
  show("warn", "The token is asked for");
}

// show puts the worst into title and icon.
function show(mood, head) {
  document.title = `${mood === "good" ? "✓" : mood === "warn" ? "!" : "✕"} ${head} · imagelab`;
  document.body.dataset.mood = mood;
  const icon = $("icon"), file = icon.dataset[mood];
  if (icon.getAttribute("href") !== file) icon.setAttribute("href", file);
}

/* Drawing. Everything is drawn from what is known, and changes only what differs. */

const title = s => s.name || "?";
const key = s => h("span.key.c" + s.i, { "aria-hidden": "true" });
const image = s => s.report ? s.report.facts.image : {};
const summary = s => (s.report && s.report.summary) || (s.live && s.live.audit);

let due = false;

// draw draws once for all that comes before the next picture of the window; what is not looked at at once.
function draw() {
  if (document.hidden) return drawAll();
  if (!due) requestAnimationFrame(() => { due = false; drawAll(); });
  due = true;
}

function drawAll() {
  if (link === "locked" || !sides.length && link !== "lost") return;
  $("content").hidden = false;
  if (sides.length) {
    $("self").hidden = false;
    put($("self"), title(sides[0]));
  }
  for (const s of sides) s.troubles = troublesOf(s);
  drawLead();
  for (const part of sides.length ? [drawCards, drawCharts, drawFixes, drawChecks, drawLimits] : []) {
    try {
      part();
    } catch (e) { // the other parts can be drawn
      console.error(e);
    }
  }
}

// lossOf says how a drain has ended.
function lossOf(d) {
  if (d.seconds == null) return "Stopped, how is in its log";
  const all = [];
  if (d.requests > 0) all.push(`${plural(d.requests, "request")} cut after ${span(d.seconds)}`);
  if (d.failed > 0) all.push(`${plural(d.failed, "request")} failed by the program`);
  if (d.late > 0) all.push(`${plural(d.late, "request")} too late for an answer`);
  if (all.length) return "Stopped with " + all.join(", ");
  return d.unchecked ? "Stopped, nothing seen was lost; not checked: " + d.unchecked : "Stopped cleanly, 0 lost";
}

// since is for how long rows have been of a kind, with pauses of at most 10 s: ", for 8 s", or nothing if it is not known.
function since(s, is) {
  let first = null;
  for (let i = s.rows.length - 1; i >= 0; i--) {
    if (is(s.rows[i])) first = s.rows[i][TIME];
    else if ((first ?? now()) - s.rows[i][TIME] > 11) break;
  }
  return first == null ? "" : ", for " + lasting(now() - first);
}

const isFull = st => st.capacity_bytes > 0 && (st.capacity_bytes - st.bytes < 4096 || st.free_bytes < 4096);

const memoryOf = s => s.live && (s.live.process.memory_limit_bytes != null || !s.absent) ? s.live.process.memory_bytes : null;

// troublesOf lists what is wrong with a side now: how bad, from 1 to 9; what, since when; and what to do.
function troublesOf(s) {
  const all = [], add = (bad, what, todo) => all.push({ bad, what: title(s) + " " + what, todo });
  const l = s.live, n = l && l.recent, c = l && l.command, ago = t => lasting((Date.now() - t) / 1e3);
  if (s.ended) {
    const d = s.ended, lost = d.requests > 0 || d.failed > 0;
    add(lost ? 9 : d.seconds == null || d.late > 0 || d.unchecked ? 5 : 4, `s${lossOf(d).slice(1)}, ${ago(s.endedAt)} ago`, (lost ? "IMAGELAB_SHUTDOWN_TIMEOUT is how long requests have. " : "") + "Its log says which signal came.");
  }
  const down = s.state === "down";
  if (down || s.state === "mute") {
    add(9, `${down ? "is down" : "gives no figures"}${s.downSince ? " for " + s.least + ago(s.downSince) : ""}: ${s.error}`, down ? "Does its container run? docker ps -a shows its exit code, docker logs its last words." : "It runs, but its settings or its version do not go with this one's.");
  }
  if (!l || ["down", "mute", "stopped"].includes(s.state)) return all;
  const held = l.state_seconds == null ? "" : ` for ${lasting(l.state_seconds)}`;
  if (["failing", "given up", "restarting"].includes(s.state)) add(s.state === "restarting" ? 6 : 8, `has a program that is ${s.state === "failing" ? "not answering its probe" : s.state === "given up" ? "given up" : "being started again"}${held}` + (c && c.last ? `; the last one ended with ${c.last}` : ""), "The program's own output is in the container's log.");
  else if (c) {
    const again = s.marks.filter(m => m.what.startsWith("restarted")), last = again.length && now() - again.at(-1).time;
    if (again.length > 2 || again.length && last < 60) add(6, `has restarted its program ${plural(again.length, "time")} in ten minutes, ${lasting(last)} ago the last: ${c.last}`, "The program's own output is in the container's log.");
  }
  if (s.state === "starting") add(3, "is starting" + held, "It gets no requests until it is ready.");
  if (s.state === "disabled") add(5, "was taken out by hand" + (held && held.slice(4) + " ago"), "POST readyz/enable brings it back.");
  if (s.state === "draining") add(4, "is draining" + held, "It was told to stop, and finishes what it has.");
  if (n && n.failed > 0 && n.failed > n.store_full + n.rejected) {
    add(7 + Math.min(.9, n.failed / n.requests), `answers ${share(n.failed, n.requests)} of its requests with 5xx${since(s, r => r[FAILED] > 0)}`, "Each of them is a line with its path and status in the container's log.");
  }
  const st = l.store, refused = n && n.store_full > 0;
  if (refused || s.full) add(refused ? 7.95 : 4.5, `has a full store${refused ? ", for " + lasting(n.store_full_seconds) : s.fullAt ? ", for " + ago(s.fullAt) : ""}: ${memory(st.bytes)} of ${memory(st.capacity_bytes)}` + (refused ? `, ${plural(n.store_full, "upload")} refused in the last ${Math.round(n.seconds)} s` : ""), "DELETE blobs that nobody needs, or raise IMAGELAB_STORE_CAPACITY and the tmpfs.");
  if (n && n.rejected > 0) add(7.9, `refused ${plural(n.rejected, "request")} in the last ${Math.round(n.seconds)} s for want of room${since(s, r => r[REJECTED] > 0)}`, "Raise IMAGELAB_MAX_CONNS, IMAGELAB_MAX_IN_FLIGHT or the memory limit, or start one more.");
  const used = memoryOf(s), limit = l.process.memory_limit_bytes;
  if (used > .9 * limit) add(6, `uses ${share(used, limit)} of its memory limit${since(s, r => r[MEMORY] > .9 * limit)}`, "At the limit the kernel ends it: raise the limit, or lower the load.");
  const waits = throttledOf(s);
  if (waits > .1) add(3.5, `waits for its processor quota, ${waits.toFixed(1)} s in each second${since(s, r => r[THROTTLED] > .02)}`, "Raise cpus, or lower the load.");
  return all;
}

// throttledOf is the mean of the last 10 s.
function throttledOf(s) {
  const rows = s.rows.slice(-10).filter(r => r[THROTTLED] >= 0);
  return rows.length ? rows.reduce((sum, r) => sum + r[THROTTLED], 0) / rows.length : 0;
}

function drawLead() {
  const self = sides[0];
  let all = sides.flatMap(s => s.troubles).sort((a, b) => b.bad - a.bad);
  if (link === "lost" && !(self && self.ended)) {
    all = [{ bad: 9.5, what: `No word from ${self ? title(self) : "this server"} for ${lasting((Date.now() - (self && self.seen || lostAt)) / 1e3)}`, todo: "What follows is from before. Does its container run?" }, ...all];
  }
  const audits = sides.filter(s => summary(s) && summary(s).fail > 0);
  const fails = audits.map(s => `${title(s)} fails ${plural(summary(s).fail, "check")}`).join(", ");
  const checks = audits.length > 2 ? `${audits.length} of ${sides.length} fail checks` : fails;
  const [worst, ...rest] = all;
  let head, sub, mood;
  if (worst) {
    mood = worst.bad >= 6 ? "bad" : "warn";
    head = worst.what;
    sub = [worst.todo, ...rest.map(t => t.what + ".")];
  } else if (sides.some(s => s.state === "connecting")) {
    [head, sub, mood] = ["Waiting for " + sides.filter(s => s.state === "connecting").map(title).join(", "), [], "warn"];
  } else {
    mood = audits.length ? "warn" : "good";
    head = audits.length ? "Serving well, but " + checks : "All is well";
    const idle = sides.filter(s => !(s.live.recent && s.live.recent.requests > 0));
    sub = sides.filter(s => !idle.includes(s)).map(s => `${title(s)}: ${quickOf(s).filter(q => q[3]).map(q => q[3]).join(", ")}.`);
    if (idle.length) sub.push(`No requests: ${idle.map(title).join(", ")}.`);
  }
  if (fails && !head.endsWith(fails)) sub.push(fails + ".");
  put($("headline"), head);
  swap($("subline"), sub, () => sub.map(t => h("span", t + " ")));
  show(mood, head);
}

// quickOf lists the numbers of a side: name, value, whether it is bad, and the words of the headline where it belongs
// there. Health probes are no part of them. Without a container and a limit the cgroup is anybody's.
function quickOf(s) {
  const l = s.live, n = l && l.recent, r = s.rows.at(-1);
  if (!l || !r) return [];
  const over = n ? ` in ${Math.round(n.seconds)} s` : "";
  const used = memoryOf(s), limit = l.process.memory_limit_bytes;
  const requests = n && n.seconds > 0 ? n.requests / n.seconds : null, failed = n && n.requests > 0 ? n.failed > 0 ? `${share(n.failed, n.requests)} of ${whole(n.requests)}` : "none" : "–";
  return [
    ["Failed" + over, failed, n && n.failed > 0, failed + " failed"],
    ["p99" + over, atMost(r[P99], s.bounds), false, r[P99] >= 0 && "p99 " + atMost(r[P99], s.bounds)],
    [used == null ? "Memory, resident" : "Memory", used == null ? memory(l.process.resident_bytes) : memory(used) + (limit ? " of " + memory(limit) : ", no limit"), used > .9 * limit, null, used != null && limit && used / limit],
    ["In flight", whole(l.requests.in_flight)],
    ["Requests", rate(requests), false, requests > 0 && rate(requests)],
  ];
}

function drawCards() {
  swap($("cards"), sides.map(s => [s.name, s.self, s.i]), () => sides.map(s => s.card = h("article.card.c" + s.i, { "aria-label": title(s) })));
  for (const s of sides) {
    const l = s.live, c = l && l.command, quick = quickOf(s), seen = lasting((Date.now() - s.seen) / 1e3) + " ago";
    const gone = ["down", "mute", "stopped"].includes(s.state), stale = gone || link === "lost", worst = s.troubles.filter(t => t.bad >= 6).map(t => t.what), bad = gone ? [] : worst;
    let since = l && l.state_seconds != null ? "for " + lasting(l.state_seconds) : "";
    if (s.ended) since = `${lossOf(s.ended)}, ${lasting((Date.now() - s.endedAt) / 1e3)} ago`;
    else if (gone) since = s.error;
    else if (link === "lost" && s.seen) since = "as of " + seen;
    else if (s.state === "disabled") since += ", closed by hand; POST readyz/enable opens it";
    if (gone && s.seen && !s.ended) since += ", last seen " + seen;
    const where = l ? `${s.self ? "serves this page · " : ""}${l.version} · up ${span(l.uptime_seconds)}` : "";
    const drain = s.state === "draining" && l.drain.deadline_seconds, most = drain && l.drain.deadline_seconds;
    swap(s.card, [s.state, since, where, worst, quick, c, drain && [l.requests.in_flight, l.connections, l.drain.seconds], stale], () => [
      h("header", key(s), h("h3", { title: title(s) }, title(s)), worst.length ? pill("fail", "✕", s.state === "ready" ? "ready, in trouble" : wordOf(s)) : pill(s.state, states[s.state] || "?", wordOf(s)), h("p.since", since), h("p.note", where)),
      h("dl.quick", quick.map(([name, value, bad, , part]) => h("div", h("dt", name), h(bad ? "dd.trouble" : "dd", (bad ? "✕ " : "") + value, part ? h("span.meter", { "aria-hidden": "true" }, h("i.c" + s.i, { "--w": Math.min(1, part) })) : null)))),
      drain && h("p.drain", h("progress", { max: most, value: Math.min(most, l.state_seconds), "aria-label": "Time used of the drain's deadline" }), ` ${lasting(l.state_seconds)} of at most ${span(most)}, waiting for ${awaited(l)}`),
      c && h("dl.quick.program", [["Program", s.state + (c.up ? ", up " + span(c.uptime_seconds) : ", not running")], ["Generation", whole(c.generation)], ["Restarts", whole(c.restarts)], ["Reloads", whole(c.reloads)], ["Last exit", c.last || "none"]].map(([name, value]) => h("div", h("dt", name), h("dd", value)))),
      stale && quick.length > 0 && h("p.note", "These figures are from before."),
      bad.length > 0 && h("p.trouble", "✕ " + bad.map(t => t.slice(title(s).length + 1)).join("; ")),
    ]);
  }
}

// awaited is what a drain waits for.
function awaited(l) {
  const n = l.requests.in_flight, all = [n && plural(n, "request") + " in flight", l.connections && plural(l.connections, "connection")].filter(Boolean);
  if (l.command && l.command.up && (l.drain.seconds != null || !all.length)) return "the program to end";
  return all.join(" and ") || "nothing more";
}

/* Charts, in SVG. All have the same time axis, and one crosshair. */

const seconds = v => v < 0 ? "–" : v.toFixed(2) + " s";
const classes = [[OK, "2xx", "ok"], [REDIRECT, "3xx", "redirect"], [REFUSED, "4xx", "refused"], [FAILED, "5xx", "failed"]];
const quantiles = [[P99, "p99", "q2"], [P90, "p90", "q1"], [P50, "p50", "q0"]];

// chartsOf lists the charts: two of each side, and one of all sides for each of the other figures.
function chartsOf() {
  const each = sides.flatMap(s => [
    { id: s.name + " r", title: `Requests a second by class: ${title(s)}`, sides: [s], lines: classes, stack: true, show: rate, least: 1 },
    { id: s.name + " q", title: `Latency within 10 s: ${title(s)}`, sides: [s], lines: quantiles, step: true, show: v => atMost(v, s.bounds) },
  ]);
  const limit = get => s => s.live && get(s.live.process);
  return [...each,
    { id: "cpu", title: "Processors in use", lines: [[CPU]], show: v => v < 0 ? "–" : v.toFixed(2), least: .1, limit: limit(p => p.cpu_limit) },
    { id: "throttled", title: "Throttled, seconds in each second", lines: [[THROTTLED]], show: seconds, least: .1 },
    { id: "memory", title: "Memory of the container", lines: [[MEMORY]], show: v => v < 0 ? "–" : memory(v), least: GiB / 128, unit: true, limit: limit(p => p.memory_limit_bytes) },
    { id: "flight", title: "Requests in flight", lines: [[FLIGHT]], show: whole, least: 4 },
    { id: "conns", title: "Connections", lines: [[CONNS]], show: whole, least: 4 },
  ].map(c => ({ sides, ...c }));
}

// short cuts a name in its middle: what tells replicas apart is at their ends.
const short = name => name.length > 12 ? name.slice(0, 5) + "…" + name.slice(-6) : name;

// nice rounds up to what has a round half, by powers of ten of the unit.
function nice(n, unit) {
  n /= unit;
  const power = 10 ** Math.floor(Math.log10(n));
  return [1, 2, 4, 6, 8, 10].find(f => f * power >= n * .999) * power * unit;
}

const figures = new Map();
const clock = t => new Date(t * 1e3).toLocaleTimeString("en-GB");

// nearest is the row of a moment, or nothing in a gap.
function nearest(s, t) {
  let low = 0, high = s.rows.length;
  while (low < high) {
    const mid = low + high >> 1;
    if (s.rows[mid][TIME] < t) low = mid + 1;
    else high = mid;
  }
  const [a, b] = [s.rows[low - 1], s.rows[low]];
  const r = !a ? b : !b ? a : t - a[TIME] < b[TIME] - t ? a : b;
  return r && Math.abs(r[TIME] - t) < 3 ? r : null;
}

let room = 100; // for labels, in each chart the same
const longest = () => Math.max(...[...figures.values()].map(f => f.longest || 0));

// axis is the time axis of all charts: as much as is known, in whole minutes that have a half.
function axis() {
  const first = Math.min(now(), ...sides.filter(s => s.rows.length).map(s => s.rows[0][TIME]));
  room = Math.max(room, longest());
  return { end: now(), age: [60, 120, 240, 360, 480].find(a => a >= now() - first - 1) || WINDOW };
}

function drawCharts() {
  const list = chartsOf(), names = list.map(c => c.id);
  swap($("charts"), names, () => {
    for (const id of figures.keys()) if (!names.includes(id)) figures.delete(id);
    return list.map(c => {
      let f = figures.get(c.id);
      if (!f) {
        const plot = svg("svg", { role: "img", onpointermove: e => point(f, e.offsetX), onpointerleave: () => look(null) });
        const table = h("details", { ontoggle: () => drawAll() }, h("summary", "As a table"), h("div.scroll"));
        f = { plot, table, now: h("p.now"), node: h("figure.chart", h("figcaption", h("h3", { title: c.title }, c.title)), plot, table) };
        figures.set(c.id, f);
      }
      return f.node;
    });
  });
  const a = axis();
  const range = $("at"), ago = cross == null ? 0 : Math.round(a.end - cross);
  if (cross != null && ago > a.age) cross = null;
  range.min = String(-Math.floor(a.age));
  range.value = String(-ago);
  const words = cross == null ? "now" : `${clock(cross)}, ${span(ago)} ago`;
  put($("at-text"), words);
  range.setAttribute("aria-valuetext", words + ": " + sides.map(s => {
    const r = nearest(s, cross ?? s.rows.at(-1)?.[TIME]);
    return title(s) + " " + (r ? `${rate(r[OK] + r[REDIRECT] + r[REFUSED] + r[FAILED])}, ${rate(r[FAILED])} with 5xx, p99 ${atMost(r[P99], s.bounds)}` : "nothing known");
  }).join("; "));
  for (const c of list) drawChart(c, figures.get(c.id), a);
  if (longest() > room) draw(); // with room for the labels
  const marks = sides.flatMap(s => s.marks.map(m => ({ ...m, s }))).sort((a, b) => b.time - a.time).slice(0, 12);
  swap($("marks"), marks.map(m => [Math.round(m.time), m.what, m.s.name]), () => marks.length ? marks.map(m => h("li", h("time", clock(m.time)), " ", h("b", title(m.s)), " " + m.what)) : h("li", "Nothing in the last ten minutes"));
}

// look moves the crosshair, with a moment or null for now.
function look(t) {
  cross = t;
  draw();
}

function point(f, x) {
  if (f.scale && x >= f.scale.left) look(Math.min(f.scale.end, f.scale.time(x)));
}

function drawChart(c, f, a) {
  const width = f.plot.clientWidth || 360, height = 150, narrow = width < 420, left = 62, right = narrow ? 8 : Math.min(.45 * width, room), top = 8, bottom = 22;
  const x = t => left + (width - left - right) * Math.max(0, Math.min(1, 1 - (a.end - t) / a.age));
  f.scale = { left, end: a.end, time: x => a.end - a.age * (1 - (x - left) / (width - left - right)) };
  const from = a.end - a.age;
  const visible = c.sides.map(s => s.rows.filter(r => r[TIME] >= from));
  let most, y, ticks;
  if (c.step) { // latency: a step for each bucket
    const used = visible.flat().flatMap(r => c.lines.map(([f]) => r[f]).filter(v => v >= 0));
    const low = Math.max(0, Math.min(8, ...used) - 1), high = Math.max(16, ...used) + 1;
    y = v => top + (height - top - bottom) * (1 - (v - low) / (high - low));
    ticks = [low, Math.round((low + high) / 2), high].map(v => [v, c.sides[0].bounds[v] ? edge(c.sides[0].bounds[v]) : ""]);
  } else {
    const values = visible.flat().map(r => c.stack ? c.lines.reduce((n, [f]) => n + r[f], 0) : r[c.lines[0][0]]);
    const limits = c.limit ? c.sides.map(c.limit).filter(v => v != null) : [];
    const top1 = Math.max(c.least, values.reduce((a, b) => Math.max(a, b), 0) * 1.05, ...limits.map(v => v * 1.02));
    most = nice(top1, c.unit ? top1 < GiB ? GiB / 1024 : GiB : 1);
    y = v => top + (height - top - bottom) * (1 - Math.min(v, most) / most);
    ticks = [0, most / 2, most].map(v => [v, v ? c.show(v).replace("/s", "") : "0"]);
  }
  const marks = [], labels = [], words = [];
  for (const [v, word] of ticks) {
    marks.push(svg("line.grid", { x1: left, x2: width - right, y1: y(v), y2: y(v) }), svg("text", { x: left - 6, y: y(v) + 4, "text-anchor": "end" }, word));
  }
  for (const [ago, anchor] of [[a.age, "start"], [a.age / 2, "middle"], [0, "end"]]) {
    marks.push(svg("text", { x: x(a.end - ago), y: height - 5, "text-anchor": anchor }, ago ? span(Math.round(ago)) + (ago === a.age ? " ago" : "") : "now"));
  }
  c.sides.forEach((s, i) => {
    const rows = visible[i], at = cross == null ? rows.at(-1) : nearest(s, cross);
    let free = left; // where the next mark's word has room
    for (const m of s.marks) {
      if (m.time < from) continue;
      const px = x(m.time), word = m.what.split(/[^\p{L}]/u)[0].slice(0, 11);
      marks.push(svg("line.mark.c" + s.i, { x1: px, x2: px, y1: top, y2: height - bottom }, svg("title", `${clock(m.time)} ${title(s)} ${m.what}`)));
      if (!c.stack || px < free || px + 7 * word.length > width - right) continue;
      words.push(svg("text.word", { x: px + 3, y: top + 10 }, word));
      free = px + 7 * word.length + 10;
    }
    const limit = c.limit && c.limit(s);
    if (limit != null && !(i && c.limit(c.sides[0]) === limit)) {
      marks.push(svg("line.limit", { x1: left, x2: width - right, y1: y(limit), y2: y(limit) }));
      labels.push({ y: y(limit), text: "limit " + c.show(limit), kind: "limit" });
    }
    let sums = rows.map(() => 0);
    for (const [field, word, kind] of c.lines) {
      const base = sums;
      if (c.stack) sums = rows.map((r, j) => base[j] + r[field]);
      const value = j => c.stack ? sums[j] : rows[j][field];
      const name = kind || "c" + s.i;
      let d = "", last = -Infinity, run = [];
      const close = () => { // the area of a run of a stack
        if (c.stack && run.length > 1) {
          const down = run.slice().reverse().map(j => `L${x(rows[j][TIME]).toFixed(1)} ${y(base[j]).toFixed(1)}`).join("");
          marks.push(svg("path.area." + name, { d: "M" + run.map(j => `${x(rows[j][TIME]).toFixed(1)} ${y(sums[j]).toFixed(1)}`).join("L") + down + "Z" }));
        }
        run = [];
      };
      rows.forEach((r, j) => {
        if (r[field] < 0) return last = -Infinity;
        if (c.stack && !(r[field] > 0 || rows[j - 1]?.[field] > 0 || rows[j + 1]?.[field] > 0)) return close(); // no edge of nothing
        const px = x(r[TIME]).toFixed(1), py = y(value(j)).toFixed(1);
        if (r[TIME] - last > 3) {
          close();
          d += `M${px} ${py}`;
        } else d += c.step ? `H${px}V${py}` : `L${px} ${py}`;
        run.push(j);
        last = r[TIME];
      });
      close();
      if (!c.stack) marks.push(svg("path.line." + name, { d }));
      if (c.stack && field !== OK && !rows.some(r => r[field] > 0)) continue;
      const j = rows.indexOf(at), v = at ? at[field] : -1;
      if (at && v >= 0 && j >= 0 && !c.stack) marks.push(svg("circle.end." + name, { cx: x(at[TIME]), cy: y(v), r: 3.5 }));
      const height = j >= 0 && v >= 0 ? y(c.stack ? (sums[j] + base[j]) / 2 : v) : y(0) || top;
      labels.push({ y: Number.isFinite(height) ? height : top, text: `${c.lines.length > 1 ? word : short(title(s))} ${at ? c.show(v) : "–"}`, kind: name, full: title(s) });
    }
  });
  labels.sort((a, b) => a.y - b.y);
  labels.forEach((l, i) => { l.y = narrow ? height + 8 + 15 * i : Math.max(l.y, i ? labels[i - 1].y + 14 : top + 4); });
  for (let i = labels.length - 1, floor = height - 4; i >= 0 && !narrow; i--, floor -= 14) labels[i].y = Math.min(labels[i].y, floor);
  const at = narrow ? left : width - right + 6; // below the chart, or beside it
  for (const l of labels) {
    marks.push(svg("line.key-line." + l.kind, { x1: at, x2: at + 16, y1: l.y, y2: l.y }),
      svg("text.label", { x: at + 20, y: l.y + 4 }, l.text, l.full && svg("title", l.full)));
  }
  if (cross != null) marks.push(svg("line.cursor", { x1: x(cross), x2: x(cross), y1: top, y2: height - bottom }));
  f.longest = 32 + 6.8 * Math.max(0, ...labels.map(l => l.text.length));
  const tall = Math.max(height, ...labels.map(l => l.y + 6));
  f.plot.setAttribute("viewBox", `0 0 ${width} ${tall}`);
  f.plot.setAttribute("height", tall);
  f.plot.setAttribute("aria-label", `${c.title}${cross == null ? "" : " at " + clock(cross)}: ` + labels.map(l => l.text).join(", "));
  f.plot.replaceChildren(...marks, ...words);
  if (f.table.open) drawTable(c, f);
}

// drawTable is a chart for those who read: what was the highest in each half minute.
function drawTable(c, f) {
  const step = 30, last = Math.floor(now() / step);
  swap(f.table.lastChild, [last, c.sides.map(s => s.name)], () => {
    const heads = c.sides.flatMap(s => c.lines.map(([field, word]) => [s, field, word || title(s)]));
    const lines = [];
    for (let t = last; t > last - WINDOW / step; t--) {
      const cells = heads.map(([s, field]) => s.rows.filter(r => Math.floor(r[TIME] / step) === t).reduce((m, r) => Math.max(m, r[field]), -1));
      if (cells.some(v => v >= 0)) lines.push(h("tr", h("th", { scope: "row" }, clock(t * step).slice(0, 8)), cells.map(v => h("td", v < 0 ? "–" : c.show(v)))));
    }
    return h("table", h("caption", c.title + ", the highest in each half minute"), h("thead", h("tr", h("th", { scope: "col" }, "From"), heads.map(([, , word]) => h("th", { scope: "col" }, word)))), h("tbody", lines));
  });
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

// What a check of the image's contents has found, in words, and where the report lists it.
const found = { "shell-absent": ["Shell found", "shells"], "package-manager-absent": ["Package manager found", "package_managers"], "network-client-absent": ["Network client found", "network_clients"], "setuid-absent": ["Setuid files found", "setuid_files"] };

function nameOf(l, s) {
  const [words, where] = found[l.id] || [];
  const paths = where && image(s)[where] && image(s)[where].paths;
  return paths && paths.length ? words + ": " + paths.join(", ") : "Not met: " + l.check.title;
}

// fixOf is what fixes a check for the kind of lines that was chosen. This project's own alpine variant has another one
// beside it.
function fixOf(fix, kind, s) {
  if (kind === "docker" && s.live && s.live.variant === "alpine" && /^FROM scratch/.test(fix.docker)) return "# the same binary without the rest, in imagelab's own folder\ndocker build -f Dockerfile.scratch -t imagelab:scratch .";
  return fix[kind];
}

function drawFixes() {
  if (!sides.some(s => s.report)) {
    if (sides.every(s => s.absent)) put($("fixes"), "");
    return sides.every(s => s.absent) && put($("fixes-title"), "No audit: no side runs in a container, or none could be asked");
  }
  const kind = $("kinds").kind.value;
  swap($("fixes"), [reported(), kind], () => {
    const lines = table();
    const failing = lines.filter(l => l.worst === "fail");
    const groups = new Map(); // checks that the same lines fix, where the same sides fail
    for (const l of failing.length ? failing : lines.filter(l => l.worst === "warn")) {
      const where = [...l.by].filter(([, c]) => c.status === l.worst).map(([s]) => s);
      const id = JSON.stringify([l.example.fix, where.map(title)]);
      if (!groups.has(id)) groups.set(id, { where, lines: [] });
      groups.get(id).lines.push(l);
    }
    const list = [...groups.values()];
    put($("fixes-title"), failing.length ? "To fix" : list.length ? "Nothing fails" + (sides.every(s => s.report) ? "" : " in " + sides.filter(s => s.report).map(title).join(" and ")) + ". Worth a look" : "Nothing to fix");
    $("kinds").hidden = !list.length;
    if (!list.length) return h("li.fix.pass-edge", h("p", "Every check that could be decided has passed."));
    return list.map(g => {
      const l = g.lines[0], text = fixOf(l.example.fix, kind, g.where[0]);
      return h("li.fix." + l.worst + "-edge",
        h("div.what", pill(l.worst, ...verdicts[l.worst]), h("span.note", l.check.severity + " · in"), g.where.map(s => h("span.tag", key(s), title(s)))),
        g.lines.map(l => h("p", h("strong", nameOf(l, g.where[0])), h("span.note", found[l.id] ? "" : " · " + (l.example.evidence || l.example.reason)))),
        text ? snippet(text) : h("p.note", "No such line; it is fixed in the image. The lines for Docker say how."));
    });
  });
}

// snippet is lines to copy.
function snippet(text, word) {
  return h("div.snippet", word && h("span.kind", word), h("pre", text),
    h("button", { type: "button", "aria-label": "Copy the lines" + (word ? " for " + word : ""), onclick: e => copy(e.currentTarget, text, e.currentTarget.previousElementSibling) }, "Copy"));
}

function snippets(fix) {
  return [["Compose", fix.compose], ["Kubernetes", fix.kubernetes], ["Docker", fix.docker]].filter(([, text]) => text).map(([kind, text]) => snippet(text, kind));
}

async function copy(button, text, shown) {
  const word = button.textContent;
  try {
    await navigator.clipboard.writeText(text);
  } catch { // not a secure context: the old way
    getSelection().selectAllChildren(shown);
    document.execCommand("copy");
  }
  if (word.startsWith("Copied")) return;
  put(button, "Copied");
  say("Copied");
  setTimeout(() => put(button, word), 1500);
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
  put($("no-checks"), words.length ? `No check matches “${words.join(" ")}”. ` + (show === "all" ? "Empty the field to see all." : "“All” looks in the others, too.") : show === "todo" ? "Nothing to do." : "No check differs.");
  const [head, body] = [$("checks").tHead, $("checks").tBodies[0]];
  swap(head, sides.map(s => s.name), () => h("tr", h("th", { scope: "col" }, "Check"), h("th.severity", { scope: "col" }, "Severity"), sides.map(s => h("th", { scope: "col", title: title(s) }, key(s), title(s)))));
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
    snippets(l.example.fix)))];
}

/* Contents, limits and use: a line for each figure, those that differ first of all. */

const names = c => [...new Set((c && c.paths || []).map(p => p.split("/").at(-1)))];
const listed = (c, n) => n == null ? "?" : n ? whole(n) + (names(c).length ? ": " + names(c).join(" ") : "") : "none";
const none = n => n == null ? "no limit" : whole(n);
const list = (a, empty) => !a ? "?" : a.length ? a.join(" ") : empty;
const of = (used, all, show) => (used == null ? "" : show(used) + " of ") + (all == null ? "no limit" : show(all));
const facts = [
  ["Image size", f => MB(f.image.bytes)],
  ["Base", f => f.image.distribution || "none"],
  ["Files", f => whole(f.image.files)],
  ["Executables", f => whole(f.image.executables)],
  ["Packages", f => { const n = f.image.packages && f.image.packages.reduce((n, p) => n + (p.packages || 0), 0); return n == null ? "?" : n ? whole(n) : "none"; }],
  ...[["Shells", "shells"], ["Package managers", "package_managers"], ["Network clients", "network_clients"], ["Setuid files", "setuid_files"]].map(([word, key]) => [word, f => listed(f.image[key], f.image[key] && f.image[key].count)]),
  ["User", f => `${f.process.uid ?? "?"}:${f.process.gid ?? "?"}`],
  ["Capabilities", f => list(f.process.bounding, "none")],
  ["No new privileges", f => f.process.no_new_privileges == null ? "?" : f.process.no_new_privileges ? "set" : "not set"],
  ["seccomp", f => f.process.seccomp || "?"],
  ["Sandbox", f => !f.sandbox || !f.sandbox.of ? "none" : `${f.sandbox.of}: ${list(f.sandbox.applied, "nothing")}` +
    (f.sandbox.refused.length ? `, refused ${f.sandbox.refused.map(r => r.part).join(" ")}` : "")],
  ["Writable", f => list(f.writable_mounts, "nothing")],
  ["CPUs", f => f.limits.cpus == null ? "no limit" : String(f.limits.cpus)],
  ["Processes", f => none(f.limits.pids)],
  ["Memory, resident", (f, l) => memory(l.process.resident_bytes)],
  ["Memory of the container", (f, l) => of(l.process.memory_bytes, f.limits.memory_bytes, memory)],
  ["Throttled since the start", (f, l) => l.process.cpu_throttled_seconds == null ? "?" : span(l.process.cpu_throttled_seconds)],
  ["Open files", (f, l) => of(l.process.open_files, f.limits.open_files_soft, whole)],
  ["Store", (f, l) => `${of(l.store.bytes, l.store.capacity_bytes, memory)}, ${plural(l.store.blobs, "blob")}, ${plural(l.store.full, "upload")} refused as it was full`],
  ["Health probe", (f, l) => l.probes.total ? `${span(l.probes.sum_seconds / l.probes.total)} each, ${whole(l.probes.total)} answered` : "none yet"],
  ["Start to ready", f => f.app ? span(f.app.start_seconds) : "?"],
  ["Requests since the start", (f, l) => `${whole(l.requests.total)}, ${whole(l.requests.failed)} failed, ${whole(l.requests.rejected)} refused, ${plural(l.requests.panics, "panic")}`],
];

function drawLimits() {
  const known = sides.filter(s => s.report && s.live), alone = sides.length < 2;
  $("same-label").hidden = alone;
  const lines = facts.map(([word, get]) => [word, sides.map(s => known.includes(s) ? get(s.report.facts, s.live) : s.absent ? "no report: " + s.absent : "…")])
    .filter(([, cells]) => alone || $("same").checked || new Set(cells).size > 1);
  swap($("limits").tHead, sides.map(s => s.name), () => h("tr", h("th", { scope: "col" }, h("span.quiet", "Fact")), sides.map(s => h("th", { scope: "col", title: title(s) }, key(s), title(s)))));
  swap($("limits").tBodies[0], lines, () => lines.map(([word, cells]) => h("tr", h("th", { scope: "row" }, word), cells.map(c => h("td", c)))));
}

/* Start. */

$("filter").addEventListener("input", drawChecks);
$("kinds").addEventListener("input", drawFixes);
$("same").addEventListener("input", drawLimits);
for (const id of ["filter", "kinds"]) $(id).addEventListener("submit", e => e.preventDefault());
$("copy-all").addEventListener("click", e => {
  const all = [...document.querySelectorAll("#fixes pre")].map(p => p.textContent);
  copy(e.currentTarget, [...new Set(all)].join("\n"), $("fixes"));
});
$("at").addEventListener("input", e => look(e.target.value === "0" ? null : now() + Number(e.target.value)));
$("at").addEventListener("keydown", e => { if (e.key === "Escape") look(null); });
$("again").addEventListener("click", () => { asked = 1; reports().then(() => say("Audited")); });
new ResizeObserver(draw).observe($("charts"));
document.addEventListener("visibilitychange", draw);

// A link carries no token, so with one the answer is fetched and shown here.
document.querySelector("footer").addEventListener("click", async e => {
  const a = e.target.closest("a");
  if (!a || !sessionStorage.getItem(KEY)) return;
  e.preventDefault();
  put($("raw-title"), a.textContent);
  put($("raw-text"), await ask(a.getAttribute("href")).then(r => r.text()).catch(e => String(e)));
  $("raw").showModal();
});
$("raw-close").addEventListener("click", () => $("raw").close());
$("token-form").addEventListener("submit", e => {
  e.preventDefault();
  sessionStorage.setItem(KEY, $("token-field").value);
  $("token-field").value = "";
  $("token").hidden = true;
  link = "loading";
  status("Connecting…");
  watch();
});
watch();
