package table

// Held returns what all open files hold back, in bytes, and what p takes that for.
func (p *Parts) Held() (held, counted int) {
	for _, f := range p.open {
		held += f.Held()
	}
	return held, p.held
}
