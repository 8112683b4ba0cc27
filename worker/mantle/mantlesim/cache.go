package mantlesim

import "hash/maphash"

// cacheBlocks bounds the prefixes remembered, twice over. At the default block
// of 1024 tokens it is a hundred full prompts of 600 thousand tokens.
const cacheBlocks = 1 << 16

// A cache remembers which prompt prefixes were seen, as hashes of whole blocks.
// When the young half is full it becomes the old half, and the old is forgotten.
// Server.mu guards the maps; the rest never changes.
type cache struct {
	block      int // tokens; negative for no caching
	seed       maphash.Seed
	young, old map[uint64]struct{}
}

func (c *cache) clear() { c.young, c.old = map[uint64]struct{}{}, nil }

// prefixes returns a hash of each whole number of blocks that q's prompt begins
// with, shortest first.
func (c *cache) prefixes(q *request) (sums []uint64) {
	size := int(float64(c.block) * proseBytes)
	if size <= 0 {
		return nil
	}
	var h maphash.Hash
	h.SetSeed(c.seed)
	h.WriteString(q.Model)
	room := size
	for _, s := range q.prompt.parts {
		for len(s) >= room {
			h.WriteString(s[:room])
			s, room = s[room:], size
			sums = append(sums, h.Sum64())
		}
		h.WriteString(s)
		room -= len(s)
	}
	return sums
}

// hit returns how many of a prompt's input tokens are cached.
func (c *cache) hit(sums []uint64, input int) int {
	for i := len(sums); i > 0; i-- {
		_, young := c.young[sums[i-1]]
		if _, old := c.old[sums[i-1]]; young || old {
			return min(i*c.block, input)
		}
	}
	return 0
}

func (c *cache) add(sums []uint64) {
	for _, sum := range sums {
		if len(c.young) >= cacheBlocks {
			c.young, c.old = make(map[uint64]struct{}), c.young
		}
		c.young[sum] = struct{}{}
	}
}
