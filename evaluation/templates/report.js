"use strict";

// Tables: a click on a heading sorts by its column, the next one the other way round.
function sortBy(table, column) {
  const heads = [...table.tHead.rows[0].cells];
  const rows = [...table.tBodies[0].rows];
  const value = (row) => row.cells[column].dataset.sort;
  const numeric = rows.every((row) => value(row) === undefined || !isNaN(value(row)));
  const before = heads[column].getAttribute("aria-sort");
  // Numbers begin with the largest, names with the first. What is missing comes last.
  const up = before ? before === "descending" : !numeric;
  heads.forEach((head) => head.removeAttribute("aria-sort"));
  heads[column].setAttribute("aria-sort", up ? "ascending" : "descending");
  rows.sort((a, b) => {
    const [x, y] = [value(a), value(b)];
    if (x === undefined || y === undefined) return (x === undefined) - (y === undefined);
    return (up ? 1 : -1) * (numeric ? x - y : x.localeCompare(y, undefined, { numeric: true }));
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
    this.button.addEventListener("click", () => this.toggle());
    this.seeker.addEventListener("input", () => this.seek(this.seeker.value * this.seconds));
    this.labels.forEach((label) => {
      label.querySelector("input").addEventListener("change", () => this.choose(label.dataset.source));
      const picture = label.querySelector(".picture");
      picture?.addEventListener("click", (event) => {
        const box = picture.getBoundingClientRect();
        this.seek(((event.clientX - box.left) / box.width) * this.seconds);
      });
    });
    root.addEventListener("keydown", (event) => this.key(event));
    this.load(root.dataset.file);
  }

  load(number) {
    this.pause();
    this.voices.clear();
    const file = FILES[number];
    this.addresses = file ? file.sources : {};
    this.seconds = file ? file.seconds : 0;
    this.position = 0;
    this.fault.hidden = true;
    this.button.disabled = this.seeker.disabled = !file;
    this.labels.forEach((label) => {
      label.hidden = !(label.dataset.source in this.addresses);
      label.querySelector(".pesq").textContent = file ? file.pesq[label.dataset.source] : "";
    });
    // What was heard of the last file is heard of this one, too.
    const shown = this.labels.filter((label) => !label.hidden);
    const chosen = shown.find((label) => label.dataset.source === this.heard) || shown[0];
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
      voice.addEventListener("error", () => {
        const label = this.labels.find((each) => each.dataset.source === name);
        const called = label.querySelector(".name").textContent.trim();
        this.fault.textContent = `${called} cannot be played: is its file still there?`;
        this.fault.hidden = false;
      });
      voice.src = this.addresses[name];
      this.voices.set(name, voice);
    }
    return this.voices.get(name);
  }

  toggle() { this.playing ? this.pause() : this.play(); }

  play() {
    if (!this.heard) return;
    players.forEach((other) => other.pause());
    this.playing = true;
    Object.keys(this.addresses).forEach((name) => this.start(this.voice(name)));
    this.button.classList.add("playing");
    this.button.querySelector(".word").textContent = "Pause";
    requestAnimationFrame(() => this.follow());
  }

  // A version that is shorter than others stays silent at its end: played, it would begin again.
  start(voice) {
    voice.currentTime = this.position;
    if (!(this.position >= voice.duration)) voice.play().catch(() => {});
  }

  pause() {
    this.playing = false;
    this.voices.forEach((voice) => voice.pause());
    this.button.classList.remove("playing");
    this.button.querySelector(".word").textContent = "Play";
  }

  choose(name) {
    if (!(name in this.addresses)) return;
    const lead = this.playing ? this.lead() : null;
    this.heard = name;
    this.labels.find((label) => label.dataset.source === name).querySelector("input").checked = true;
    if (lead) {
      this.position = lead.currentTime;
      const next = this.voice(name);
      if (Math.abs(next.currentTime - this.position) > DRIFT) this.start(next);
    }
    this.voices.forEach((voice, other) => { voice.muted = other !== name; voice.playbackRate = 1; });
  }

  seek(seconds) {
    this.position = Math.min(Math.max(seconds, 0), this.seconds);
    this.voices.forEach((voice) => {
      if (this.playing) this.start(voice);
      else voice.currentTime = this.position;
    });
    this.show();
  }

  // The version that tells where playing is: the one that is heard, or another once that has ended.
  lead() {
    const going = (voice) => !voice.ended && !voice.error && !voice.paused;
    return [this.voice(this.heard), ...this.voices.values()].find(going);
  }

  follow() {
    if (!this.playing) return;
    const lead = this.lead();
    if (lead) {
      this.position = lead.currentTime;
      // Versions start some hundredths of a second apart. Those that nobody hears run a little
      // faster or slower until they are in step: a jump at the change would be heard.
      this.voices.forEach((voice) => {
        const behind = voice === lead ? 0 : lead.currentTime - voice.currentTime;
        voice.playbackRate = 1 + Math.min(Math.max(2 * behind, -0.2), 0.2);
      });
      requestAnimationFrame(() => this.follow());
    } else {
      this.position = 0;
      this.repeat.checked ? this.play() : this.pause();
    }
    this.show();
  }

  show() {
    const share = this.seconds ? this.position / this.seconds : 0;
    this.seeker.value = share;
    this.clock.textContent = `${this.position.toFixed(1)} of ${this.seconds.toFixed(1)} s`;
    this.root.querySelectorAll(".head").forEach((head) => { head.style.left = `${100 * share}%`; });
  }

  // Keys that are pressed inside a player.
  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const shown = this.labels.filter((label) => !label.hidden);
    if (/^[1-9]$/.test(event.key) && shown[event.key - 1]) {
      this.choose(shown[event.key - 1].dataset.source);
    } else if (event.key === " " && !event.target.matches("button, [type=checkbox]")) {
      this.toggle();
    } else if (/^Arrow(Left|Right)$/.test(event.key) && event.target === this.seeker) {
      this.seek(this.position + (event.key === "ArrowLeft" ? -1 : 1));
    } else return;
    event.preventDefault();
  }
}

const players = [];
document.querySelectorAll(".player").forEach((root) => players.push(new Player(root)));

// The panel for any file.
const panel = players.find((each) => each.root.matches("#listen .player"));
if (panel) {
  const rows = [...document.querySelectorAll(".files tbody tr")];
  const name = (row) => row.querySelector(".choose").textContent;
  rows.forEach((row) => row.addEventListener("click", () => {
    rows.forEach((other) => other.classList.toggle("chosen", other === row));
    document.querySelector("#listen .now").textContent = name(row);
    panel.load(row.dataset.file);
    panel.play();
  }));
  document.querySelector(".filter input").addEventListener("input", (event) => {
    const wanted = event.target.value.toLowerCase();
    rows.forEach((row) => { row.hidden = !name(row).toLowerCase().includes(wanted); });
  });
}
