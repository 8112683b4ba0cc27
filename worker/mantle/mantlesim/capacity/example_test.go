package capacity_test

import (
	"fmt"

	"upwell/worker/mantle/mantlesim/capacity"
)

func ExampleParseScript() {
	script, err := capacity.ParseScript("calls=20 flex.refuse=0.1; 15s calls=40; 1m calls=10..60/2m conc=100 queue=50")
	fmt.Println(script, err)
	_, err = capacity.ParseScript("calls=20; 15s speed=40")
	fmt.Println(err)
	// Output:
	// 0s calls=20 flex.refuse=0.1; 15s calls=40; 1m0s calls=10..60/2m0s conc=100 queue=50 <nil>
	// script: no resource "speed"
}
