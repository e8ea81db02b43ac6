"use strict";

// A click on a heading sorts by its column, the next one the other way round; what is missing is last.
document.querySelectorAll("table").forEach((table) => {
  const heads = [...table.tHead.rows[0].cells];
  const [body] = table.tBodies;
  heads.forEach((head, column) => head.addEventListener("click", () => {
    const up = head.ariaSort ? head.ariaSort === "descending" : column === 0;
    heads.forEach((other) => { other.ariaSort = null; });
    head.ariaSort = up ? "ascending" : "descending";
    const text = (row) => row.cells[column].textContent;
    const number = (row) => parseFloat(text(row).replace(/[,<]/g, ""));
    const last = (row) => column && isNaN(number(row));
    const order = (a, b) => (up ? 1 : -1) * (column
      ? number(a) - number(b) : text(a).localeCompare(text(b), "en", { numeric: true }));
    body.append(...[...body.rows].sort((a, b) => last(a) - last(b) || order(a, b)));
  }));
});

// Players: all versions of a file run in step, and all but one are mute. The one that is heard shows
// the browser's controls; the others do what it does.
const FILES = JSON.parse(document.getElementById("audio").textContent);
const DRIFT = 0.03; // seconds that versions may be apart when one takes over from another
const players = [];

class Player {
  constructor(place, file, wanted) {
    this.root = document.getElementById("player").content.firstElementChild.cloneNode(true);
    const [now, why, stage] = this.root.querySelectorAll(".now, .why, .stage");
    now.textContent = file.name;
    why.textContent = file.why;
    this.voices = new Map(Object.entries(file.sources).map(([name, source]) => [name, new Audio(source)]));
    stage.append(...this.voices.values());
    this.voices.forEach((voice) => {
      voice.controls = voice.hidden = voice.muted = true;
      voice.addEventListener("play", () => {
        players.forEach((player) => player !== this && player.heard.pause());
      });
    });
    const names = [];
    this.root.querySelectorAll("input").forEach((input) => {
      const label = input.parentElement;
      if (!this.voices.has(input.value)) { label.remove(); return; }
      names.push(input.value);
      input.name = `heard-${players.length}`;
      label.querySelector(".pesq").textContent = file.pesq[input.value] || "";
      if (file.why) label.querySelector("img").src = file.pictures[input.value];
      else label.querySelector(".picture").remove();
    });
    this.root.addEventListener("change", ({ target }) => this.choose(target.value));
    this.root.addEventListener("click", ({ offsetX, target }) => {
      if (target.tagName === "IMG") this.heard.currentTime = (offsetX / target.width) * this.heard.duration;
    });
    this.choose(names.includes(wanted) ? wanted : names[0]);
    document.querySelector(place).append(this.root);
    players.push(this);
  }

  choose(name) {
    const before = this.heard;
    this.name = name;
    this.root.querySelector(`[value="${CSS.escape(name)}"]`).checked = true;
    this.heard = this.voices.get(name);
    this.heard.muted = this.heard.hidden = false;
    if (!before) return;
    const { currentTime, volume, muted, playbackRate, paused } = before;
    if (Math.abs(this.heard.currentTime - currentTime) > DRIFT) this.heard.currentTime = currentTime;
    Object.assign(this.heard, { volume, muted, playbackRate });
    if (!paused) this.heard.play().catch(() => {});
    before.muted = before.hidden = true;
  }

  // Versions start some hundredths of a second apart. Those that nobody hears run a little faster or
  // slower until they are in step: a jump at the change would be heard. One that is shorter stays
  // silent at its end: played, it would begin again.
  follow() {
    const { currentTime, duration, playbackRate, paused } = this.heard;
    this.voices.forEach((voice) => {
      if (voice === this.heard) return;
      const behind = currentTime - voice.currentTime;
      const isOver = currentTime >= voice.duration;
      if (Math.abs(behind) > 0.2 && !voice.seeking && !isOver) voice.currentTime = currentTime;
      if (paused || isOver) voice.pause();
      else if (voice.paused) voice.play().catch(() => {});
      voice.playbackRate = playbackRate + Math.min(Math.max(2 * behind, -0.2), 0.2);
    });
    this.root.querySelectorAll(".head").forEach((head) => {
      head.style.left = `${(100 * currentTime) / (duration || 1)}%`;
    });
  }
}

const special = FILES.filter((file) => file.why).sort((a, b) => (a.why < b.why ? -1 : 1));
special.forEach((file) => new Player("#featured", file));
function follow() {
  players.forEach((player) => player.follow());
  requestAnimationFrame(follow);
}
follow();

// The panel for any file: a click on a row plays it, in the version that was heard of the last one.
const rows = [...document.querySelectorAll(".files tbody tr")];
rows.forEach((row, number) => {
  row.tabIndex = 0;
  row.addEventListener("keydown", ({ key }) => { if (key === "Enter") row.click(); });
  row.addEventListener("click", () => {
    rows.forEach((other) => other.classList.toggle("chosen", other === row));
    const [last] = players.splice(special.length);
    last?.heard.pause();
    document.getElementById("any").replaceChildren();
    new Player("#any", FILES[number], last?.name).heard.play().catch(() => {});
  });
});
