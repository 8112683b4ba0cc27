"use strict";
// The picture of ramp, cut and plateau: calls per second over time.
(() => {
	const f = upwell.format, { $, make, say, show } = upwell.dom;

	// In less than steady seconds a rate is mostly noise.
	const steady = 3;

	const colour = name => getComputedStyle(document.documentElement).getPropertyValue("--" + name).trim();

	// shape makes columns for the chart of a history: width is the seconds of a point, and
	// elapsed those of the whole. The point that is not over yet is left out. There are as
	// many columns at most as bars says: more could not be told apart.
	const shape = (series, width, elapsed, bars) => {
		const n = Math.min(Math.max(Math.floor(elapsed / width), 0), 512);
		const per = Math.max(Math.ceil(1 / width), Math.ceil(n / bars));
		const x = [], rate = [], answered = [], refused = [];
		for (let i = 0; i + per <= n; i += per) {
			let a = 0, r = 0;
			for (let j = i; j < i + per; j++) {
				a += series.answered[j] || 0;
				r += series.refused[j] || 0;
			}
			x.push((i + per) * width);
			answered.push(a / (per * width));
			refused.push(r);
			const last = Math.min(i + per, series.rate.length) - 1;
			rate.push(last < 0 || series.rate[last] === 0 ? null : series.rate[last]);
		}
		const cell = per * width;
		const reach = Math.max(Math.round((Math.max(steady, elapsed / 80) / cell - 1) / 2), 0);
		const even = answered.map((_, i) => {
			const from = Math.max(i - reach, 0), to = Math.min(i + reach, answered.length - 1);
			let sum = 0;
			for (let j = from; j <= to; j++) sum += answered[j];
			return sum / (to - from + 1);
		});
		const mean = (2 * reach + 1) * cell;
		return { x, rate, answered: even, refused, cell, mean, elapsed };
	};

	// top is the height of the picture. A limiter that is not made use of may allow far
	// more than anybody asks for: its line leaves the picture then.
	const top = d => {
		const used = Math.max(1, ...d.answered, ...d.refused.map(r => r / d.cell));
		const allowed = Math.max(0, ...d.rate.map(r => r || 0));
		return 1.08 * Math.max(used, Math.min(allowed, 2.2 * used));
	};

	// columns draws the refused calls from the ground up, so that even one can be seen.
	const columns = d => (u, _, from, to) => {
		const path = new Path2D(), ground = u.valToPos(0, "y", true);
		const wide = Math.max(2 * uPlot.pxRatio, 0.7 * u.bbox.width * d().cell / Math.max(u.scales.x.max - u.scales.x.min, 1e-9));
		for (let i = from; i <= to; i++) {
			const r = d().refused[i];
			if (!r) continue;
			const x = u.valToPos(u.data[0][i], "x", true);
			const high = Math.max(ground - u.valToPos(r / d().cell, "y", true), 4 * uPlot.pxRatio);
			path.rect(x - wide / 2, ground - high, wide, high);
		}
		return { fill: path, stroke: null };
	};

	class Chart {
		constructor(host) {
			this.host = host;
			this.data = null;
			this.plot = null;
			this.waiting = host.appendChild(make("p", "waiting", "The picture begins with the first seconds."));
			new ResizeObserver(() => this.fit()).observe(host);
			matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.build());
		}

		fit() {
			const { clientWidth: width, clientHeight: height } = this.host;
			if (!this.plot || !width || this.plot.width === width && this.plot.height === height) return;
			this.plot.setSize({ width, height });
			this.draw(...this.last);
		}

		// build makes the plot anew, in the colours of the day.
		build() {
			if (!this.data) return;
			if (this.plot) this.plot.destroy();
			const axis = { stroke: colour("muted"), grid: { stroke: colour("grid"), width: 1 }, ticks: { show: false }, font: "12px system-ui, sans-serif" };
			this.plot = new uPlot({
				width: this.host.clientWidth || 600, height: this.host.clientHeight || 280,
				padding: [8, 22, 0, 0],
				legend: { show: false },
				cursor: { y: false, drag: { x: false, y: false, setScale: false }, points: { show: false } },
				scales: {
					x: { time: false, range: () => [0, Math.max(this.data.elapsed, 10)] },
					y: { range: () => [0, top(this.data)] },
				},
				axes: [
					{ ...axis, size: 28, gap: 6, space: 70, incrs: [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 28800, 86400, 172800, 604800], values: (_, v) => v.map(f.clock) },
					{ ...axis, size: 44, gap: 6, space: 44, values: (_, v) => v.map(n => n >= 1000 ? f.short(n) : String(n)) },
				],
				series: [
					{},
					{ stroke: colour("answered"), fill: colour("area"), width: 1.75, points: { show: false } },
					{ fill: colour("refused"), width: 0, paths: columns(() => this.data), points: { show: false } },
					{ stroke: colour("rate"), width: 2, paths: uPlot.paths.stepped({ align: -1 }), points: { show: false } },
				],
				hooks: { setCursor: [u => this.read(u.cursor.idx)] },
			}, this.columns(), this.host);
		}

		columns() {
			const d = this.data;
			return [d.x, d.answered, d.refused.map(r => r / d.cell), d.rate];
		}

		draw(series, width, elapsed, started) {
			this.last = [series, width, elapsed, started];
			this.data = shape(series, width, elapsed, Math.max(this.host.clientWidth / 3, 60));
			this.started = started;
			const some = this.data.x.length > 1;
			show(this.waiting, !some);
			if (!some) return;
			if (this.plot) this.plot.setData(this.columns());
			else this.build();
			this.read(this.plot.cursor.idx);
		}

		// read words the moment under the pointer, or how the picture is made.
		read(i) {
			const d = this.data;
			if (i == null || i >= d.x.length) {
				say($("chart-note"), "Minutes since the start. Answers are a mean of " + f.span(d.mean) + "; a bar is the refusals of " + f.span(d.cell) + ".");
				return;
			}
			say($("chart-note"), f.clock(d.x[i]) + " (" + f.time(this.started + 1000 * d.x[i]) + "): " + f.rate(d.answered[i]) + " answered/s, " +
				(d.rate[i] == null ? "" : f.rate(d.rate[i]) + " allowed/s, ") + f.count(d.refused[i]) + " refused");
		}
	}

	upwell.Chart = Chart;
	upwell.shape = shape;
})();
