// Save the maps on the page as pictures that state their origin: one block for each element of the tensor.
(function () {
  const SIDE = 256; // pixels of a map at least
  const GAP = 14;
  const LINE = 14;
  const FONT = 'font-family="sans-serif" font-size="11" fill="#1a1a1a"';

  const escaped = (text) => text.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;").replace(/"/g, "&quot;");
  const share = (element, name) => parseFloat(getComputedStyle(element).getPropertyValue(name)) / 100;
  const count = (root, name) => Number(getComputedStyle(root).getPropertyValue(name));

  // The picture that all maps are parts of.
  async function sheet(root) {
    const url = getComputedStyle(root).getPropertyValue("--frame").match(/url\("?([^")]+)"?\)/);
    if (!url) throw new Error("there are no maps at this position");
    const image = new Image();
    image.src = url[1];
    await image.decode();
    return image;
  }

  // One map as a picture with one pixel for each element, and its size.
  function cut(image, map, root) {
    const [columns, rows] = [count(root, "--columns"), count(root, "--rows")];
    const [width, height] = [image.naturalWidth / columns, image.naturalHeight / rows];
    const x = Math.round(share(map, "--x") * (columns - 1)) * width;
    const y = Math.round(share(map, "--y") * (rows - 1)) * height;
    const canvas = Object.assign(document.createElement("canvas"), { width, height });
    canvas.getContext("2d").drawImage(image, x, y, width, height, 0, 0, width, height);
    return { href: canvas.toDataURL(), width, height };
  }

  // The texts below a map: the ends of its colours, its norm and its range.
  function texts(map) {
    const part = map.closest("figure") || map.parentElement;
    const of = map.closest("figure") ? ".bar-ends span, .norm" : null;
    const ends = of ? [...part.querySelectorAll(".bar-ends span")].map((each) => each.textContent).filter(Boolean) : [];
    const norm = of ? part.querySelector(".norm") : map.nextElementSibling;
    const lines = norm && norm.matches(".norm, .brief") ? norm.textContent.split("\n") : [];
    return [ends.length ? `colours: ${ends.join(" … ")}` : "", ...lines].filter(Boolean);
  }

  // An SVG with a row of maps for each cell; its size.
  async function picture(root, rows, stamp) {
    const image = await sheet(root);
    const parts = [];
    let [top, wide] = [GAP, 0];
    const text = (x, y, line) => parts.push(`<text x="${x}" y="${y}" ${FONT}>${escaped(line)}</text>`);
    for (const { name, maps } of rows) {
      text(GAP, top + LINE - 3, name);
      top += LINE + 4;
      let [left, low] = [GAP, 0];
      for (const map of maps) {
        const { href, width, height } = cut(image, map, root);
        const scale = Math.max(1, Math.round(SIDE / height));
        text(left, top + LINE - 3, map.dataset.tensor);
        const place = `x="${left}" y="${top + LINE}" width="${width * scale}" height="${height * scale}"`;
        parts.push(`<image ${place} style="image-rendering: pixelated" href="${href}"/>`);
        const lines = texts(map);
        lines.forEach((line, i) => text(left, top + height * scale + LINE * (i + 2), line));
        low = Math.max(low, height * scale + LINE * (lines.length + 1));
        left += width * scale + GAP;
      }
      top += low + GAP;
      wide = Math.max(wide, left);
    }
    for (const line of [stamp, ...window.gradscope.view().match(new RegExp(`.{1,${Math.floor(wide / 6)}}`, "g"))]) {
      text(GAP, top + LINE - 3, line);
      top += LINE;
    }
    const height = top + GAP;
    const head = `<svg xmlns="http://www.w3.org/2000/svg" width="${wide}" height="${height}">`;
    return { svg: `${head}<rect width="100%" height="100%" fill="white"/>${parts.join("")}</svg>`, wide, height };
  }

  async function asPng({ svg, wide, height }) {
    const image = new Image();
    image.src = `data:image/svg+xml,${encodeURIComponent(svg)}`;
    await image.decode();
    const canvas = Object.assign(document.createElement("canvas"), { width: wide, height });
    const pen = canvas.getContext("2d");
    pen.imageSmoothingEnabled = false;
    pen.drawImage(image, 0, 0);
    return canvas.toDataURL();
  }

  async function save(button) {
    const { maps: kind, which } = button.dataset;
    const menu = button.closest(".map-export");
    const root = document.getElementById("maps");
    const focus = document.getElementById("focus");
    const query = new URLSearchParams(location.search);
    const cell = Number(focus.dataset.cell);
    const cells = menu.dataset.cells.split("/");
    const { sample, timestep } = root.dataset;
    if (sample === undefined) throw new Error("there are no maps at this position");
    if (kind === "npy") return fetched(`tensors/${query.get("store")}/${cell}/${sample}/${timestep}/${which}.npy`);
    if (kind === "gif") {
      const drawn = new URLSearchParams({ cells: window.gradscope.mask([cell]) });
      for (const name of ["limits", "scale", "channel"]) if (query.has(name)) drawn.set(name, query.get(name));
      return fetched(`trajectories/${query.get("store")}/${cell}/${sample}.gif?${drawn}`);
    }
    const cards = which === "focus" ? [focus] : [...root.querySelectorAll(".cell[data-written=true]")];
    const rows = cards.map((card) => ({ name: cells[card.dataset.cell], maps: [...card.querySelectorAll(".map:not(dialog .map)")] }));
    const made = await picture(root, rows, menu.dataset.stamp);
    const place = which === "focus" ? `_${cells[cell]}` : "";
    const name = `${menu.dataset.store}${place}_maps_t${timestep}_sample${sample}`.replace(/[^A-Za-z0-9._+-]+/g, "-");
    if (kind === "svg") window.gradscope.saveText(made.svg, `${name}.svg`, "image/svg+xml");
    else window.gradscope.download(await asPng(made), `${name}.png`);
  }

  // Save a file of the server; its answer names it, or says why there is none.
  async function fetched(address) {
    window.gradscope.say("making the file …");
    const answer = await fetch(address);
    if (!answer.ok) throw new Error(await answer.text());
    const url = URL.createObjectURL(await answer.blob());
    window.gradscope.download(url, answer.headers.get("Content-Disposition").split("filename=")[1]);
    window.gradscope.say("saved");
    setTimeout(() => URL.revokeObjectURL(url), 10_000);
  }

  document.addEventListener("click", function (event) {
    const button = event.target.closest && event.target.closest("[data-maps]");
    if (button) save(button).catch((error) => window.gradscope.say(`not saved: ${error.message}`));
  });
})();
