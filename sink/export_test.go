package sink

// OneLine is the scanner's verdict.
func OneLine(b []byte) bool { return oneLine(b) }
