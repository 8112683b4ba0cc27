// Package standin stands in for SQS, S3 and the endpoint of a program that is
// measured.
//
// The servers run in a process of their own, so that neither their processor time
// nor their memory is taken for the program's. That process is the caller's own
// executable, which passes what follows the argument "serve" to [Serve]. What a
// program did is read from them: they count, nobody guesses.
package standin

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"golang.org/x/sync/errgroup"

	"upwell/jobs/sqsqueue"
	"upwell/jobs/sqsqueue/sqssim"
	"upwell/worker/mantle/mantlesim"
)

// Settings are what the stand-ins of one measurement are told.
type Settings struct {
	SQS, S3, Call time.Duration // time added to each request
	Capacity      string        // of the endpoint; see capacity.ParseScript
}

// Servers are running stand-ins.
type Servers struct {
	SQS, S3, Model string // URLs

	stop func()
}

// Start starts the stand-ins. Whoever does so calls Stop in the end.
func Start(ctx context.Context, set Settings) (*Servers, error) {
	arg, err := json.Marshal(set)
	if err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, self, "serve", string(arg))
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	s := &Servers{stop: func() { _ = stdin.Close(); _ = cmd.Wait() }}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err == nil {
		_, err = fmt.Sscan(line, &s.SQS, &s.S3, &s.Model)
	}
	if err != nil {
		s.stop()
		return nil, fmt.Errorf("stand-ins: %w", err)
	}
	return s, nil
}

// Stop ends the process of the stand-ins.
func (s *Servers) Stop() { s.stop() }

// Env are the variables that lead an AWS SDK to the stand-ins, and a key that
// the endpoint accepts.
func (s *Servers) Env() []string {
	return []string{
		"AWS_ENDPOINT_URL_SQS=" + s.SQS, "AWS_ENDPOINT_URL_S3=" + s.S3, "AWS_REGION=us-west-2",
		"AWS_ACCESS_KEY_ID=bench", "AWS_SECRET_ACCESS_KEY=bench", "OPENAI_API_KEY=bench",
	}
}

// Jobs are what a queue is filled with.
type Jobs struct {
	N        int
	Prompt   int // bytes of each
	Receives int // of a message before SQS moves it to the queue "dead"
}

// Fill makes the queues "jobs" and "dead" if need be and puts jobs into the first.
func (s *Servers) Fill(ctx context.Context, j Jobs) error {
	client := sqsqueue.NewClient(aws.Config{
		Region: "us-west-2", BaseEndpoint: &s.SQS,
		Credentials: credentials.NewStaticCredentialsProvider("bench", "bench", ""),
	})
	for _, name := range []string{"jobs", "dead"} {
		if _, err := client.CreateQueue(ctx, &sqs.CreateQueueInput{
			QueueName: &name, Attributes: map[string]string{"VisibilityTimeout": "120"},
		}); err != nil {
			return err
		}
	}
	q, err := sqsqueue.Open(ctx, client, sqsqueue.Config{Queue: "jobs", Dead: "dead"})
	if err != nil {
		return err
	}
	_, err = client.SetQueueAttributes(ctx, &sqs.SetQueueAttributesInput{
		QueueUrl: aws.String(q.URL()),
		Attributes: map[string]string{
			"RedrivePolicy": fmt.Sprintf(`{"deadLetterTargetArn":"arn:aws:sqs:us-east-1:000000000000:dead","maxReceiveCount":%d}`, j.Receives),
		},
	})
	if err != nil {
		return err
	}
	prompt := strings.Repeat("the quick brown fox jumps over the lazy dog ", j.Prompt/44+1)[:j.Prompt]
	g, sending := errgroup.WithContext(ctx)
	g.SetLimit(8)
	for i := 0; i < j.N; i += 10 {
		g.Go(func() error {
			var out []sqsqueue.Outgoing
			for n := i; n < min(i+10, j.N); n++ {
				out = append(out, sqsqueue.Outgoing{Body: fmt.Appendf(nil,
					`{"custom_id":"job-%06d","method":"POST","url":"/v1/responses","body":{"model":"xai.grok-4.3","max_output_tokens":4000,"input":%q}}`, n, prompt)})
			}
			return q.Send(sending, out)
		})
	}
	return g.Wait()
}

// Stored is what the bucket has seen of results.
type Stored struct {
	Keys    int // that were written
	Doubled int // writes of a key that was there, and that took effect
	Wrong   int // keys whose first content is not an answer of the endpoint
}

// Stored asks the bucket.
func (s *Servers) Stored(ctx context.Context) (st Stored, err error) {
	return st, get(ctx, s.S3+"/_stored", &st)
}

// Times returns when keys were first written, in order, in seconds since the
// first of them.
func (s *Servers) Times(ctx context.Context) (times []float64, err error) {
	return times, get(ctx, s.S3+"/_times", &times)
}

// Forget empties the bucket of results. What workers know together stays.
func (s *Servers) Forget(ctx context.Context) error { return get(ctx, s.S3+"/_forget", nil) }

// Counts asks the endpoint.
func (s *Servers) Counts(ctx context.Context) (c mantlesim.Counts, err error) {
	return c, get(ctx, s.Model+"/_sim/counts", &c)
}

// Queues asks SQS for what its queues hold, by name.
func (s *Servers) Queues(ctx context.Context) (map[string]sqssim.QueueStats, error) {
	var st sqssim.Stats
	err := get(ctx, s.SQS+"/_stats", &st)
	return st.Queues, err
}

// Refused is how many calls were turned away for lack of capacity.
func Refused(c mantlesim.Counts) int64 { return c.Refused429 + c.Refused503 + c.Refused529 }

// Steady is the rate in the middle of a run, without its ramp and its tail: of
// times as [Servers.Times] returns them.
func Steady(times []float64) float64 {
	a, b := len(times)/5, len(times)*4/5
	return float64(b-a) / (times[b] - times[a])
}

func get(ctx context.Context, url string, v any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil || v == nil {
		return err
	}
	return json.NewDecoder(bytes.NewReader(body)).Decode(v)
}
