"use strict";

// Tables: a click on a heading sorts by its column, the next one the other way round. Numbers begin
// with the largest, names with the first; what is missing comes last.
function sortBy(table, column) {
  const heads = [...table.tHead.rows[0].cells];
  const before = heads[column].ariaSort;
  const up = before ? before === "descending" : column === 0;
  heads.forEach((head) => { head.ariaSort = null; });
  heads[column].ariaSort = up ? "ascending" : "descending";
  const sign = up ? 1 : -1;
  const text = (row) => row.cells[column].textContent.trim();
  const number = (row) => {
    const value = parseFloat(text(row).replace(/[,<]/g, ""));
    return isNaN(value) ? sign * Infinity : value;
  };
  const names = (a, b) => text(a).localeCompare(text(b), "en", { numeric: true });
  const numbers = (a, b) => number(a) - number(b);
  const order = column === 0 ? names : numbers;
  table.tBodies[0].append(...[...table.tBodies[0].rows].sort((a, b) => sign * order(a, b)));
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
  constructor(place) {
    this.root = document.getElementById("player").content.firstElementChild.cloneNode(true);
    document.querySelector(place).append(this.root);
    this.inputs = [...this.root.querySelectorAll("input")];
    this.inputs.forEach((input) => { input.name = `heard-${players.length}`; });
    this.root.addEventListener("change", (event) => this.choose(event.target.value));
    this.root.addEventListener("click", ({ offsetX, target }) => {
      if (target.tagName === "IMG") this.heard.currentTime = (offsetX / target.width) * this.heard.duration;
    });
    players.push(this);
  }

  load(file) {
    this.heard?.pause();
    this.heard = null;
    this.voices = new Map();
    Object.entries(file.sources).forEach(([name, source]) => this.add(name, source));
    this.root.querySelector(".now").textContent = file.name;
    this.root.querySelector(".caption").textContent = file.why;
    this.root.querySelector(".stage").replaceChildren(...this.voices.values());
    this.root.querySelector(".fault").hidden = true;
    this.inputs.forEach(({ value, parentElement: label }) => {
      label.hidden = !this.voices.has(value);
      label.querySelector(".pesq").textContent = file.pesq[value] || "";
      const picture = file.pictures[value];
      label.querySelector(".picture").innerHTML =
        picture ? `<img src="${picture}" alt="Spectrogram"><span class="head"></span>` : "";
    });
    // What was heard of the last file is heard of this one, too.
    const names = [this.name, ...this.inputs.map((input) => input.value)];
    this.choose(names.find((name) => this.voices.has(name)));
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
    lead("play", (other) => this.join(other, voice));
    lead("pause", (other) => other.pause());
    lead("seeking", (other) => { other.currentTime = voice.currentTime; });
    voice.addEventListener("error", () => {
      const fault = this.root.querySelector(".fault");
      fault.textContent = `${name} cannot be played: is its file still there?`;
      fault.hidden = false;
    });
  }

  // Bring a voice to where another one is. One that is shorter stays silent at its end: played, it
  // would begin again.
  join(voice, { currentTime, paused }) {
    if (Math.abs(voice.currentTime - currentTime) > DRIFT) voice.currentTime = currentTime;
    if (!paused && !(currentTime >= voice.duration)) voice.play().catch(() => {});
  }

  choose(name) {
    const before = this.heard;
    this.name = name;
    this.inputs.find((input) => input.value === name).checked = true;
    this.heard = this.voices.get(name);
    if (before && before !== this.heard) {
      const { volume, muted, playbackRate } = before;
      this.join(this.heard, before);
      Object.assign(this.heard, { volume, muted, playbackRate });
      before.muted = before.hidden = true;
    } else this.heard.muted = false;
    this.heard.hidden = false;
  }

  // Versions start some hundredths of a second apart. Those that nobody hears run a little faster or
  // slower until they are in step: a jump at the change would be heard.
  follow() {
    if (!this.heard) return;
    const { currentTime, duration, playbackRate, paused } = this.heard;
    this.voices.forEach((voice) => {
      const behind = 2 * (currentTime - voice.currentTime);
      if (voice !== this.heard && !paused) {
        voice.playbackRate = playbackRate + Math.min(Math.max(behind, -0.2), 0.2);
      }
    });
    this.root.querySelectorAll(".head").forEach((head) => {
      head.style.left = `${(100 * currentTime) / (duration || 1)}%`;
    });
  }
}

const special = FILES.filter((file) => file.why).sort((a, b) => (a.why < b.why ? -1 : 1));
special.forEach((file) => new Player("#featured").load(file));
if (FILES.length) new Player("#any");
function follow() {
  players.forEach((player) => player.follow());
  requestAnimationFrame(follow);
}
follow();

// The panel for any file: a click on a row plays it.
const rows = [...document.querySelectorAll(".files tbody tr")];
rows.forEach((row, number) => {
  row.dataset.file = number;
  row.addEventListener("click", () => {
    rows.forEach((other) => other.classList.toggle("chosen", other === row));
    players.at(-1).load(FILES[number]);
    players.at(-1).heard.play().catch(() => {});
  });
});
document.querySelector(".filter input")?.addEventListener("input", (event) => {
  const wanted = event.target.value.toLowerCase();
  rows.forEach((row) => { row.hidden = !row.cells[0].textContent.toLowerCase().includes(wanted); });
});
