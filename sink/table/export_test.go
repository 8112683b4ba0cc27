package table

// Held returns what all open files hold back, in bytes.
func (p *Parts) Held() (held int) {
	for _, f := range p.open {
		held += f.Held()
	}
	return held
}
