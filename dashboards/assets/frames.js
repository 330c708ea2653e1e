// Pictures of one sample and step, each with the maps of all cells shown: loaded, decoded and kept, and ahead of time.
window.gradscope = window.gradscope || {};

(function (gradscope) {
  const KEPT = 64;
  const AT_ONCE = 2; // pictures ahead of time that are loaded together; the one that is wanted now comes before them

  // A place: {sample, step, cells, limits}; cells ascending, as in the picture's rows.
  gradscope.Frames = class {
    constructor(run) {
      this.run = run;
      this.kept = new Map(); // by URL, the least recently used first
      this.loading = new Map();
      this.queue = [];
      this.wanted = 0;
    }

    url(place) {
      const query = `cells=${gradscope.mask(place.cells)}&limits=${place.limits}&v=${this.run.version}`;
      return `frames/${this.run.key}/${place.sample}/${place.step}.png?${query}`;
    }

    // The picture where it is there already.
    get(place) {
      const url = this.url(place);
      const frame = this.kept.get(url);
      if (!frame) return null;
      this.kept.delete(url);
      this.kept.set(url, frame);
      return frame;
    }

    // The picture that is wanted now; rejects with the server's own words.
    async want(place) {
      this.wanted += 1;
      try {
        return await this.load(place);
      } finally {
        this.wanted -= 1;
        this.pump();
      }
    }

    // Load these and no others ahead of time, the first one first.
    ahead(places) {
      const urls = new Set(places.map((place) => this.url(place)));
      for (const [url, { abort, early }] of this.loading) if (early && !urls.has(url)) abort.abort();
      this.queue = places;
      this.pump();
    }

    // Pictures with maps that were not recorded yet may be out of date.
    forget() {
      for (const [url, frame] of this.kept) if (!frame.complete) this.drop(url);
    }

    close() {
      this.queue = [];
      for (const { abort } of this.loading.values()) abort.abort();
      for (const url of [...this.kept.keys()]) this.drop(url);
    }

    pump() {
      while (this.wanted === 0 && this.loading.size < AT_ONCE && this.queue.length) {
        const place = this.queue.shift();
        if (!this.kept.has(this.url(place))) this.load(place, true).catch(() => {}); // asked for again when wanted
      }
    }

    load(place, early = false) {
      const url = this.url(place);
      if (this.kept.has(url)) return Promise.resolve(this.get(place));
      const there = this.loading.get(url);
      if (there && !there.abort.signal.aborted) {
        there.early = there.early && early;
        return there.promise;
      }
      const entry = { abort: new AbortController(), early };
      entry.promise = this.fetch(url, place, entry.abort.signal).finally(() => {
        if (this.loading.get(url) === entry) this.loading.delete(url);
        this.pump();
      });
      this.loading.set(url, entry);
      return entry.promise;
    }

    async fetch(url, place, signal) {
      const response = await fetch(url, { signal });
      if (!response.ok) throw new Error(await response.text());
      const about = JSON.parse(response.headers.get("Gradscope-Frame"));
      const source = URL.createObjectURL(await response.blob());
      const image = new Image(); // kept beside its URL, so that what was decoded stays
      image.src = source;
      try {
        await image.decode();
        signal.throwIfAborted();
      } catch (error) {
        URL.revokeObjectURL(source);
        throw error;
      }
      const { sample, step, cells } = place;
      const frame = { ...about, sample, step, cells, source, image, complete: about.written.every(Boolean) };
      this.kept.set(url, frame);
      for (const oldest of this.kept.keys()) {
        if (this.kept.size <= KEPT) break;
        this.drop(oldest);
      }
      return frame;
    }

    drop(url) {
      URL.revokeObjectURL(this.kept.get(url).source);
      this.kept.delete(url);
    }
  };
})(window.gradscope);
