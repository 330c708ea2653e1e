// The cursor of the trajectory page: cell, sample and step. It moves maps, marks, numbers and slider together.
window.gradscope = window.gradscope || {};

(function (gradscope) {
  const AROUND = [1, 2, 3, 4, 5, 6, -1, -2]; // pictures that are loaded before they are wanted, along the way
  const JUMP = 10; // more steps at once are no direction of travel
  const REST = 200; // milliseconds after which the server hears of another cell or sample
  const PAUSE = 80; // milliseconds between two steps when it plays
  const HEARD = ["cell", "sample", "cells", "variables"]; // what the server draws curves of

  gradscope.Trajectory = class {
    // `run`: what dashboards/pages/_trajectory_data.py describes. `rested(at)` is told when cell and sample rest.
    constructor(run, root, rested) {
      this.run = run;
      this.root = root;
      this.rested = rested;
      this.at = { ...run.at };
      this.stride = 1;
      this.places = 0; // that the cursor has been at
      this.painted = 0; // the latest of them whose maps were shown
      this.numbers = null;
      this.where = root.querySelector("#where");
      this.readouts = [...root.querySelectorAll("#readout [data-variable]")];
      this.frames = new gradscope.Frames(run);
      this.maps = new gradscope.Maps(run, root.querySelector("#maps"), (cell) => this.move({ cell }));
      this.marks = new gradscope.Marks(root.querySelector("#curves"), ({ timestep, cell }) =>
        this.move({ step: this.nearest(timestep), cell }),
      );
      this.slider();
      root.querySelector("#play").onclick = () => this.play(!this.playing);
      this.play(false);
      this.soon(performance.now());
    }

    close() {
      this.closed = true;
      clearTimeout(this.next);
      clearTimeout(this.resting);
      this.marks.close();
      this.frames.close();
    }

    slider() {
      this.range = document.createElement("input");
      const last = this.run.timesteps.length - 1;
      Object.assign(this.range, { type: "range", id: "timestep", min: 0, max: last, step: 1 });
      this.range.setAttribute("aria-label", "timestep, in sampling order");
      this.range.oninput = (event) => this.move({ step: Number(this.range.value) }, event.timeStamp);
      this.root.querySelector("#scrubber").replaceChildren(this.range);
    }

    nearest(timestep) {
      const distance = (step) => Math.abs(this.run.timesteps[step] - timestep);
      return this.run.timesteps.reduce((best, _, step) => (distance(step) < distance(best) ? step : best), 0);
    }

    // Move the cursor; what is shown follows in the next frame. `asked`: when the user did it.
    move(change, asked = performance.now()) {
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
      if (changed.some((key) => HEARD.includes(key))) this.rest();
      this.soon(asked);
    }

    rest() {
      clearTimeout(this.resting);
      this.resting = setTimeout(() => this.root.isConnected && this.rested(this.at), REST);
    }

    soon(asked) {
      this.asked = asked;
      this.places += 1;
      if (!this.due) this.due = requestAnimationFrame(() => this.present());
    }

    // Show where the cursor is: maps too where they are there, else when they come.
    present() {
      this.due = null;
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
      this.read();
      const place = this.place();
      const frame = place && this.frames.get(place);
      if (frame) this.show(frame);
      else if (place) this.load(place);
      else this.blank("not kept", run.kept);
    }

    // Of the picture to show: at the nearest step whose tensors are kept. None where the sample has none.
    place() {
      const { tensor_samples: samples, tensor_every: every, timesteps } = this.run;
      const { sample, step, cells, limits } = this.at;
      if (sample >= samples) return null;
      const last = Math.floor((timesteps.length - 1) / every);
      return { sample, step: every * Math.min(Math.round(step / every), last), cells, limits };
    }

    // One picture at a time: while it is on its way the cursor may move on; then the latest place is next.
    async load(place) {
      if (this.loading) return;
      const order = this.places;
      let frame = null;
      let failure = "";
      this.loading = true;
      this.maps.root.setAttribute("aria-busy", "true");
      try {
        frame = await this.frames.want(place);
      } catch (error) {
        failure = error.message;
      }
      this.loading = false;
      if (this.closed) return;
      if (order === this.places) {
        if (frame) this.show(frame);
        else this.blank("no picture", failure);
        return;
      }
      if (frame && order > this.painted) this.paint(frame, order); // so that a key held down shows something
      this.present();
    }

    show(frame) {
      this.paint(frame, this.places);
      this.moved();
      const every = this.run.tensor_every;
      const stride = Math.sign(this.stride) * every * Math.ceil(Math.abs(this.stride) / every);
      const steps = AROUND.map((k) => frame.step + k * stride);
      const there = steps.filter((step) => step >= 0 && step < this.run.timesteps.length);
      this.frames.ahead(there.map((step) => ({ ...this.place(), step })));
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

    // All is where the cursor is; told when it is painted.
    moved() {
      this.maps.root.setAttribute("aria-busy", "false");
      const { at, asked } = this;
      const detail = { t: this.run.timesteps[at.step], sample: at.sample, cell: at.cell };
      const tell = () => {
        detail.ms = performance.now() - asked;
        this.root.dispatchEvent(new CustomEvent("gradscope:moved", { detail, bubbles: true }));
      };
      requestAnimationFrame(() => requestAnimationFrame(tell));
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

    // The numbers of the focused cell and sample at the cursor, as soon as they are known.
    read() {
      const { numbers, at } = this;
      const known = numbers && numbers.cell === at.cell && numbers.sample === at.sample && at.step < numbers.written;
      for (const place of this.readouts) {
        const value = known ? numbers.values[place.dataset.variable][at.step] : null;
        place.textContent = gradscope.significant(value);
      }
    }

    told(numbers) {
      this.numbers = numbers;
      const steps = this.run.timesteps.length;
      this.range.style.setProperty("--written", `${(100 * numbers.written) / steps}%`);
      this.range.title = numbers.written < steps ? `${numbers.written} of ${steps} steps are recorded` : "";
      this.read();
    }

    grown() {
      this.frames.forget();
      this.soon(performance.now());
    }
  };
})(window.gradscope);
