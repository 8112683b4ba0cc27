"use strict";
// The little that is needed to keep elements as the data is. Text gets into the page
// by textContent alone.
(() => {
	const $ = id => document.getElementById(id);

	// make returns an element: its class, then its text or its children.
	const make = (tag, name, ...content) => {
		const e = document.createElement(tag);
		if (name) e.className = name;
		for (const c of content) e.append(c instanceof Node ? c : document.createTextNode(c));
		return e;
	};

	// say sets the text of an element, if it is another one.
	const say = (e, text) => {
		if (e.textContent !== text) e.textContent = text;
	};

	// advise does, with the names of flags in one piece.
	const advise = (e, text) => {
		if (e.textContent !== text) e.replaceChildren(...text.split(/(--[a-z][a-z-]*)/).map((part, i) => i % 2 ? make("code", "", part) : part));
	};

	const attr = (e, name, value) => {
		if (value == null) e.removeAttribute(name);
		else if (e.getAttribute(name) !== String(value)) e.setAttribute(name, value);
	};

	const show = (e, yes) => {
		if (e.hidden === yes) e.hidden = !yes;
	};

	// list keeps one child for each item: made once, kept while an item of the same key
	// is there, put in order, and removed afterwards. So there are never more elements
	// than items, and the one that has the focus stays what it is.
	const list = (parent, items, key, create, update) => {
		const had = parent.kept || (parent.kept = new Map());
		const now = new Map();
		let next = parent.firstChild;
		for (const item of items) {
			const k = key(item);
			if (now.has(k)) continue;
			const e = had.get(k) || create(item);
			now.set(k, e);
			update(e, item);
			if (e === next) next = next.nextSibling;
			else parent.insertBefore(e, next);
		}
		for (const [k, e] of had) {
			if (!now.has(k)) e.remove();
		}
		parent.kept = now;
	};

	// pairs keeps a description list: [term, text, note, class] each.
	const pairs = (dl, items) => list(dl, items, i => i[0],
		i => {
			const e = make("div", "", make("dt", "", i[0]), make("dd"));
			e.value = e.lastChild.appendChild(document.createTextNode(""));
			e.note = e.lastChild.appendChild(make("small"));
			return e;
		},
		(e, i) => {
			if (e.value.data !== i[1]) e.value.data = i[1];
			say(e.note, i[2] || "");
			if (e.className !== (i[3] || "")) e.className = i[3] || "";
		});

	upwell.dom = { $, make, say, advise, attr, show, list, pairs };
})();
