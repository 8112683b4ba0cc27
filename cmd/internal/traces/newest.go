package traces

import "container/list"

// A newest is a map that lets go of its oldest entry when it is full.
type newest[K comparable, V any] struct {
	most    int
	entries map[K]*list.Element // of pair[K, V]
	order   *list.List          // the oldest first
}

type pair[K comparable, V any] struct {
	key   K
	value V
}

func newNewest[K comparable, V any](most int) *newest[K, V] {
	return &newest[K, V]{most: most, entries: make(map[K]*list.Element), order: list.New()}
}

// get returns the value of k.
func (n *newest[K, V]) get(k K) (v V, ok bool) {
	e, ok := n.entries[k]
	if !ok {
		return v, false
	}
	return e.Value.(pair[K, V]).value, true
}

// take removes k and returns its value.
func (n *newest[K, V]) take(k K) (v V, ok bool) {
	e, ok := n.entries[k]
	if !ok {
		return v, false
	}
	delete(n.entries, k)
	return n.order.Remove(e).(pair[K, V]).value, true
}

// put sets the value of k, and returns that of the entry which had to go for it.
func (n *newest[K, V]) put(k K, v V) (gone V, full bool) {
	if e, ok := n.entries[k]; ok {
		e.Value = pair[K, V]{k, v}
		return gone, false
	}
	if len(n.entries) >= n.most {
		gone, full = n.oldest()
	}
	n.entries[k] = n.order.PushBack(pair[K, V]{k, v})
	return gone, full
}

// oldest removes the oldest entry and returns its value.
func (n *newest[K, V]) oldest() (v V, ok bool) {
	e := n.order.Front()
	if e == nil {
		return v, false
	}
	return n.take(e.Value.(pair[K, V]).key)
}
