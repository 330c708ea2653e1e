// Between the user's hands, Dash and the cursor of the trajectory page.
window.gradscope = window.gradscope || {};
window.dash_clientside = window.dash_clientside || {};

(function (gradscope) {
  const FAR = 10; // steps, with the shift key
  const MOST = 16; // cells that are shown together
  const KEYS = {
    ArrowLeft: (at, stride) => ({ step: at.step - stride }),
    ArrowRight: (at, stride) => ({ step: at.step + stride }),
    Home: () => ({ step: 0 }),
    End: () => ({ step: Infinity }),
    ArrowUp: (at) => ({ sample: at.sample - 1 }),
    ArrowDown: (at) => ({ sample: at.sample + 1 }),
    "[": (at) => ({ cell: beside(at, -1) }),
    "]": (at) => ({ cell: beside(at, 1) }),
  };

  let page = null; // the trajectory that is open
  let controls = {}; // what its controls show
  let wrote = {}; // when something was last written into each
  let touched = 0; // when the user last did something to one of them

  function beside({ cell, cells }, by) {
    return cells[(cells.indexOf(cell) + by + cells.length) % cells.length];
  }

  // Whether a key belongs to the browser, or to the element that has the focus.
  function taken(event) {
    const { target } = event;
    if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return true;
    if (event.key === " " && target.closest("button, summary, a")) return true;
    if (target.matches("input[type=radio]")) return event.key.startsWith("Arrow") || event.key === " ";
    return target.isContentEditable || (target.id !== "timestep" && target.closest("input, textarea, select") !== null);
  }

  // A choice by the mouse leaves the keys to the cursor.
  document.addEventListener("pointerup", function (event) {
    if (!page || !event.target.closest(".cursor-bar .mantine-SegmentedControl-root")) return;
    setTimeout(() => document.activeElement.matches("input[type=radio]") && document.activeElement.blur());
  });

  document.addEventListener("keydown", function (event) {
    if (!page || !page.root.isConnected || taken(event)) return;
    if (event.key === " ") page.play(!page.playing);
    else if (event.key === "?") document.getElementById("keys").showModal();
    else if (event.key in KEYS) page.move(KEYS[event.key](page.at, event.shiftKey ? FAR : 1), event.timeStamp);
    else return;
    event.preventDefault();
  });

  for (const name of ["pointerdown", "keydown", "input", "click"])
    document.addEventListener(name, touch, { capture: true });

  function touch({ target, timeStamp }) {
    if (target.closest?.(".choices, [role=listbox]")) touched = timeStamp;
  }

  document.addEventListener("click", function (event) {
    const dialog = document.getElementById("keys");
    if (event.target.closest("#keys-button")) dialog.showModal();
    else if (event.target.closest("#keys button") || event.target === dialog) dialog.close();
  });

  // The cursor rests: controls show where, and the server draws curves and tells numbers.
  function rested({ cell, sample, cells, variables }) {
    show("cell", String(cell));
    show("sample", sample);
    show("cells", cells.map(String));
    dash_clientside.set_props("trajectory-at", { data: { cell, sample, cells, variables } });
  }

  function show(key, value) {
    if (String(controls[key]) === String(value)) return;
    controls[key] = value;
    wrote[key] = performance.now();
    dash_clientside.set_props({ type: "control", key }, { value });
  }

  window.dash_clientside.gradscope_trajectory = {
    // The page was opened, or somebody changed a control: the cursor follows. Where nobody touched a control since
    // it was written into, it repeats what it held before (Mantine's do, on slow machines), and is written into again.
    chosen: function (run, cell, sample, cells, variables, limits) {
      const root = document.getElementById("trajectory");
      const values = { cell, sample, cells, variables, limits };
      if (!page || page.run !== run || page.root !== root) {
        if (page) page.close();
        page = new gradscope.Trajectory(run, root, rested);
        controls = values;
        wrote = {};
        return window.dash_clientside.no_update;
      }
      const changed = Object.keys(values).filter((key) => String(values[key]) !== String(controls[key]));
      const meant = changed.filter((key) => !(wrote[key] > touched));
      controls = values;
      if (meant.length < changed.length) page.rest();
      const change = Object.fromEntries(meant.map((key) => [key, values[key]]));
      if (change.sample === "" || change.sample === null) delete change.sample;
      if (change.variables && !change.variables.length) delete change.variables;
      if ("cell" in change) change.cell = Number(cell);
      if ("cells" in change) change.cells = cells.map(Number).sort((a, b) => a - b);
      page.move(together(change, page.at));
      return window.dash_clientside.no_update;
    },

    numbers: function (numbers) {
      if (page && numbers) page.told(numbers);
      return window.dash_clientside.no_update;
    },

    grown: function (version) {
      if (page && version) page.grown();
      return window.dash_clientside.no_update;
    },
  };

  // The focused cell is always among those shown: it joins them, or where it was taken away another has the focus.
  function together(change, at) {
    const { cell, cells } = { ...at, ...change };
    if (cells.includes(cell)) return change;
    if (!("cell" in change) && cells.length) return { ...change, cell: cells[0] };
    return { ...change, cells: [...cells.slice(0, MOST - 1), cell].sort((a, b) => a - b) };
  }
})(window.gradscope);
