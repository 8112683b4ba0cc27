"use strict";
// Each panel of the page, as a function of the state.
(() => {
	const f = upwell.format, { $, make, say, advise, attr, show, list, pairs } = upwell.dom;

	const settledBefore = s => s.totals ? s.totals.before || 0 : 0;
	const elapsed = s => Math.max((new Date(s.at) - new Date(s.started)) / 1000, 0.001);
	const laneName = l => [l.region, l.model, l.tier].filter(Boolean).map(f.text).join(" · ");

	const hero = s => {
		const done = s.settled + settledBefore(s), total = s.totals ? s.totals.jobs : 0;
		const failed = s.failed;
		say($("done"), f.count(done));
		const earlier = settledBefore(s) ? ", " + f.count(settledBefore(s)) + " of them before this start" : "";
		say($("done-of"), (total ? "of " + f.plural(total, "job") + " done" : done === 1 ? "job done" : "jobs done") + earlier);
		say($("percent"), total ? f.percent(done / total) : "");
		const bar = $("bar");
		show(bar, total > 0);
		if (total) {
			const part = n => Math.min(100 * n / total, 100) + "%";
			const [before, stored, bad] = bar.children;
			before.style.width = part(settledBefore(s));
			stored.style.width = part(s.settled - failed);
			bad.style.width = part(failed);
			attr(bar, "aria-valuenow", Math.floor(100 * done / total));
			attr(bar, "aria-valuetext", f.count(done) + " of " + f.count(total) + " jobs done");
		}
		const t = elapsed(s), over = !!s.outcome;
		const items = [over ? ["Answers/s on average", f.rate(s.answered / t)] : ["Answers/s now", f.rate(s.rate), f.rate(s.answered / t) + " on average"]];
		const queued = !total && s.queue ? s.queue.Visible + s.queue.Hidden + s.queue.Delayed : 0;
		if (!over && (total > done || queued > 0)) {
			const eta = s.eta && s.eta.soonest_seconds > 0 ? f.range(s.eta.soonest_seconds, s.eta.latest_seconds) : "";
			items.push(["Time left", eta || "not known", eta ? total ? "if the capacity stays" : "for what is queued, by this worker" : s.eta ? "nothing was done of late" : "it has just begun"]);
		}
		items.push(["Elapsed", f.span(t), "since " + f.time(s.started)]);
		items.push(cost(s));
		items.push(["Failed jobs", f.count(failed), failed ? f.percent(failed / Math.max(s.settled, 1)) + " of those done" : "", failed ? "bad" : ""]);
		items.push(["Refused calls", f.count(s.refused), s.refused ? f.percent(s.refused / Math.max(s.refused + s.answered, 1)) + " of calls, not billed" : ""]);
		pairs($("stats"), items);
	};

	const cost = s => {
		const some = f.dollars(s.cost.usd);
		if (s.cost.unknown) return ["Cost", s.cost.usd ? some + " + ?" : "unknown", "of " + f.plural(s.cost.unknown, "call") + " no price is known"];
		return ["Cost", some, s.budget && s.budget.limit_usd != null ? "budget " + f.dollars(s.budget.limit_usd) : ""];
	};

	// What the present bound means for the calls, in a clause.
	const held = {
		ramp: ["", "On the way up to the capacity"],
		quota: ["", "Held back by the account's quota"],
		capacity: ["warn", "Held back by the tier's capacity"],
		deadline: ["warn", "Held back by the first tier's capacity, while jobs wait for their deadline to come near"],
		in_flight: ["", "Held back by a limit of calls in flight"],
		max_rate: ["", "Held back by --max-rate"],
		credential: ["bad", "No calls are let in"],
		budget: ["bad", "Waiting for money: the budget has no room for another call"],
		slots: ["", "As fast as its slots allow: each has a call in flight"],
		memory: ["warn", "Held back by the memory for prompts"],
		errors: ["warn", "Calls fail, and are tried again"],
		queue: ["warn", "Waiting for the queue"],
		store: ["warn", "Waiting for the store"],
		empty: ["", "Nothing holds it back: the queue hands out no more jobs"],
		draining: ["warn", "Stopping: calls in flight are waited for"],
	};

	const sentence = s => {
		const e = $("sentence");
		let tone = "", text;
		const bound = s.worker && s.worker.bound, words = held[bound];
		const allowed = s.lanes.reduce((sum, l) => sum + l.rate, 0);
		if (s.outcome) {
			text = "The run " + ({ done: "is done", interrupted: "was interrupted; started again, it goes on where it was", parked: "is parked: the budget is used up" }[s.outcome] || "has ended (" + f.text(s.outcome) + ")") +
				": " + f.plural(s.settled, "job") + " settled in " + f.span(elapsed(s)) + ", " + f.count(s.failed) + " failed, " + f.plural(s.refused, "call") + " refused.";
		} else if (!words) {
			text = s.paused ? "Paused." : "Starting.";
		} else {
			const why = (s.why || []).find(w => w.bound === bound);
			const numbers = ["ramp", "quota", "capacity", "deadline", "in_flight", "max_rate"].includes(bound) ? ": " + f.rate(s.rate) + " calls/s are answered, " + f.rate(allowed) + " allowed" :
				bound === "slots" ? ", " + f.count(s.worker.slots) + " of them" : "";
			tone = words[0];
			text = words[1] + numbers + "." + (why && why.help && !/^(nothing|time)/.test(why.help) ? " To change that: " + why.help + "." : "");
		}
		attr(e, "data-tone", tone);
		advise(e, text);
	};

	const why = s => {
		const shares = (s.outcome ? s.why_whole : s.why) || [];
		say($("why-span"), shares.length ? s.outcome || elapsed(s) < 600 ? "share of the whole time" : "share of the last ten minutes" : "");
		show($("why-none"), !shares.length);
		show($("why-bar"), shares.length > 0);
		const key = w => w.bound, name = w => held[w.bound] ? " b-" + w.bound : "";
		list($("why-bar"), shares, key, w => make("span", name(w)), (e, w) => { e.style.flexGrow = w.share; });
		list($("why"), shares, key,
			w => {
				const e = make("li", "", make("span", "swatch" + name(w)), make("span", "share"), make("div", "", make("span", "what"), make("span", "help")));
				return e;
			},
			(e, w) => {
				say(e.children[1], f.percent(w.share));
				say(e.querySelector(".what"), f.text(w.what || w.bound));
				advise(e.querySelector(".help"), w.help && !/^nothing$/.test(w.help) ? "\u2192 " + f.text(w.help) : "");
			});
	};

	// gauge is how much of something is taken: [name, used, most, text, set aside].
	const gauges = (parent, items) => list(parent, items, i => i[0],
		i => make("div", "gauge", make("p", "row", make("b", "", i[0]), make("span")), make("div", "meter", make("span", "used"), make("span", "set"))),
		(e, i) => {
			const [head, meter] = e.children, most = i[2] || 0;
			say(head.lastChild, i[3]);
			show(meter, most > 0);
			meter.children[0].style.width = most ? Math.min(100 * i[1] / most, 100) + "%" : "0";
			meter.children[1].style.width = most ? Math.min(100 * (i[4] || 0) / most, 100 - Math.min(100 * i[1] / most, 100)) + "%" : "0";
		});

	const room = s => {
		const w = s.outcome ? null : s.worker, q = s.queue, items = []; // a worker that has ended holds nothing
		show($("worker"), !s.outcome || !!q);
		show($("room-none"), !w && !q);
		if (w) {
			items.push(["Calls in flight", w.slots_used, w.slots, f.count(w.slots_used) + " of " + f.plural(w.slots, "slot")]);
			items.push(["Jobs held", w.held, w.most, f.count(w.held) + " of " + f.count(w.most) + (w.oldest >= 1 ? ", oldest " + f.span(w.oldest) : "")]);
			if (w.most_bytes) items.push(["Memory for prompts", w.bytes, w.most_bytes, f.bytes(w.bytes) + " of " + f.bytes(w.most_bytes)]);
			if (w.money) items.push(["Waiting for money", 0, 0, f.plural(w.money, "job")]);
		}
		if (q) {
			const total = q.Visible + q.Hidden + q.Delayed;
			items.push(["Queue", 0, 0, total ? f.count(q.Visible) + " waiting, " + f.count(q.Hidden) + " taken" + (q.Delayed ? ", " + f.count(q.Delayed) + " later" : "") : "empty"]);
		}
		gauges($("room"), items);
	};

	const money = s => {
		say($("cost"), cost(s)[1]);
		const n = s.stored;
		say($("cost-each"), n && s.cost.usd && !s.cost.unknown ? f.dollars(1000 * s.cost.usd / n) + " per 1,000 answers" : s.cost.unknown ? cost(s)[2] : "");
		const b = s.budget;
		gauges($("budget"), b && b.limit_usd != null ? [["Budget", b.spent_usd || 0, b.limit_usd,
			f.dollars(b.spent_usd) + " of " + f.dollars(b.limit_usd) + (b.reserved_usd ? ", " + f.dollars(b.reserved_usd) + " set aside" : ""), b.reserved_usd]] : []);
		const u = s.usage;
		const items = [["Input tokens", f.short(u.input_tokens)]];
		items.push(["of them cached", f.short(u.cached_tokens) + (u.input_tokens ? " (" + f.percent(u.cached_tokens / u.input_tokens) + ")" : ""), "sub"]);
		items.push(["Output tokens", f.short(u.output_tokens)]);
		items.push(["of them reasoning", f.short(u.reasoning_tokens) + (u.output_tokens ? " (" + f.percent(u.reasoning_tokens / u.output_tokens) + ")" : ""), "sub"]);
		if (s.repairs) items.push(["Answers mended", f.count(s.repairs)]);
		if (s.extensions) items.push(["Answers given more room", f.count(s.extensions)]);
		if (s.escalated) items.push(["Jobs moved up a tier", f.count(s.escalated)]);
		if (s.errors) items.push(["Calls that failed otherwise", f.count(s.errors)]);
		if (s.duplicate) items.push(["Jobs answered before", f.count(s.duplicate)]);
		if (s.released) items.push(["Messages given back", f.count(s.released)]);
		const dl = $("tokens");
		list(dl, items.flatMap(i => [{ k: "t" + i[0], tag: "dt", text: i[0], name: i[2] }, { k: "d" + i[0], tag: "dd", text: i[1], name: i[2] }]), i => i.k,
			i => make(i.tag, i.name || ""), (e, i) => say(e, i.text));
	};

	const lanes = s => {
		show($("lanes-none"), !s.lanes.length);
		show($("lanes-none").previousElementSibling, s.lanes.length > 0);
		list($("lanes"), s.lanes, l => l.name,
			() => {
				const th = make("th", "", make("span"), make("small"));
				th.scope = "row";
				return make("tr", "", th, ...Array.from({ length: 6 }, () => make("td", "num")), make("td", "wide", make("span", "closed"), make("span"), make("small")));
			},
			(e, l) => {
				const c = e.children;
				say(c[0].children[0], f.text(l.model));
				say(c[0].children[1], [l.region, l.tier].filter(Boolean).map(f.text).join(" · "));
				const now = s.outcome ? () => "\u2013" : n => n;
				[now(f.rate(l.per_second)), f.rate(l.rate), now(f.count(l.in_flight)), now(f.count(l.waiting)), f.count(l.answered), f.count(l.throttled + l.unavailable)]
					.forEach((text, i) => say(c[i + 1], text));
				const shut = !s.outcome && l.closed_until && new Date(l.closed_until) > new Date(s.at);
				show(c[7].children[0], !!shut);
				say(c[7].children[0], shut ? "closed until " + f.time(l.closed_until) : "");
				say(c[7].children[1], f.text(l.reason));
				say(c[7].children[2], [l.stable ? "stable at " + f.rate(l.stable) + "/s" : "", l.binds ? "limited: " + f.text(l.binds) : ""].filter(Boolean).join(", "));
			});
	};

	const classes = {
		bad_request: "the endpoint refused what the request says",
		bad_job: "the message is not a job",
		context_length: "the prompt is longer than the model takes",
		refused: "the model declined to answer",
		schema: "the answer does not fit its schema",
		truncated: "the answer ended at its token limit",
		expired: "the deadline passed before an answer",
		poison: "delivered again and again, and never settled",
		exhausted: "every attempt failed",
	};

	const failures = s => {
		show($("failures-none"), !s.failures.length);
		say($("failures-count"), s.failures.length ? "by class, with the newest of each" : "");
		list($("failures"), s.failures, c => c.class,
			c => make("div", "class", make("h3", "", make("span", "n"), make("span", "", f.text(c.class)), make("span", "", classes[c.class] || "")), make("ul")),
			(e, c) => {
				say(e.firstChild.firstChild, f.count(c.count));
				list(e.lastChild, (c.examples || []).slice(0, upwell.report ? 5 : 3), x => x.run + "\u0000" + x.custom_id + "\u0000" + x.at,
					x => {
						const name = f.text(x.custom_id) || "(no custom_id)";
						const id = upwell.report || !x.custom_id ? make("span", "id", name) : make("button", "link", name);
						if (id.type === "submit") {
							id.type = "button";
							id.addEventListener("click", () => upwell.job.open(x.run, x.custom_id));
						}
						const at = make("time", "", f.time(x.at));
						at.dateTime = x.at;
						return make("li", "", at, make("div", "", id, make("span", "reason", f.text(x.reason) + (x.status ? " (HTTP " + x.status + ")" : ""))));
					}, () => {});
			});
	};

	const tones = { closed: "warn", paused: "bad", parked: "bad", late: "warn", opened: "good", resumed: "good", unparked: "good" };
	let all = false;

	const news = s => {
		const items = (s.news || []).slice(0, all ? 60 : upwell.report ? 20 : 8);
		show($("news-none"), !items.length);
		const more = $("news-more");
		show(more, !upwell.report && (s.news || []).length > 8);
		say(more, all ? "Show fewer" : "Show more");
		attr(more, "aria-expanded", all);
		list($("news"), items, n => n.at + n.kind + n.text,
			n => {
				const cut = n.kind === "rate" && / cut\b/.test(n.text);
				const kind = make("span", "kind", cut ? "cut" : f.text(n.kind)), at = make("time", "", f.time(n.at));
				kind.dataset.tone = cut ? "warn" : tones[n.kind] || "";
				at.dateTime = n.at;
				return make("li", "", at, kind, make("span", "text", f.text(n.text)));
			}, () => {});
	};
	$("news-more").addEventListener("click", () => {
		all = !all;
		if (upwell.state) news(upwell.state);
	});

	upwell.panels = [hero, sentence, why, room, money, failures, lanes, news];
	upwell.elapsed = elapsed;
	upwell.laneName = laneName;
})();
