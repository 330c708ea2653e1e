// The Trajectory page: keys and controls move the cursor, and the cursor sets the controls.
window.gradscope = window.gradscope || {};
window.dash_clientside = window.dash_clientside || {};

(function (gradscope) {
  const STRIDE = 10; // steps with the shift key
  const CELLS_MAX = 16; // cells that are shown together
  const FOLLOW = 30; // milliseconds in which the request of the curves leaves, before the controls take the browser
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

  let page = null; // the open Trajectory
  let controls = {}; // values of its controls
  let written = {}; // times at which the cursor set each control
  let touched = 0; // time at which the user last used a control

  function beside({ cell, cells }, by) {
    return cells[(cells.indexOf(cell) + by + cells.length) % cells.length];
  }

  // Whether the browser or the focused element uses a key itself.
  function isTaken(event) {
    const { target } = event;
    if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return true;
    if (event.key === " " && target.closest("button, summary, a")) return true;
    if (target.matches("input[type=radio]")) return event.key.startsWith("Arrow") || event.key === " ";
    return target.isContentEditable || (target.id !== "timestep" && target.closest("input, textarea, select") !== null);
  }

  // After a click on a segmented control, the arrow keys move the cursor again.
  document.addEventListener("pointerup", function (event) {
    if (!page || !event.target.closest(".map-switches .mantine-SegmentedControl-root")) return;
    setTimeout(() => document.activeElement.matches("input[type=radio]") && document.activeElement.blur());
  });

  document.addEventListener("keydown", function (event) {
    if (!page || !page.root.isConnected || isTaken(event)) return;
    if (event.key === " ") page.play(!page.playing);
    else if (event.key === "?") document.getElementById("keys").showModal();
    else if (event.key === "z") page.zoom.open();
    else if (event.key in KEYS) page.move(KEYS[event.key](page.at, event.shiftKey ? STRIDE : 1), event.timeStamp);
    else return;
    event.preventDefault();
  });

  for (const name of ["pointerdown", "keydown", "input", "click"])
    document.addEventListener(name, touch, { capture: true });

  function touch({ target, timeStamp }) {
    if (target.closest?.(".choices, .map-switches, [role=listbox]")) touched = timeStamp;
  }

  document.addEventListener("click", function (event) {
    const dialog = document.getElementById("keys");
    if (event.target.closest("#keys-button")) dialog.showModal();
    else if (event.target.closest("#keys button") || event.target === dialog) dialog.close();
    else if (event.target.closest("#finding-close")) closeFinding();
  });

  function closeFinding() {
    dash_clientside.set_props("trajectory-finding", { data: "" });
    gradscope.update({ finding: "" }, true);
  }

  // The cursor rests: the server sends curves and numbers. While it works, the controls follow.
  function cursorRested({ cell, sample, cells, variables }) {
    dash_clientside.set_props("trajectory-cursor", { data: { cell, sample, cells, variables } });
    setTimeout(setControls, FOLLOW);
  }

  function setControls() {
    if (!page.root.isConnected) return; // another page is shown
    setControl("cell", String(page.at.cell));
    setControl("sample", page.at.sample);
    setControl("cells", page.at.cells.map(String));
  }

  function setControl(key, value) {
    if (String(controls[key]) === String(value)) return;
    controls[key] = value;
    written[key] = performance.now();
    dash_clientside.set_props({ type: "control", key }, { value });
  }

  window.dash_clientside.gradscope_trajectory = {
    // A page was opened, or a control changed: the cursor follows. On slow machines Mantine's controls may report
    // their old value after the cursor set them. Such a report, without a touch by the user, is not followed: the
    // control is set again.
    move: function (run, cell, sample, cells, variables, limits, scale, channel) {
      const root = document.getElementById("trajectory");
      const values = { cell, sample, cells, variables, limits, scale, channel };
      if (!page || page.run !== run || page.root !== root) {
        if (page) page.close();
        page = new gradscope.Trajectory(run, root, cursorRested);
        controls = values;
        written = {};
        return window.dash_clientside.no_update;
      }
      const changed = Object.keys(values).filter((key) => String(values[key]) !== String(controls[key]));
      const byUser = changed.filter((key) => !(written[key] > touched));
      controls = values;
      if (byUser.length < changed.length) page.rest();
      const change = Object.fromEntries(byUser.map((key) => [key, values[key]]));
      if (change.sample === "" || change.sample === null) delete change.sample;
      if (change.variables && !change.variables.length) delete change.variables;
      if ("cell" in change) change.cell = Number(cell);
      if ("cells" in change) change.cells = cells.map(Number).sort((a, b) => a - b);
      page.move(withFocus(change, page.at));
      return window.dash_clientside.no_update;
    },

    show_numbers: function (numbers) {
      if (page && numbers) page.setNumbers(numbers);
      return window.dash_clientside.no_update;
    },

    show_span: function (span) {
      if (page) page.setSpan(span);
      return window.dash_clientside.no_update;
    },

    refresh: function (version) {
      if (page && version) page.refresh();
      return window.dash_clientside.no_update;
    },
  };

  // Keep the focused cell among those shown: add it, or where the user removed it, focus another one.
  function withFocus(change, at) {
    const { cell, cells } = { ...at, ...change };
    if (cells.includes(cell)) return change;
    if (!("cell" in change) && cells.length) return { ...change, cell: cells[0] };
    return { ...change, cells: [...cells.slice(0, CELLS_MAX - 1), cell].sort((a, b) => a - b) };
  }
})(window.gradscope);
