"use strict";
// A job's page: what became of it, call by call. Its address is #job=RUN/ID.
(() => {
	const f = upwell.format, { $, make, pairs } = upwell.dom;
	const dialog = $("job");
	if (!dialog) { // a report: jobs cannot be looked up
		upwell.job = { open() {} };
		return;
	}
	const states = { under_way: "under way", stored: "answered and stored", failed: "failed" };
	let asked = 0, opened = false;

	const open = (run, id) => {
		opened = true;
		location.hash = "job=" + encodeURIComponent(run) + "/" + encodeURIComponent(id);
	};

	// close leaves the address as it was before.
	const close = () => {
		if (!location.hash.startsWith("#job=")) return;
		if (opened) history.back();
		else history.replaceState(null, "", location.pathname + location.search);
		opened = false;
		if (dialog.open) dialog.close();
	};

	const route = () => {
		const m = /^#job=([^/]*)\/(.*)$/s.exec(location.hash);
		if (!m) {
			asked++;
			opened = false;
			if (dialog.open) dialog.close();
			return;
		}
		let run, id;
		try {
			[run, id] = [decodeURIComponent(m[1]), decodeURIComponent(m[2])];
		} catch {
			return;
		}
		look(run, id);
	};

	const look = async (run, id) => {
		const n = ++asked, body = $("job-body");
		$("job-title").replaceChildren(f.text(id), make("small", "", run ? "run " + f.text(run) : "no run"));
		body.replaceChildren(make("p", "empty", "Looking it up."));
		if (!dialog.open) dialog.showModal();
		$("job-title").focus();
		let answer;
		try {
			const res = await fetch("api/job?" + new URLSearchParams({ run, id }));
			answer = await res.json();
			if (!res.ok && !answer.error) answer.error = "HTTP " + res.status;
		} catch {
			answer = { error: "The worker cannot be reached." };
		}
		if (n !== asked) return;
		body.replaceChildren(...(answer.error ? [make("p", "empty", f.text(answer.error))] : view(answer)));
	};

	const view = j => {
		const chip = make("span", "chip", states[j.state] || f.text(j.state)), stats = make("dl", "stats");
		chip.dataset.state = j.state;
		const parts = [make("p", "", chip), stats];
		const items = [];
		if (j.since) items.push(["Started", f.day(j.since), j.calling ? "a call is in flight" : "waits for the next call"]);
		if (j.finished && !j.finished.startsWith("0001")) items.push(["Finished", f.day(j.finished)]);
		if (j.model) items.push(["Model", f.text(j.model), [j.region, j.tier].filter(Boolean).map(f.text).join(" · ")]);
		if (j.usage) {
			const u = j.usage;
			items.push(["Tokens in", f.count(u.input_tokens), u.cached_tokens ? f.count(u.cached_tokens) + " cached" : ""]);
			items.push(["Tokens out", f.count(u.output_tokens), u.reasoning_tokens ? f.count(u.reasoning_tokens) + " reasoning" : ""]);
			items.push(["Cost", f.dollars(j.cost_usd), [f.plural(j.billed_calls || 0, "billed call"), j.repairs ? f.plural(j.repairs, "repair") : "", j.extensions ? f.plural(j.extensions, "extension") : ""].filter(Boolean).join(", ")]);
		}
		pairs(stats, items);
		if (j.state === "failed") parts.push(make("p", "reason", make("b", "", f.text(j.class)), ": " + f.prose(j.reason)));
		parts.push(make("h3", "", "Attempts"), attempts(j));
		if (j.output) {
			parts.push(make("details", "", make("summary", "", "What the model said"), make("pre", "", f.prose(j.output) + (j.output_cut ? "\n… there is more of it in the stored result" : ""))));
		}
		return parts;
	};

	const attempts = j => {
		if (!(j.attempts || []).length) return make("p", "empty", "No call has ended yet.");
		const head = ["#", "Started", "Took", "Status", "Tier", "Region", "Error"].map(t => {
			const th = make("th", t === "#" || t === "Took" ? "num" : "", t);
			th.scope = "col";
			return th;
		});
		const rows = j.attempts.map(a => make("tr", "",
			make("td", "num", f.count(a.n)), make("td", "snug", f.time(a.started)), make("td", "num", f.span(a.took_ms / 1000)),
			make("td", "", a.status ? String(a.status) : "none"), make("td", "snug", f.text(a.tier || "")), make("td", "snug", f.text(a.region || "")),
			make("td", a.error ? "error" : "", a.error ? f.text(a.error) : "", ...(a.turn ? [make("small", "", f.text(a.turn))] : []))));
		const box = make("div", "scroll", make("table", "table", make("thead", "", make("tr", "", ...head)), make("tbody", "", ...rows)));
		box.tabIndex = 0;
		box.setAttribute("role", "region");
		box.setAttribute("aria-label", "Attempts");
		return j.attempts_left_out ? make("div", "", box, make("p", "empty", f.count(j.attempts_left_out) + " from the middle are left out.")) : box;
	};

	dialog.addEventListener("close", close);
	dialog.addEventListener("click", e => { if (e.target === dialog) dialog.close(); });
	$("job-close").addEventListener("click", () => dialog.close());
	addEventListener("hashchange", route);
	$("find").addEventListener("submit", e => {
		e.preventDefault();
		open($("find-run").value, $("find-id").value);
	});
	upwell.job = { open, route };
})();
