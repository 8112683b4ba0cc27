package mantlesim_test

import (
	"context"
	"fmt"
	"net/http/httptest"
	"strings"
	"time"

	"upwell/worker/mantle/mantlesim"
	"upwell/worker/mantle/mantlesim/capacity"
)

// An endpoint that admits two calls at once, and answers the third with 429.
func Example() {
	sim := mantlesim.New(mantlesim.Config{Capacity: capacity.MustScript("calls=0.1 burst=20")})
	srv := httptest.NewServer(sim)
	defer srv.Close()
	for range 3 {
		r := httptest.NewRequestWithContext(context.Background(), "POST", srv.URL+"/openai/v1/responses", strings.NewReader(`{"model":"xai.grok-4.3","input":"Hello."}`))
		r.RequestURI = ""
		r.Header.Set("Authorization", "Bearer any")
		res, err := srv.Client().Do(r)
		if err != nil {
			fmt.Println(err)
			return
		}
		res.Body.Close()
		fmt.Println(res.Status)
	}
	n := sim.Counts()
	fmt.Println(n.Answered, "answered,", n.Billed, "billed,", n.Refused429, "refused")
	// Output:
	// 200 OK
	// 200 OK
	// 429 Too Many Requests
	// 2 answered, 2 billed, 1 refused
}

// The 3rd call is billed, and its answer is lost.
func ExampleServer_SetFaults() {
	sim := mantlesim.New(mantlesim.Config{})
	err := sim.SetFaults([]mantlesim.Fault{
		{Kind: mantlesim.Reset, First: 3, Last: 3, Applied: true},
		{Kind: mantlesim.Unavailable, After: time.Minute, Until: 2 * time.Minute},
	})
	fmt.Println(err)
	// Output: <nil>
}
