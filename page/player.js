// One version at a time: the next one goes on where the last one was.
(() => {
  const sounds = () => [...document.querySelectorAll("audio.sound")];
  const isSound = element => element instanceof HTMLAudioElement && element.matches(".sound");
  document.addEventListener("play", event => {
    if (!isSound(event.target)) return;
    for (const other of sounds()) {
      if (other === event.target || other.paused) continue;
      other.pause();
      event.target.currentTime = other.currentTime;
    }
  }, true);
  const follow = () => {
    for (const sound of sounds()) {
      const head = sound.closest(".version").querySelector(".head");
      const place = sound.duration > 0 ? sound.currentTime / sound.duration : 0;
      head.style.visibility = place > 0 ? "visible" : "hidden";
      head.style.left = `${100 * place}%`;
    }
    requestAnimationFrame(follow);
  };
  requestAnimationFrame(follow);
  document.addEventListener("click", event => {
    const picture = event.target.closest?.(".version .picture");
    if (!picture) return;
    const sound = picture.closest(".version").querySelector(".sound");
    const { left, width } = picture.getBoundingClientRect();
    if (sound.duration > 0) sound.currentTime = sound.duration * (event.clientX - left) / width;
  });
})();
