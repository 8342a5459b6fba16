const net = data.network;
if (net && net.places) {
  const slider = pick("network-step"), words = pick("network-told"), play = pick("network-play");
  let timer = null, ring = null;
  const own = () => net.policies[now.policy];
  const draw = () => {
    const at = Number(slider.value), who = own().active[at], svg = root.querySelector(".network-figure svg");
    if (ring) ring.remove();
    const size = net.places.length <= 20 ? 8 : 4.5;
    ring = page.drawn("g", {}, ...who.map((i) => page.drawn("circle", { class: "node-active", cx: net.places[i][0], cy: net.places[i][1], r: size })));
    svg.append(ring);
    let text = `Step ${at} ends at ${page.digits(own().ends[at])} s; active: ` + (who.length === net.places.length ? "all" : who.length ? who.join(", ") : "nobody");
    if (own().established) text += `; ${own().established[at]} of ${own().links} links of the spanning path established` + (own().established[at] ? "" : " (the epoch has ended)");
    words.textContent = text;
    slider.setAttribute("aria-valuetext", text);
  };
  const stop = () => { clearInterval(timer); timer = null; play.textContent = "Play"; };
  const reset = () => {
    stop();
    for (const one of root.querySelectorAll(".heard")) {
      if (Number(one.dataset.policy) === now.policy) one.removeAttribute("display"); else one.setAttribute("display", "none");
    }
    slider.max = own().active.length - 1; slider.value = 0; draw();
  };
  slider.addEventListener("input", draw);
  play.addEventListener("click", () => {
    if (timer) return stop();
    play.textContent = "Stop";
    timer = setInterval(() => {
      if (Number(slider.value) >= Number(slider.max)) return stop();
      slider.value = Number(slider.value) + 1;
      draw();
    }, 500);
  });
  policySelect.addEventListener("change", reset);
  reset();
}
