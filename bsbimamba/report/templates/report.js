"use strict";

// Tables: a click on a heading sorts by its column, the next one the other way round. Numbers begin
// with the largest, names with the first; what is missing comes last.
function sortBy(table, column) {
  const heads = [...table.tHead.rows[0].cells];
  const before = heads[column].getAttribute("aria-sort");
  const up = before ? before === "descending" : column === 0;
  heads.forEach((head) => head.removeAttribute("aria-sort"));
  heads[column].setAttribute("aria-sort", up ? "ascending" : "descending");
  const text = (row) => row.cells[column].textContent.trim();
  const number = (row) => parseFloat(text(row).replace(/[,<]/g, ""));
  const rows = [...table.tBodies[0].rows].sort((a, b) => {
    const [x, y] = [number(a), number(b)];
    if (column === 0) return (up ? 1 : -1) * text(a).localeCompare(text(b), "en", { numeric: true });
    if (isNaN(x) || isNaN(y)) return isNaN(x) - isNaN(y);
    return up ? x - y : y - x;
  });
  table.tBodies[0].append(...rows);
}
document.querySelectorAll("table").forEach((table) => {
  table.tHead.querySelectorAll("button").forEach((button, column) => {
    button.addEventListener("click", () => sortBy(table, column));
  });
});

// Players: all versions of a file run in step, and all but one are mute. The one that is heard shows
// the browser's controls; the others do what it does.
const FILES = JSON.parse(document.getElementById("audio").textContent);
const DRIFT = 0.03; // seconds that versions may be apart when one takes over from another
const players = [];

class Player {
  constructor(root) {
    this.root = root;
    this.labels = new Map();
    root.querySelectorAll(".source").forEach((label) => {
      const input = label.querySelector("input");
      this.labels.set(input.value, label);
      input.addEventListener("change", () => this.choose(input.value));
      const picture = label.querySelector(".picture");
      picture?.addEventListener("click", (event) => {
        const box = picture.getBoundingClientRect();
        this.heard.currentTime = ((event.clientX - box.left) / box.width) * this.heard.duration;
      });
    });
    if (root.dataset.file) this.load(FILES[root.dataset.file]);
  }

  load(file) {
    this.heard?.pause();
    this.heard = null;
    this.voices = new Map();
    Object.entries(file.sources).forEach(([name, source]) => this.add(name, source));
    this.root.querySelector(".stage").replaceChildren(...this.voices.values());
    this.root.querySelector(".fault").hidden = true;
    this.labels.forEach((label, name) => {
      label.hidden = !this.voices.has(name);
      label.querySelector(".pesq").textContent = file.pesq[name] || "";
    });
    // What was heard of the last file is heard of this one, too.
    const known = [this.name, ...this.labels.keys()].find((name) => this.voices.has(name));
    this.choose(known);
  }

  add(name, source) {
    const voice = new Audio(source);
    this.voices.set(name, voice);
    voice.controls = voice.hidden = voice.muted = true;
    const lead = (type, act) => voice.addEventListener(type, () => {
      if (voice === this.heard) this.voices.forEach((other) => other !== voice && act(other));
    });
    voice.addEventListener("play", () => {
      players.forEach((player) => player !== this && player.heard?.pause());
    });
    lead("play", (other) => this.start(other));
    lead("pause", (other) => other.pause());
    lead("seeking", (other) => { other.currentTime = voice.currentTime; });
    voice.addEventListener("error", () => {
      const fault = this.root.querySelector(".fault");
      fault.textContent = `${name} cannot be played: is its file still there?`;
      fault.hidden = false;
    });
  }

  // A version that is shorter than others stays silent at its end: played, it would begin again.
  start(voice) {
    const time = this.heard.currentTime;
    if (Math.abs(voice.currentTime - time) > DRIFT) voice.currentTime = time;
    if (!(time >= voice.duration)) voice.play().catch(() => {});
  }

  choose(name) {
    const before = this.heard;
    const next = this.voices.get(name);
    this.name = name;
    this.labels.get(name).querySelector("input").checked = true;
    this.heard = next;
    if (before && before !== next) {
      const { currentTime, volume, muted, playbackRate, paused } = before;
      Object.assign(next, { volume, playbackRate });
      if (Math.abs(next.currentTime - currentTime) > DRIFT) next.currentTime = currentTime;
      if (!paused && !(currentTime >= next.duration)) next.play().catch(() => {});
      next.muted = muted;
      before.muted = before.hidden = true;
    } else next.muted = false;
    next.hidden = false;
  }

  // Versions start some hundredths of a second apart. Those that nobody hears run a little faster or
  // slower until they are in step: a jump at the change would be heard.
  follow() {
    if (!this.heard) return;
    const { currentTime, duration, playbackRate, paused } = this.heard;
    this.voices.forEach((voice) => {
      const behind = currentTime - voice.currentTime;
      if (voice !== this.heard && !paused) {
        voice.playbackRate = playbackRate + Math.min(Math.max(2 * behind, -0.2), 0.2);
      }
    });
    this.root.querySelectorAll(".head").forEach((head) => {
      head.style.left = `${(100 * currentTime) / (duration || 1)}%`;
    });
  }
}

document.querySelectorAll(".player").forEach((root) => players.push(new Player(root)));
function follow() {
  players.forEach((player) => player.follow());
  requestAnimationFrame(follow);
}
follow();

// The panel for any file: a click on a row plays it.
const rows = [...document.querySelectorAll(".files tbody tr")];
rows.forEach((row) => row.addEventListener("click", () => {
  const panel = players.at(-1);
  rows.forEach((other) => other.classList.toggle("chosen", other === row));
  document.querySelector("#listen .now").textContent = row.cells[0].textContent.trim();
  panel.load(FILES[row.dataset.file]);
  panel.heard.play().catch(() => {});
}));
document.querySelector(".filter input")?.addEventListener("input", (event) => {
  const wanted = event.target.value.toLowerCase();
  rows.forEach((row) => { row.hidden = !row.cells[0].textContent.toLowerCase().includes(wanted); });
});
