"use strict";
// Numbers, times and strangers' text, as people read them.
const upwell = {};
(() => {
	const whole = new Intl.NumberFormat("en-US");
	const digits = n => new Intl.NumberFormat("en-US", { minimumFractionDigits: n, maximumFractionDigits: n });
	const one = digits(1), two = digits(2);

	const count = n => whole.format(Math.round(n || 0));

	// rate words calls per second, with as many digits as can be told apart.
	const rate = r => !r ? "0" : r >= 99.95 ? whole.format(Math.round(r)) : r >= 9.995 ? one.format(r) : r >= 0.01 ? two.format(r) : "<0.01";

	const short = n => {
		n = n || 0;
		for (const [unit, name] of [[1e9, " G"], [1e6, " M"], [1e3, " k"]]) {
			if (n >= unit * 10) return whole.format(Math.round(n / unit)) + name;
			if (n >= unit) return one.format(n / unit) + name;
		}
		return whole.format(n);
	};

	const bytes = n => {
		n = n || 0;
		for (const [unit, name] of [[2 ** 30, " GiB"], [2 ** 20, " MiB"], [2 ** 10, " KiB"]]) {
			if (n >= unit) return (n >= 10 * unit ? whole.format(Math.round(n / unit)) : one.format(n / unit)) + name;
		}
		return whole.format(n) + " B";
	};

	const dollars = d => d == null ? "unknown" : "$" + digits(d === 0 ? 0 : d >= 1 ? 2 : d >= 0.01 ? 3 : d >= 0.0001 ? 5 : 7).format(d);

	const percent = x => {
		const p = 100 * (x || 0);
		return (p === 0 || p === 100 ? p : p < 0.1 ? "<0.1" : p < 10 ? one.format(p) : p > 99 ? one.format(Math.min(Math.floor(p * 10) / 10, 99.9)) : Math.round(p)) + " %";
	};

	// span words seconds.
	const span = s => {
		s = Math.max(s || 0, 0);
		if (s < 1) return Math.round(s * 1000) + " ms";
		if (s < 10) return one.format(s) + " s";
		s = Math.round(s);
		if (s < 60) return s + " s";
		const d = Math.floor(s / 86400), h = Math.floor(s / 3600) % 24, m = Math.floor(s / 60) % 60;
		if (d) return d + " d " + h + " h";
		if (h) return h + " h " + m + " min";
		return m + " min" + (s % 60 ? " " + s % 60 + " s" : "");
	};

	// range words how long it will take, from and to in seconds, no finer than anybody can
	// know. There is no telling when to is nothing.
	const range = (from, to) => {
		const [unit, name, step] = steps.find(([, , , below]) => (to || from) < below);
		const round = s => Math.max(Math.round(s / unit / step), 1) * step;
		const a = round(from), b = round(to || 0);
		return a + (!to ? " " + name + " or much more" : (a === b ? "" : "\u2013" + b) + " " + name);
	};
	const steps = [[1, "s", 5, 90], [60, "min", 0.5, 570], [60, "min", 1, 5400], [3600, "h", 0.5, 129600], [86400, "days", 0.5, Infinity]];

	// clock words seconds since the start, for an axis.
	const clock = s => {
		const h = Math.floor(s / 3600), m = Math.floor(s / 60) % 60, x = Math.floor(s % 60);
		const pad = n => String(n).padStart(2, "0");
		return h ? h + ":" + pad(m) + ":" + pad(x) : m + ":" + pad(x);
	};

	const two0 = n => String(n).padStart(2, "0");
	const time = at => {
		const d = new Date(at);
		return isNaN(d) ? "" : two0(d.getHours()) + ":" + two0(d.getMinutes()) + ":" + two0(d.getSeconds());
	};
	const day = at => {
		const d = new Date(at);
		return isNaN(d) ? "" : d.getFullYear() + "-" + two0(d.getMonth() + 1) + "-" + two0(d.getDate()) + " " + time(at);
	};

	// What alters how text is read without being seen: controls, the direction of
	// writing, what has no width, and tags.
	const hidden = /[\u0000-\u001f\u007f-\u009f\u00ad\u061c\u115f\u1160\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\u3164\ufeff\ufff9-\ufffb]|[\u{e0000}-\u{e007f}]/gu;

	// text shows a stranger's text on one line, with nothing hidden in it.
	const text = s => String(s ?? "").replace(hidden, mark);

	// prose does, and leaves lines and tabs.
	const prose = s => String(s ?? "").replace(hidden, c => c === "\n" || c === "\t" ? c : mark(c));

	const mark = c => "\u27e8U+" + c.codePointAt(0).toString(16).toUpperCase().padStart(4, "0") + "\u27e9";

	const plural = (n, noun) => count(n) + " " + noun + (Math.round(n) === 1 ? "" : "s");

	upwell.format = { count, rate, short, bytes, dollars, percent, span, range, clock, time, day, text, prose, plural };
})();
