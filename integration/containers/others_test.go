package containers

import (
	"fmt"
	"io"
	"maps"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/moby/moby/api/types/container"
	"github.com/testcontainers/testcontainers-go"

	"upwell/infra/local"
	"upwell/jobs/sqsqueue"
	"upwell/sink"
	"upwell/sink/s3sink"
)

// TestServersOfOthers runs the image as a user would, told by nothing but environment
// variables, with SQS and S3 that nobody here wrote: it submits a file, works on it, is
// killed in the middle, and verifies the run in the end.
func TestServersOfOthers(t *testing.T) {
	engine(t)
	w := newWorld(t, local.Config{}) // of which only the endpoint is used
	net := newNetwork(t)
	sqsURL, sqsInside := fauxqs(t, net, "sqs")
	s3URL, s3Inside := versitygw(t, net, "s3")
	objects := s3sink.NewClient(config(s3URL))
	w.queue = furnish(t, config(sqsURL), objects)
	input, env := w.write(t, 1200), w.env()
	maps.Copy(env, map[string]string{
		"AWS_REGION": "us-east-1", "AWS_ACCESS_KEY_ID": versitygwKey, "AWS_SECRET_ACCESS_KEY": versitygwSecret,
		"AWS_ENDPOINT_URL_SQS": sqsInside, "AWS_ENDPOINT_URL_S3": s3Inside, "UPWELL_RUN": runName,
		"UPWELL_SLOTS": fmt.Sprint(slots), "UPWELL_START_RATE": "20", "UPWELL_MAX_RATE": "20",
	})
	upwell := func(args ...string) *box {
		return launch(t, testcontainers.ContainerRequest{Env: env, Cmd: args, Networks: []string{net}},
			func(h *container.HostConfig) { h.Binds = []string{input + ":/in:ro"} })
	}
	if b := upwell("submit", "/in/"+runName+".jsonl"); b.exits(t) != 0 {
		t.Fatalf("upwell submit fails: %s", b.log.String())
	}
	first, second := upwell("worker"), upwell() // the latter as the image is by itself
	first.says(t, workerStarted)
	w.eventually(t, "a third to be billed", func() bool { return w.Mantle.Counts().Billed > 400 })
	first.signal(t, "KILL")
	third := upwell("worker")
	eventually(t, "the health checks to pass", func() bool { return healthy(t, second) && healthy(t, third) })
	w.eventually(t, "all jobs to be done", func() bool {
		c, err := w.queue.Counts(t.Context())
		return err == nil && c.Total() == 0 && int(w.Mantle.Counts().Billed) >= len(w.names)
	})
	for _, b := range []*box{second, third} {
		b.says(t, workerStarted) // a process that is not that far has no ear for a signal
		b.signal(t, "TERM")
		if code := b.exits(t); code != 0 {
			t.Errorf("a worker that was told to stop ended with %d, want 0: %s", code, tail(b.log.String()))
		}
	}
	verify := upwell("verify", runName)
	if code := verify.exits(t); code != 0 || !strings.Contains(verify.log.String(), "balances") {
		t.Errorf("upwell verify = %d, want 0 and a run that balances: %s", code, verify.log.String())
	}
	dead, err := sqsqueue.Open(t.Context(), sqsqueue.NewClient(config(sqsURL)), sqsqueue.Config{Queue: deadName, Dead: deadName})
	if err != nil {
		t.Fatal(err)
	}
	letters, err := dead.Counts(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	w.settle(t, listed(t, objects, sink.Results), listed(t, objects, sink.Errors), account{
		faults: "1 kill; SQS by fauxqs, S3 by versitygw", bound: lostByKill, dead: letters.Total(),
	})
}

// healthy reports what the engine makes of the image's health check.
func healthy(t *testing.T, b *box) bool {
	t.Helper()
	state, err := b.State(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if !state.Running {
		t.Fatalf("the worker has ended with %d: %s", state.ExitCode, tail(b.log.String()))
	}
	return state.Health != nil && state.Health.Status == container.Healthy
}

// listed returns how often each job has a result in a bucket, and verifies each.
func listed(t *testing.T, objects *s3.Client, kind sink.Kind) map[string]int {
	t.Helper()
	found := make(map[string]int)
	pages := s3.NewListObjectsV2Paginator(objects, &s3.ListObjectsV2Input{Bucket: aws.String(bucketName), Prefix: aws.String(kind.Prefix("", runName))})
	for pages.HasMorePages() {
		page, err := pages.NextPage(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, o := range page.Contents {
			got, err := objects.GetObject(t.Context(), &s3.GetObjectInput{Bucket: aws.String(bucketName), Key: o.Key})
			if err != nil {
				t.Fatal(err)
			}
			text, err := io.ReadAll(got.Body)
			_ = got.Body.Close()
			if err != nil {
				t.Fatal(err)
			}
			found[check(t, *o.Key, text)]++
		}
	}
	return found
}
