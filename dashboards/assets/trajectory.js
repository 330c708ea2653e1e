// The cursor of the Trajectory page: cell, sample and step. It moves maps, marks, numbers and slider together.
window.gradscope = window.gradscope || {};

(function (gradscope) {
  const AHEAD = [1, 2, 3, 4, 5, 6, -1, -2]; // strides of the frames that are loaded ahead
  const JUMP = 10; // a longer move does not set the stride
  const REST = 200; // milliseconds without a move after which the server gets the new cell or sample at once
  const CALM = 500; // milliseconds without such a move before frames are loaded ahead: the curves come first
  const PAUSE = 80; // milliseconds between two steps of the playback
  const SERVER_KEYS = ["cell", "sample", "cells", "variables"]; // the server's curves and numbers depend on these

  gradscope.Trajectory = class {
    // `run`: see dashboards/pages/trajectory/browser_data.py. `rested(at)` is called when the cursor rests.
    constructor(run, root, rested) {
      this.run = run;
      this.root = root;
      this.rested = rested;
      this.at = { ...run.at };
      this.stride = 1;
      this.moves = 0; // number of moves so far
      this.painted = 0; // the latest move whose maps were shown
      this.numbers = null;
      this.restless = -Infinity; // time of the latest move of cell or sample
      this.where = root.querySelector("#where");
      this.readouts = [...root.querySelectorAll("#readout [data-variable]")];
      this.frames = new gradscope.Frames(run);
      this.maps = new gradscope.Maps(run, root.querySelector("#maps"), (cell) => this.move({ cell }));
      this.values = new gradscope.MapValues(run, this.maps);
      this.zoom = new gradscope.MapZoom(this.maps, this.values, (by) => this.move({ step: this.at.step + by }));
      this.marks = new gradscope.Marks(root.querySelector("#curves"), ({ timestep, cell }) =>
        this.move({ step: this.nearest(timestep), cell }),
      );
      this.slider();
      root.querySelector("#play").onclick = () => this.play(!this.playing);
      this.play(false);
      this.presentSoon(performance.now());
      if (run.zoom) this.zoom.open(run.zoom);
    }

    close() {
      this.closed = true;
      clearTimeout(this.next);
      clearTimeout(this.resting);
      clearTimeout(this.calming);
      this.marks.close();
      this.values.close();
      this.frames.close();
    }

    slider() {
      this.range = document.createElement("input");
      const last = this.run.timesteps.length - 1;
      Object.assign(this.range, { type: "range", id: "timestep", min: 0, max: last, step: 1 });
      this.range.setAttribute("aria-label", "timestep, in sampling order");
      this.range.oninput = (event) => this.move({ step: Number(this.range.value) }, event.timeStamp);
      this.root.querySelector("#range").replaceChildren(this.range);
    }

    // Mark the timesteps of a finding, from the first to the last, on curves and slider; null for none.
    setSpan(span) {
      this.marks.setSpan(span);
      const strip = this.root.querySelector("#scrubber-span");
      strip.hidden = !span;
      if (!span) return;
      const last = Math.max(this.run.timesteps.length - 1, 1);
      const [from, to] = span.map((timestep) => this.nearest(timestep) / last);
      strip.style.setProperty("--from", from);
      strip.style.setProperty("--to", to);
      strip.title = `the finding: timesteps ${span[0]} to ${span[1]}`;
    }

    nearest(timestep) {
      const distance = (step) => Math.abs(this.run.timesteps[step] - timestep);
      return this.run.timesteps.reduce((best, _, step) => (distance(step) < distance(best) ? step : best), 0);
    }

    // Move the cursor; the page follows in the next animation frame. `since`: time of the user's action.
    move(change, since = performance.now()) {
      const { run, at: before } = this;
      const at = { ...before };
      for (const [key, value] of Object.entries(change)) if (value !== undefined) at[key] = value;
      at.step = Math.min(Math.max(at.step, 0), run.timesteps.length - 1);
      at.sample = Math.min(Math.max(at.sample, 0), run.targets.length - 1);
      const changed = Object.keys(at).filter((key) => String(at[key]) !== String(before[key]));
      if (!changed.length) return;
      this.at = at;
      if (changed.includes("step")) {
        const by = at.step - before.step;
        this.stride = Math.abs(by) > JUMP ? Math.sign(by) : by;
        gradscope.update({ t: run.timesteps[at.step] }, false);
      }
      if (changed.some((key) => SERVER_KEYS.includes(key))) this.rest();
      this.presentSoon(since);
    }

    // Pass cell and sample to the server: the first move at once, those that follow it when they end.
    rest() {
      const now = performance.now();
      const wait = now - this.restless < REST ? REST : 0;
      this.restless = now;
      clearTimeout(this.resting);
      if (wait) this.resting = setTimeout(() => this.root.isConnected && this.rested(this.at), wait);
      else this.rested(this.at); // now, before the browser paints what follows the cursor
    }

    presentSoon(since) {
      this.since = since;
      this.moves += 1;
      if (!this.due) this.due = requestAnimationFrame(() => this.present());
    }

    // Show the position of the cursor. The maps follow when their frame is loaded.
    present() {
      this.due = null;
      clearTimeout(this.calming);
      if (this.closed) return;
      if (!this.root.isConnected) {
        this.close(); // another page is shown
        return;
      }
      const { at, run } = this;
      const t = run.timesteps[at.step];
      const where = `t = ${t}, step ${at.step + 1} of ${run.timesteps.length}`;
      this.range.value = at.step;
      this.range.setAttribute("aria-valuetext", where);
      this.where.textContent = where;
      this.marks.move(t);
      this.showNumbers();
      const position = this.framePosition();
      const frame = position && this.frames.get(position);
      if (frame) this.show(frame);
      else if (position) this.load(position);
      else this.blank("not kept", run.kept);
    }

    // Position of the frame to show, at the nearest step with tensors; null where the sample has no tensors.
    framePosition() {
      const { tensor_samples: samples, tensor_every: every, timesteps } = this.run;
      const { sample, step, cells, limits, scale, channel } = this.at;
      if (sample >= samples) return null;
      const last = Math.floor((timesteps.length - 1) / every);
      return { sample, step: every * Math.min(Math.round(step / every), last), cells, limits, scale, channel };
    }

    // Load one frame at a time. Where the cursor moves on meanwhile, its latest position is next.
    async load(position) {
      if (this.loading) return;
      const order = this.moves;
      let frame = null;
      let failure = "";
      this.loading = true;
      this.maps.root.setAttribute("aria-busy", "true");
      try {
        frame = await this.frames.want(position);
      } catch (error) {
        failure = error.message;
      }
      this.loading = false;
      if (this.closed) return;
      if (order === this.moves) {
        if (frame) this.show(frame);
        else this.blank("no picture", failure);
        return;
      }
      if (frame && order > this.painted) this.paint(frame, order); // shows progress while a key is held down
      this.present();
    }

    show(frame) {
      this.paint(frame, this.moves);
      this.moved();
      this.loadAhead(frame);
    }

    loadAhead(frame) {
      const wait = this.restless + CALM - performance.now();
      if (wait > 0) {
        this.frames.ahead([]);
        this.calming = setTimeout(() => this.loadAhead(frame), wait);
        return;
      }
      const every = this.run.tensor_every;
      const stride = Math.sign(this.stride) * every * Math.ceil(Math.abs(this.stride) / every);
      const steps = AHEAD.map((k) => frame.step + k * stride);
      const there = steps.filter((step) => step >= 0 && step < this.run.timesteps.length);
      this.frames.ahead(there.map((step) => ({ ...this.framePosition(), step })));
    }

    paint(frame, order) {
      const { timesteps, tensor_every: every, kept } = this.run;
      this.painted = order;
      this.maps.show(frame, this.at, every > 1 ? `maps at t = ${timesteps[frame.step]}: ${kept}` : "");
    }

    blank(word, note) {
      this.maps.blank(this.at, word, note);
      this.moved();
    }

    // The whole page is at the cursor: send an event once it is painted.
    moved() {
      this.maps.root.setAttribute("aria-busy", "false");
      this.values.refresh();
      const { at, since } = this;
      const detail = { t: this.run.timesteps[at.step], sample: at.sample, cell: at.cell };
      const send = () => {
        detail.ms = performance.now() - since;
        this.root.dispatchEvent(new CustomEvent("gradscope:moved", { detail, bubbles: true }));
      };
      requestAnimationFrame(() => requestAnimationFrame(send));
      clearTimeout(this.next);
      if (this.playing) this.next = setTimeout(() => this.advance(), PAUSE);
    }

    play(playing) {
      this.playing = playing;
      clearTimeout(this.next);
      this.root.querySelector("#play").setAttribute("aria-pressed", playing);
      if (playing) this.move({ step: this.at.step === this.run.timesteps.length - 1 ? 0 : this.at.step + 1 });
    }

    advance() {
      if (this.at.step === this.run.timesteps.length - 1) this.play(false);
      else this.move({ step: this.at.step + 1 });
    }

    // Show the numbers of the focused cell and sample at the cursor, where they are known.
    showNumbers() {
      const { numbers, at } = this;
      const known = numbers && numbers.cell === at.cell && numbers.sample === at.sample && at.step < numbers.written;
      for (const readout of this.readouts) {
        const value = known ? numbers.values[readout.dataset.variable][at.step] : null;
        readout.textContent = gradscope.significant(value);
      }
    }

    setNumbers(numbers) {
      this.numbers = numbers;
      const steps = this.run.timesteps.length;
      this.range.style.setProperty("--written", `${(100 * numbers.written) / steps}%`);
      this.range.title = numbers.written < steps ? `${numbers.written} of ${steps} steps are recorded` : "";
      this.showNumbers();
    }

    // The store grew.
    refresh() {
      this.frames.forget();
      this.presentSoon(performance.now());
    }
  };
})(window.gradscope);
