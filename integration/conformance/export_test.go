package conformance

import "testing"

// Examine performs one check as [Run] does, and tells tb.
func Examine(tb testing.TB, c Check, deviations map[string]string) {
	tb.Helper()
	x := &T{t: tb}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		c.Run(x)
	}()
	<-ended
	reason, listed := deviations[c.Name]
	x.judge(tb, reason, listed)
}

// Misnamed returns what [Run] has to say about names.
var Misnamed = misnamed
