package mantle

import "upwell/jobs/skim"

// For tests of what no call shows.
var (
	RetryAfter = retryAfter
	Narrow     = func(schema []byte) []byte { return narrow(nil, schema) }
)

// MaxSchemas is the bound on compiled schemas that are kept.
const MaxSchemas = maxSchemas

// SchemasKept returns how many compiled schemas c keeps.
func SchemasKept(c *Client) int {
	c.schemas.mu.Lock()
	defer c.schemas.mu.Unlock()
	return len(c.schemas.byHash)
}

// Members returns the members of a JSON object as they stand in its text.
func Members(text []byte) map[string]string {
	all := map[string]string{}
	for m := range skim.Members(text, 0) {
		all[string(m.Key)] = string(m.Of(text))
	}
	return all
}

// Elements returns the elements of a JSON array as they stand in its text.
func Elements(text []byte) (all []string) {
	for v := range skim.Items(text, 0) {
		all = append(all, string(v.Of(text)))
	}
	return all
}
