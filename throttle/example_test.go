package throttle_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"upwell/throttle"
)

func Example() {
	lane := throttle.Lane{Region: "us-west-2", Model: "xai.grok-4.3", Tier: "flex"}
	limiters := throttle.NewSet(nil)
	limiter := limiters.Limiter(lane)

	permit, err := limiter.Acquire(context.Background(), throttle.Cost{Input: 1200, Output: 4000})
	if err != nil {
		fmt.Println(err)
		return
	}
	// One call to the endpoint goes here, and it is refused.
	permit.Done(throttle.Feedback{Outcome: throttle.Throttled})

	for lane, s := range limiters.States() {
		fmt.Printf("%v: %.0f/s, %s, %d refused\n", lane, s.Rate, s.Reason, s.Throttled)
	}
	// Output: us-west-2/xai.grok-4.3/flex: 2/s, cut: 429, 1 refused
}

// When the endpoint says to stay away for a while, nobody is kept in line.
func ExampleClosedError() {
	limiter := throttle.New(throttle.Config{})
	permit, err := limiter.Acquire(context.Background(), throttle.Cost{})
	if err != nil {
		fmt.Println(err)
		return
	}
	permit.Done(throttle.Feedback{Outcome: throttle.Unavailable, RetryAfter: 5 * time.Minute})

	_, err = limiter.Acquire(context.Background(), throttle.Cost{})
	if e, ok := errors.AsType[*throttle.ClosedError](err); ok {
		fmt.Println("give the message back for", time.Until(e.Until).Round(time.Minute), "because of", e.Reason)
	}
	// Output: give the message back for 5m0s because of Retry-After 5m0s
}

func ExampleConfig() {
	limiter := throttle.New(throttle.Config{
		StartRate: 20,
		OnChange:  func(s throttle.State) { fmt.Printf("%.0f/s: %s\n", s.Rate, s.Reason) },
	})
	permit, err := limiter.Acquire(context.Background(), throttle.Cost{})
	if err != nil {
		fmt.Println(err)
		return
	}
	permit.Done(throttle.Feedback{Outcome: throttle.Unavailable})
	// Output: 9/s: cut: no capacity
}
