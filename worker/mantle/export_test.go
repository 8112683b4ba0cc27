package mantle

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
