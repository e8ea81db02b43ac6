"use strict";

// Tables: a click on a heading sorts by its column, the next one the other way round.
function sortBy(table, column) {
  const heads = [...table.tHead.rows[0].cells];
  const rows = [...table.tBodies[0].rows];
  const value = (row) => row.cells[column].dataset.sort;
  const numeric = rows.every((row) => value(row) === undefined || !isNaN(value(row)));
  const before = heads[column].getAttribute("aria-sort");
  // Numbers begin with the largest, names with the first.
  const up = before ? before === "descending" : !numeric;
  heads.forEach((head) => head.removeAttribute("aria-sort"));
  heads[column].setAttribute("aria-sort", up ? "ascending" : "descending");
  rows.sort((a, b) => {
    const [x, y] = [value(a), value(b)];
    if (x === undefined || y === undefined) return (x === undefined) - (y === undefined);
    const order = numeric ? x - y : x.localeCompare(y, undefined, { numeric: true });
    return up ? order : -order;
  });
  table.tBodies[0].append(...rows);
}
document.querySelectorAll("table.sortable").forEach((table) => {
  [...table.tHead.rows[0].cells].forEach((head, column) => {
    head.querySelector("button").addEventListener("click", () => sortBy(table, column));
  });
});

// Players: all versions of a file run in step, and all but one are mute.
const FILES = JSON.parse(document.getElementById("audio").textContent);
const DRIFT = 0.03; // seconds that versions may be apart when one takes over from another
let current = null; // the player that keys go to

class Player {
  constructor(root) {
    this.root = root;
    this.button = root.querySelector(".play");
    this.seeker = root.querySelector(".seek");
    this.clock = root.querySelector(".time");
    this.fault = root.querySelector(".fault");
    this.repeat = root.querySelector(".loop input");
    this.labels = [...root.querySelectorAll(".source")];
    this.voices = new Map();
    this.playing = false;
    this.button.addEventListener("click", () => this.toggle());
    this.seeker.addEventListener("input", () => this.seek(this.seeker.value * this.seconds));
    this.labels.forEach((label) => {
      label.querySelector("input").addEventListener("change", () => this.choose(label.dataset.source));
      const picture = label.querySelector(".picture");
      if (!picture) return;
      picture.addEventListener("click", (event) => {
        const box = picture.getBoundingClientRect();
        this.seek(((event.clientX - box.left) / box.width) * this.seconds);
      });
    });
    root.addEventListener("pointerdown", () => { current = this; });
    root.addEventListener("focusin", () => { current = this; });
    this.load(root.dataset.file);
  }

  load(name) {
    this.pause();
    this.voices.clear();
    const file = Object.hasOwn(FILES, name) ? FILES[name] : null;
    this.addresses = file ? file.sources : {};
    this.seconds = file ? file.seconds : 0;
    this.position = 0;
    this.fault.hidden = true;
    this.button.disabled = this.seeker.disabled = !file;
    const there = (label) => Object.hasOwn(this.addresses, label.dataset.source);
    this.labels.forEach((label) => {
      label.hidden = !there(label);
      if (!label.querySelector(".picture")) {
        const own = file ? file.pesq[label.dataset.source] : "";
        label.querySelector(".pesq").textContent = own || "";
      }
    });
    // What was heard of the last file is heard of this one, too.
    const kept = this.labels.find((label) => label.dataset.source === this.heard && there(label));
    const chosen = kept || this.labels.find(there);
    this.heard = chosen ? chosen.dataset.source : null;
    if (chosen) chosen.querySelector("input").checked = true;
    this.show();
  }

  voice(name) {
    if (!this.voices.has(name)) {
      const voice = new Audio();
      voice.preload = "auto";
      voice.muted = name !== this.heard;
      voice.addEventListener("loadedmetadata", () => {
        this.seconds = Math.max(this.seconds, voice.duration || 0);
        this.show();
      });
      voice.addEventListener("ended", () => { if (name === this.heard) this.end(); });
      voice.addEventListener("error", () => {
        this.fault.textContent = `${name} cannot be played: is its file still there?`;
        this.fault.hidden = false;
      });
      voice.src = this.addresses[name];
      this.voices.set(name, voice);
    }
    return this.voices.get(name);
  }

  toggle() { this.playing ? this.pause() : this.play(); }

  play() {
    players.forEach((other) => { if (other !== this) other.pause(); });
    current = this;
    this.playing = true;
    for (const name of Object.keys(this.addresses)) {
      const voice = this.voice(name);
      voice.currentTime = this.position;
      voice.play().catch(() => {});
    }
    this.button.setAttribute("aria-pressed", "true");
    this.button.querySelector(".word").textContent = "Pause";
    requestAnimationFrame(() => this.follow());
  }

  pause() {
    this.playing = false;
    this.voices.forEach((voice) => voice.pause());
    this.button.setAttribute("aria-pressed", "false");
    this.button.querySelector(".word").textContent = "Play";
  }

  end() {
    this.position = 0;
    if (this.repeat.checked) this.play();
    else { this.pause(); this.show(); }
  }

  choose(name) {
    if (!Object.hasOwn(this.addresses, name)) return;
    const before = this.playing ? this.voice(this.heard) : null;
    this.heard = name;
    this.labels.find((label) => label.dataset.source === name).querySelector("input").checked = true;
    if (before) {
      const next = this.voice(name);
      if (Math.abs(next.currentTime - before.currentTime) > DRIFT) next.currentTime = before.currentTime;
      if (next.paused) next.play().catch(() => {});
    }
    this.voices.forEach((voice, other) => { voice.muted = other !== name; voice.playbackRate = 1; });
  }

  seek(seconds) {
    this.position = Math.min(Math.max(seconds, 0), this.seconds);
    this.voices.forEach((voice) => { voice.currentTime = this.position; });
    this.show();
  }

  follow() {
    if (!this.playing) return;
    const heard = this.voice(this.heard);
    this.position = heard.currentTime;
    // Versions start some hundredths of a second apart. Those that nobody hears run a little faster
    // or slower until they are in step: a jump at the change would be heard.
    this.voices.forEach((voice) => {
      const behind = voice === heard ? 0 : heard.currentTime - voice.currentTime;
      voice.playbackRate = 1 + Math.min(Math.max(2 * behind, -0.2), 0.2);
    });
    this.show();
    requestAnimationFrame(() => this.follow());
  }

  show() {
    const share = this.seconds ? this.position / this.seconds : 0;
    this.seeker.value = share;
    this.clock.textContent = `${this.position.toFixed(1)} of ${this.seconds.toFixed(1)} s`;
    this.seeker.setAttribute("aria-valuetext", this.clock.textContent);
    this.root.querySelectorAll(".head").forEach((head) => { head.style.left = `${100 * share}%`; });
  }
}

const players = [];
document.querySelectorAll(".player").forEach((root) => players.push(new Player(root)));

// The panel for any file.
const panel = document.querySelector("#listen .player");
if (panel) {
  const player = players.find((each) => each.root === panel);
  const rows = [...document.querySelectorAll(".files tbody tr")];
  const open = (row, play) => {
    rows.forEach((other) => other.classList.toggle("chosen", other === row));
    document.querySelector("#listen .now").textContent = row.dataset.file;
    player.load(row.dataset.file);
    if (play) player.play();
  };
  rows.forEach((row) => row.addEventListener("click", () => open(row, true)));
  document.querySelector(".filter input").addEventListener("input", (event) => {
    const wanted = event.target.value.toLowerCase();
    rows.forEach((row) => { row.hidden = !row.dataset.file.toLowerCase().includes(wanted); });
  });
}

// Keys, wherever the focus is but where they mean something else.
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const player = current || players[0];
  if (!player || event.target.matches("input[type=search]")) return;
  const shown = player.labels.filter((label) => !label.hidden);
  if (/^[1-9]$/.test(event.key) && shown[event.key - 1]) {
    player.choose(shown[event.key - 1].dataset.source);
  } else if (event.key === " " && !event.target.closest("button, a, input[type=checkbox]")) {
    player.toggle();
  } else if (/^Arrow(Left|Right)$/.test(event.key) && !event.target.closest("input, .scroll")) {
    player.seek(player.position + (event.key === "ArrowLeft" ? -1 : 1));
  } else return;
  event.preventDefault();
});
