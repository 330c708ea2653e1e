// Frames: pictures of one sample at one step with the maps of all shown cells, loaded ahead, decoded and kept.
window.gradscope = window.gradscope || {};

(function (gradscope) {
  const KEPT = 64;
  const AT_ONCE = 2; // frames that are loaded ahead together; the wanted frame comes before them

  // A position is {sample, step, cells, limits, scale, channel}; cells ascend, as the rows of the picture do.
  gradscope.Frames = class {
    constructor(run) {
      this.run = run;
      this.kept = new Map(); // frames by URL, the least recently used first
      this.loading = new Map();
      this.queue = [];
      this.wanted = 0;
    }

    url(position) {
      const { sample, step, cells, limits, scale, channel } = position;
      const drawn = `limits=${limits}&scale=${scale}&channel=${channel}`;
      return `frames/${this.run.key}/${sample}/${step}.png?cells=${gradscope.mask(cells)}&${drawn}&v=${this.run.version}`;
    }

    // The frame where it is loaded already.
    get(position) {
      const url = this.url(position);
      const frame = this.kept.get(url);
      if (!frame) return null;
      this.kept.delete(url);
      this.kept.set(url, frame);
      return frame;
    }

    // The frame that is wanted now; rejects with the server's message.
    async want(position) {
      this.wanted += 1;
      try {
        return await this.load(position);
      } finally {
        this.wanted -= 1;
        this.pump();
      }
    }

    // Load these frames ahead, and no others, in this order.
    ahead(positions) {
      const urls = new Set(positions.map((position) => this.url(position)));
      for (const [url, { abort, early }] of this.loading) if (early && !urls.has(url)) abort.abort();
      this.queue = positions;
      this.pump();
    }

    // Drop frames with maps that were not recorded yet.
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
        const position = this.queue.shift();
        if (!this.kept.has(this.url(position))) this.load(position, true).catch(() => {}); // loaded again when wanted
      }
    }

    load(position, early = false) {
      const url = this.url(position);
      if (this.kept.has(url)) return Promise.resolve(this.get(position));
      const there = this.loading.get(url);
      if (there && !there.abort.signal.aborted) {
        there.early = there.early && early;
        return there.promise;
      }
      const entry = { abort: new AbortController(), early };
      entry.promise = this.fetch(url, position, entry.abort.signal).finally(() => {
        if (this.loading.get(url) === entry) this.loading.delete(url);
        this.pump();
      });
      this.loading.set(url, entry);
      return entry.promise;
    }

    async fetch(url, position, signal) {
      const response = await fetch(url, { signal });
      if (!response.ok) throw new Error(await response.text());
      const about = JSON.parse(response.headers.get("Gradscope-Frame"));
      const source = URL.createObjectURL(await response.blob());
      const image = new Image(); // kept so that the decoded picture stays
      image.src = source;
      try {
        await image.decode();
        signal.throwIfAborted();
      } catch (error) {
        URL.revokeObjectURL(source);
        throw error;
      }
      const { sample, step, cells, channel } = position;
      const frame = { ...about, sample, step, cells, channel, source, image, complete: about.written.every(Boolean) };
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
