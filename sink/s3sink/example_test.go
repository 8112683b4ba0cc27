package s3sink_test

import (
	"context"
	"fmt"
	"net/http/httptest"
	"os"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"upwell/jobs"
	"upwell/sink"
	"upwell/sink/s3sink"
	"upwell/sink/s3sink/s3sim"
)

func Example() {
	dir, err := os.MkdirTemp("", "")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	sim, err := s3sim.New(s3sim.Config{Dir: dir})
	if err != nil {
		panic(err)
	}
	srv := httptest.NewServer(sim)
	defer srv.Close()

	ctx := context.Background()
	client := s3sink.NewClient(aws.Config{
		Region: "us-west-2", BaseEndpoint: &srv.URL,
		Credentials: credentials.NewStaticCredentialsProvider("any", "any", ""),
	})
	if _, err := client.CreateBucket(ctx, &s3.CreateBucketInput{Bucket: new("legal")}); err != nil {
		panic(err)
	}

	s := s3sink.New(client, "legal", "reviews")
	k := jobs.Key{Run: "2026-q3", CustomID: "msa/42"}
	for _, text := range []string{"first", "second"} {
		r := jobs.Result{ID: k.RequestID(), CustomID: k.CustomID, Upwell: jobs.Record{OutputText: text}}
		fmt.Println(s.Put(ctx, k, r))
	}
	for o, err := range s.List(ctx, k.Run, sink.Results) {
		if err != nil {
			panic(err)
		}
		r, err := s.ReadObject(ctx, o)
		fmt.Println(o.Path, r.Upwell.OutputText, err)
	}
	// Output:
	// true <nil>
	// false <nil>
	// reviews/runs/2026-q3/results/21/msa%2F42.json first <nil>
}
