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

// Players: one version of a file at a time; the one that is chosen goes on where the last one was.
const FILES = JSON.parse(document.getElementById("audio").textContent);
const players = [];

class Player {
  constructor(place, file, wanted) {
    this.sources = file.sources;
    this.audio = new Audio();
    this.audio.controls = true;
    this.audio.addEventListener("play", () => {
      players.forEach((player) => player !== this && player.audio.pause());
    });
    this.root = document.getElementById("player").content.firstElementChild.cloneNode(true);
    const [now, why, stage] = this.root.querySelectorAll(".now, .why, .stage");
    now.textContent = file.name;
    why.textContent = file.why;
    stage.append(this.audio);
    this.root.querySelectorAll("input").forEach((input) => {
      const label = input.parentElement;
      if (!Object.hasOwn(this.sources, input.value)) { label.remove(); return; }
      input.name = `heard-${players.length}`;
      label.querySelector(".pesq").textContent = file.pesq[input.value] || "";
      if (file.why) label.querySelector("img").src = file.pictures[input.value];
      else label.querySelector(".picture").remove();
    });
    this.root.addEventListener("change", ({ target }) => this.choose(target));
    this.root.addEventListener("click", ({ offsetX, target }) => {
      if (target.tagName === "IMG") this.audio.currentTime = (offsetX / target.width) * this.audio.duration;
    });
    const inputs = [...this.root.querySelectorAll("input")];
    this.choose(inputs.find((input) => input.value === wanted) || inputs[0]);
    document.querySelector(place).append(this.root);
    players.push(this);
  }

  choose(input) {
    const { currentTime, paused } = this.audio;
    input.checked = true;
    this.name = input.value;
    Object.assign(this.audio, { src: this.sources[this.name], currentTime });
    if (!paused) this.audio.play().catch(() => {});
  }
}

const special = FILES.filter((file) => file.why).sort((a, b) => (a.why < b.why ? -1 : 1));
special.forEach((file) => new Player("#featured", file));
function follow() {
  players.forEach(({ audio, root }) => root.querySelectorAll(".head").forEach((head) => {
    head.style.left = `${(100 * audio.currentTime) / (audio.duration || 1)}%`;
  }));
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
    last?.audio.pause();
    document.getElementById("any").replaceChildren();
    new Player("#any", FILES[number], last?.name).audio.play().catch(() => {});
  });
});
