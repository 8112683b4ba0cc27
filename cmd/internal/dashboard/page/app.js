"use strict";
// From messages to the page: what is known, where it comes from, and what is drawn.
(() => {
	const f = upwell.format, { $, make, say, attr, show, list } = upwell.dom;
	const data = $("data"); // in a report: all there is to know
	upwell.report = !!data;

	const state = {}, series = new Map();
	let chart, picked = "", link = "connecting", notice = "";

	// merge takes over a message: of the state what it has, and of each history the end.
	const merge = (message, full) => {
		if (full) {
			for (const k of Object.keys(state)) delete state[k];
			series.clear();
		}
		Object.assign(state, message.state);
		for (const [name, tail] of Object.entries(message.tails)) {
			let s = series.get(name);
			if (!s) series.set(name, s = { rate: [], answered: [], refused: [] });
			for (const k of ["rate", "answered", "refused"]) {
				s[k].length = Math.min(s[k].length, tail.from);
				for (const v of tail[k] || []) s[k].push(v);
			}
		}
		const names = new Set(state.lanes.map(l => l.name));
		for (const name of series.keys()) {
			if (name && !names.has(name)) series.delete(name);
		}
		upwell.state = state;
		upwell.series = series;
	};

	const draw = () => {
		if (!state.at) return;
		header();
		for (const panel of upwell.panels) panel(state);
		picture();
	};

	const header = () => {
		const name = state.run ? f.text(state.run) : state.verb === "worker" ? "Worker" : "Run";
		say($("run"), name);
		say($("verb"), f.text(state.verb));
		say($("version"), "upwell " + f.text(state.version));
		say($("as-of"), (upwell.report ? "report of " : "as of ") + f.day(state.at));
		const input = $("find-run");
		if (input && !input.dataset.set && state.run) {
			input.dataset.set = "yes";
			input.value = state.run;
		}
		status();
	};

	// status is the one line that is read aloud. It changes when the state does.
	const status = () => {
		let kind = link, text = { connecting: "Connecting", lost: "Connection lost", crowded: "Waiting for a place" }[link];
		if (state.outcome) {
			kind = { done: "done", parked: "paused" }[state.outcome] || "stopped";
			text = { done: "Done", interrupted: "Interrupted", parked: "Parked" }[state.outcome] || f.text(state.outcome.charAt(0).toUpperCase() + state.outcome.slice(1));
		} else if (upwell.report) {
			kind = "running";
			text = "As it was at " + f.time(state.at);
		} else if (link === "live") {
			kind = state.paused ? "paused" : "running";
			text = state.paused ? "Paused" : "Running";
		}
		attr($("state"), "data-state", kind === "crowded" ? "paused" : kind);
		say($("state-text"), text);
		const box = $("notice");
		const words = state.outcome ? "" : notice || (state.paused ? "Paused: " + f.text(state.paused) : "");
		attr(box, "data-kind", link === "lost" ? "bad" : "");
		say(box, words);
		show(box, words !== "");
		const total = state.totals ? state.totals.jobs : 0;
		const part = total ? f.percent((state.settled + (state.totals.before || 0)) / total) + " · " : "";
		const title = (upwell.report ? "Report: " : part + (kind === "running" ? "" : text + " · ")) + (state.run ? f.text(state.run) : state.verb || "") + " · upwell";
		if (document.title !== title) document.title = title;
	};

	const picture = () => {
		const lanes = state.lanes;
		if (picked && !lanes.some(l => l.name === picked)) picked = "";
		const tabs = lanes.length > 1 ? [{ name: "", label: "All lanes" }, ...lanes.map(l => ({ name: l.name, label: upwell.laneName(l) }))] : [];
		list($("lanes-pick"), tabs, t => t.name,
			t => {
				const b = make("button", "", t.label);
				b.type = "button";
				b.title = t.label;
				b.addEventListener("click", () => {
					picked = t.name;
					picture();
				});
				return b;
			},
			(b, t) => attr(b, "aria-pressed", t.name === picked));
		const s = series.get(picked) || { rate: [], answered: [], refused: [] };
		const lane = lanes.find(l => l.name === picked), t = upwell.elapsed(state);
		const now = lane || { per_second: state.rate, rate: lanes.reduce((sum, l) => sum + l.rate, 0), throttled: state.throttled, unavailable: state.unavailable };
		const refused = now.throttled + now.unavailable;
		say($("now-answered"), state.outcome ? "" : f.rate(now.per_second) + "/s");
		say($("now-rate"), state.outcome ? "" : f.rate(now.rate) + "/s");
		say($("now-refused"), f.count(refused));
		chart ||= new upwell.Chart($("chart"));
		chart.draw(s, state.width, t, new Date(state.started).getTime());
		const d = chart.data, most = Math.max(0, ...d.answered);
		attr($("chart"), "aria-label", "Calls per second over time, " + (lane ? upwell.laneName(lane) : "all lanes"));
		say($("chart-summary"), "Over " + f.span(t) + ": the limiter allows " + f.rate(now.rate) + " calls a second now, " + f.rate(now.per_second) +
			" are answered; at most " + f.rate(most) + " were. " + f.plural(refused, "refusal") + ".");
	};

	// Streams. One at a time, none while the page is not to be seen for a while, and none
	// after the end.
	let source, hide, again, heard = 0;
	const stop = () => {
		clearTimeout(again);
		if (source) source.close();
		source = null;
	};
	const lose = (kind, words) => {
		link = kind;
		notice = words;
		status();
	};
	const lost = () => lose("lost", "The connection to the worker is lost. The page tries again by itself; the numbers are those of " + f.time(state.at || Date.now()) + ".");
	const connect = () => {
		stop();
		heard = performance.now();
		source = new EventSource("api/events");
		const on = (name, full) => source.addEventListener(name, e => {
			heard = performance.now();
			merge(JSON.parse(e.data), full);
			if (link !== "live") lose("live", "");
			draw();
			requestAnimationFrame(() => document.body.classList.add("live")); // bars move from now on
		});
		on("full", true);
		on("change", false);
		source.addEventListener("end", stop);
		source.addEventListener("error", () => {
			if (!source || state.outcome) return stop();
			if (source.readyState === EventSource.CONNECTING) return lost();
			stop();
			refused();
		});
	};

	// There is a message every second. A stream that is silent for so many milliseconds is
	// broken, whatever the browser thinks of the connection.
	upwell.silence = 15000;
	const listen = () => {
		if (!source || state.outcome || performance.now() - heard < upwell.silence) return;
		lost();
		connect();
	};

	// refused finds out why there was no stream, and tries again later.
	const refused = async () => {
		let words = "The worker cannot be reached. The page tries again by itself.", kind = "lost";
		try {
			const res = await fetch("api/snapshot");
			if (res.status === 401) return location.reload(); // the session is over
			if (res.ok) {
				merge(await res.json(), true);
				kind = "crowded";
				words = "As many pages are open as the worker feeds at a time. This one is brought up to date every ten seconds.";
			}
		} catch { /* as said */ }
		lose(kind, words);
		draw();
		if (!state.outcome) again = setTimeout(connect, 10000);
	};

	if (upwell.report) {
		merge(JSON.parse(data.textContent), true);
		draw();
		return;
	}
	document.addEventListener("visibilitychange", () => {
		clearTimeout(hide);
		if (document.hidden) hide = setTimeout(stop, 60000);
		else if (!source && !state.outcome) connect();
	});
	setInterval(listen, 1000);
	upwell.job.route();
	connect();
})();
