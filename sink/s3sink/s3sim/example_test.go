package s3sim_test

import (
	"context"
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"

	"upwell/sink/s3sink/s3sim"
)

func Example() {
	dir, err := os.MkdirTemp("", "s3sim")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	sim, err := s3sim.New(s3sim.Config{Dir: dir})
	if err != nil {
		log.Fatal(err)
	}
	defer sim.Close()
	srv := httptest.NewServer(sim)
	defer srv.Close()

	// Any S3 client will do; without keys even this one.
	put := func(path, body string) {
		r, err := http.NewRequestWithContext(context.Background(), http.MethodPut, srv.URL+path, strings.NewReader(body))
		if err != nil {
			log.Fatal(err)
		}
		r.Header.Set("If-None-Match", "*")
		resp, err := srv.Client().Do(r)
		if err != nil {
			log.Fatal(err)
		}
		defer resp.Body.Close()
		fmt.Println(path, resp.Status)
	}
	put("/results", "")
	put("/results/runs/7/a.json", `{"ok":true}`)
	put("/results/runs/7/a.json", `{"ok":false}`)

	body, err := os.ReadFile(filepath.Join(dir, "results", "runs", "7", "a.json"))
	fmt.Printf("%s %v\n", body, err)
	// Output:
	// /results 200 OK
	// /results/runs/7/a.json 200 OK
	// /results/runs/7/a.json 412 Precondition Failed
	// {"ok":true} <nil>
}
