package containers

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/sqs"

	"upwell/jobs"
	"upwell/jobs/queuetest"
	"upwell/jobs/sqsqueue"
	"upwell/sink"
	"upwell/sink/s3sink"
	"upwell/sink/sinktest"
)

// TestStrangers holds servers that nobody here wrote to the checks that our own pass
// without exception. What they fail is listed with the reason, and what no list has is
// something that we and they agree on. Then the adapters do a job of work on them.
func TestStrangers(t *testing.T) {
	if url := os.Getenv(checkedQueue); url != "" {
		t.Run("sqs", func(t *testing.T) { checkQueue(t, url) })
		return
	}
	engine(t)
	t.Run("sqs", func(t *testing.T) {
		t.Parallel()
		url, _ := fauxqs(t, "", "")
		checkQueueCalmly(t, url)
		t.Run("adapter", func(t *testing.T) { workQueue(t, sqsqueue.NewClient(config(url))) })
	})
	t.Run("s3", func(t *testing.T) {
		t.Parallel()
		url, _ := versitygw(t, "", "")
		client := func(opts ...func(*s3.Options)) *s3.Client { return s3sink.NewClient(config(url), opts...) }
		sinktest.Run(t, sinktest.Server{Client: client, Deviations: versitygwDeviations})
		t.Run("adapter", func(t *testing.T) { workSink(t, client()) })
	})
}

// checkedQueue is the variable by which TestStrangers, in a process of its own, is told to
// perform the checks of queues and nothing else, on the server with that URL.
const checkedQueue = "UPWELL_TEST_CHECKED_QUEUE"

const (
	// hitch is how long the server, or this process, may take for next to nothing. The
	// checks of queues are about timeouts of a second or two, and bear a little more.
	hitch = time.Second / 2

	// stoodStill is what is said when it was longer.
	stoodStill = "while the checks were performed something stood still for "
)

// checkQueueCalmly has the checks of queues performed by another process, whose failures
// are not this test's yet. They are in real time, as the server is, so that those which
// failed while the machine or the server stood still tell nothing, and are performed again.
func checkQueueCalmly(t *testing.T, url string) {
	t.Helper()
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	pattern, wanted := "^TestStrangers$", "--- PASS: TestStrangers/sqs/conformance/"
	if _, some, ok := strings.Cut(flag.Lookup("test.run").Value.String(), "/"); ok {
		pattern, wanted = pattern+"/"+some, "" // there may be none of them
	}
	for deadline := time.Now().Add(patience); ; {
		cmd := exec.CommandContext(t.Context(), program, "-test.run="+pattern, "-test.v")
		cmd.Env = append(os.Environ(), checkedQueue+"="+url)
		out, err := cmd.CombinedOutput()
		text := string(out)
		switch {
		case err == nil && strings.Contains(text, wanted):
			return
		case err == nil:
			t.Fatalf("no check was performed:\n%s", text)
		case !strings.Contains(text, stoodStill) || time.Now().After(deadline):
			t.Fatalf("%v:\n%s", err, text)
		}
		t.Logf("the checks are performed again, as they failed: %s", between(text, stoodStill, "\n"))
	}
}

// between returns what a text says from one word until another.
func between(text, from, until string) string {
	_, rest, _ := strings.Cut(text, from)
	rest, _, _ = strings.Cut(rest, until)
	return from + rest
}

// checkQueue performs the checks of queues, and says whether anything stood still.
func checkQueue(t *testing.T, url string) {
	t.Helper()
	worst := pulse(t, url+"/health")
	client := func(opts ...func(*sqs.Options)) *sqs.Client { return sqsqueue.NewClient(config(url), opts...) }
	t.Cleanup(func() { // when all have ended
		if took := worst(); took > hitch {
			t.Logf("%s%v", stoodStill, took.Round(time.Millisecond))
		}
	})
	queuetest.Run(t, queuetest.Server{Client: client, Deviations: fauxqsDeviations})
}

// pulse asks a server for next to nothing again and again. What it returns ends that, and
// says how long the longest took, of this process's own pauses too.
func pulse(t *testing.T, url string) (worst func() time.Duration) {
	t.Helper()
	const pause = 20 * time.Millisecond
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	var longest time.Duration
	var asking sync.WaitGroup
	asking.Go(func() {
		for ctx.Err() == nil {
			start := time.Now()
			req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
			if err != nil {
				t.Error(err)
				return
			}
			if resp, err := http.DefaultClient.Do(req); err == nil {
				_ = resp.Body.Close()
			}
			time.Sleep(pause)
			longest = max(longest, time.Since(start)-pause) // of one that was cut off at the end too
		}
	})
	return func() time.Duration {
		cancel()
		asking.Wait()
		return longest
	}
}

// config returns the configuration for a stranger.
func config(url string) aws.Config {
	tr := http.DefaultTransport.(*http.Transport).Clone()
	tr.MaxIdleConnsPerHost = 64
	return aws.Config{
		Region:       "us-east-1",
		BaseEndpoint: &url,
		Credentials:  credentials.NewStaticCredentialsProvider(versitygwKey, versitygwSecret, ""),
		HTTPClient:   &http.Client{Transport: tr},
	}
}

const unchecked = "fauxqs 2.4.1 does not check it; the SQS API reference says that it is an error"

const single = "fauxqs 2.4.1 gives out one message of a group at a time; SQS says that it tries to give out more"

// fauxqsDeviations are what fauxqs 2.4.1 does in another way than SQS.
var fauxqsDeviations = map[string]string{
	"CreateQueue/invalid name":                 unchecked,
	"SetQueueAttributes/invalid RedrivePolicy": unchecked,
	"FIFO/redrive to a standard queue":         unchecked,
	"FIFO/group invalid":                       unchecked,
	"PurgeQueue/again":                         unchecked,
	"message attributes/invalid":               unchecked,
	"DelaySeconds/invalid":                     unchecked,
	"SendMessageBatch/invalid parameters":      unchecked,
	"batch/invalid id":                         unchecked + ": of four it takes the one that is too long",
	"receipt/made up does not delete":          unchecked,
	"DeleteMessageBatch/bad receipt":           unchecked,
	"StartMessageMoveTask":                     "fauxqs 2.4.1 has no move tasks",
	"ListDeadLetterSourceQueues":               "fauxqs 2.4.1 does not have it",
	"redrive/DeadLetterQueueSourceArn":         "fauxqs 2.4.1 does not keep where a dead letter comes from",
	"MessageGroupId on a standard queue":       "fauxqs 2.4.1 knows no fair queues, and drops the group",
	"characters/beyond 16 bits":                "fauxqs 2.4.1 refuses #x10000 to #x10FFFF, which SQS takes since it takes XML 1.0",
	"message attributes/selected":              "fauxqs 2.4.1 returns all attributes to those who ask for none",
	"MD5/attributes":                           "fauxqs 2.4.1 sums all attributes, and not those that it returns",
	"FIFO/several of a group at once":          single,
	"FIFO/redelivery up to one in flight":      single + ", so there are no three to give back",
}

const posix = "versitygw 1.8.0 keeps an object as the file that its key spells"

// versitygwDeviations are what versitygw 1.8.0 does in another way than S3.
var versitygwDeviations = map[string]string{
	"key/object and folder": posix + ", and a file is no folder",
	"key/folder and object": posix + ", and a folder is no file",
	"key/double slash":      posix + ", and lists a//b as a/b",
	"key/slash first":       posix + ", and lists /a as a",
	"key/slash last":        posix + ": one that ends in a slash is a folder, and empty",
	"key/long segment":      posix + ", whose name has at most 255 bytes",
	"key/too long":          posix + ", and complains of the name before the key, with 409",
	"signature/unknown key": "versitygw 1.8.0 answers 404 XAdminUserNotFound",
}

// workQueue has the adapter do what a worker does, and balances the account.
func workQueue(t *testing.T, client *sqs.Client) {
	t.Helper()
	ctx := t.Context()
	for _, name := range []string{"work", "work-dead"} {
		if _, err := client.CreateQueue(ctx, &sqs.CreateQueueInput{QueueName: &name}); err != nil {
			t.Fatal(err)
		}
	}
	q, err := sqsqueue.Open(ctx, client, sqsqueue.Config{Queue: "work", Dead: "work-dead", Poll: 2 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	// Every fourth is renewed and acknowledged, buried and acknowledged, given back
	// with an attempt spent, or left to return by itself. The latter come first, and are
	// hidden for little; whoever settles a message has it for longer than any pause of the
	// machine.
	const n, little, long = 40, 3 * time.Second, time.Hour
	var left, out []sqsqueue.Outgoing
	for i := range n {
		if body := job(i); kind(string(body)) == 3 {
			left = append(left, sqsqueue.Outgoing{Body: body})
		} else {
			out = append(out, sqsqueue.Outgoing{Body: body})
		}
	}
	if err := q.Send(ctx, left); err != nil {
		t.Fatal(err)
	}
	var (
		mu       sync.Mutex
		done     = map[string]int{}
		attempts = map[string]int{}
		seen     = map[string]int{}
	)
	deadline := time.Now().Add(patience)
	for len(seen) < len(left) {
		ms, err := q.Receive(ctx, 10, little)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range ms {
			seen[string(m.Body)]++
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d of %d messages were received in %v", len(seen), len(left), patience)
		}
	}
	if err := q.Send(ctx, out); err != nil {
		t.Fatal(err)
	}
	settle := func(m jobs.Message) {
		body := string(m.Body)
		mu.Lock()
		seen[body]++
		attempts[body] = max(attempts[body], m.Attempts)
		first, kind := seen[body] == 1, kind(body)
		mu.Unlock()
		var err error
		switch {
		case kind == 0 && first:
			err = q.Hide(ctx, m, long)
		case kind == 1:
			err = q.Bury(ctx, m, jobs.DeadLetter{Key: jobs.Key{Run: "r", CustomID: body}, Class: jobs.BadRequest, Reason: "no good"})
		case kind == 2 && first:
			m.Attempts++
			err = q.Release(ctx, m, 0)
		}
		if err == nil && (kind < 2 || !first) {
			err = q.Ack(ctx, m)
			mu.Lock()
			done[body]++
			mu.Unlock()
		}
		if err != nil {
			t.Errorf("%s: %v", body, err)
		}
	}
	for empty := false; !empty; {
		if time.Now().After(deadline) {
			t.Fatalf("the queue is not empty after %v", patience)
		}
		ms, err := q.Receive(ctx, 10, long)
		if err != nil {
			t.Fatal(err)
		}
		var settling sync.WaitGroup
		for _, m := range ms {
			settling.Go(func() { settle(m) })
		}
		settling.Wait()
		if empty, err = q.Empty(ctx); err != nil {
			t.Fatal(err)
		}
	}
	for i := range n {
		body := string(job(i))
		if done[body] != 1 {
			t.Errorf("%s was settled %d times, want once", body, done[body])
		}
		if want := map[int]int{2: 1}[kind(body)]; attempts[body] != want {
			t.Errorf("%s came with %d attempts, want %d", body, attempts[body], want)
		}
	}
	letters(t, q, n/4)
}

// letters reads the dead letters, of which there ought to be n, and redrives them.
func letters(t *testing.T, q *sqsqueue.Queue, n int) {
	t.Helper()
	ctx := t.Context()
	_, err := q.Letters(ctx, func(ctx context.Context, ls []*sqsqueue.Letter) error {
		var bodies [][]byte
		for _, l := range ls {
			if kind(string(l.Body)) != 1 || l.Class != jobs.BadRequest || l.Reason != "no good" || l.Run != "r" {
				t.Errorf("read a letter %+v of %s, want a bad request of run r, no good", l.DeadLetter, l.Body)
			}
			bodies = append(bodies, l.Body)
		}
		_, err := q.Redrive(ctx, ls, bodies)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	back := 0
	for deadline := time.Now().Add(patience); back < n && time.Now().Before(deadline); {
		ms, err := q.Receive(ctx, 10, time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range ms {
			back++
			if !m.Again {
				t.Errorf("%s came back without its mark", m.Body)
			}
			if err := q.Ack(ctx, m); err != nil {
				t.Error(err)
			}
		}
	}
	if back != n {
		t.Errorf("%d jobs came back from the dead, want %d", back, n)
	}
}

// job is the body of a job, and kind what becomes of it.
func job(i int) []byte { return fmt.Appendf(nil, `{"custom_id":"job-%02d"}`, i) }

func kind(body string) int {
	var i int
	_, _ = fmt.Sscanf(body, `{"custom_id":"job-%d"}`, &i)
	return i % 4
}

// workSink has the adapter store what a worker and a submitter store.
func workSink(t *testing.T, client *s3.Client) {
	t.Helper()
	ctx := t.Context()
	bucket := "work"
	if _, err := client.CreateBucket(ctx, &s3.CreateBucketInput{Bucket: &bucket}); err != nil {
		t.Fatal(err)
	}
	s := s3sink.New(client, bucket, "some/prefix")
	if err := s.Check(ctx); err != nil {
		t.Error(err)
	}
	for i := range 8 {
		firstWins(t, s, jobs.Key{Run: "r", CustomID: fmt.Sprintf("contracts/ä %d.pdf", i)})
	}
	listed := 0
	for o, err := range s.List(ctx, "r", sink.Results) {
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.ReadObject(ctx, o); err != nil {
			t.Error(err)
		}
		listed++
	}
	if listed != 8 {
		t.Errorf("%d results are listed, want 8", listed)
	}
	board(t, s.Board("limits"))
	checkpoint(t, s)
}

// firstWins has several workers store a result of one job.
func firstWins(t *testing.T, s *s3sink.Sink, k jobs.Key) {
	t.Helper()
	ctx := t.Context()
	if has, err := s.Has(ctx, k); has || err != nil {
		t.Errorf("Has(%v) = %v, %v before there is a result, want false", k, has, err)
	}
	result := func(i int) jobs.Result {
		return jobs.Result{ID: k.RequestID(), CustomID: k.CustomID, Upwell: jobs.Record{Run: k.Run, OutputText: fmt.Sprint("answer ", i)}}
	}
	const workers = 16
	var stored [workers]bool
	var storing sync.WaitGroup
	for i := range workers {
		storing.Go(func() {
			var err error
			if stored[i], err = s.Put(ctx, k, result(i)); err != nil {
				t.Error(err)
			}
		})
	}
	storing.Wait()
	r, err := s.Read(ctx, sink.Results, k)
	if err != nil {
		t.Fatal(err)
	}
	won := 0
	for i, ok := range stored {
		if ok {
			won++
			if want := result(i).Upwell.OutputText; r.Upwell.OutputText != want {
				t.Errorf("%s is stored, and %s was told that it is", r.Upwell.OutputText, want)
			}
		}
	}
	if won != 1 {
		t.Errorf("%d of %d workers were told that theirs is stored, want 1", won, workers)
	}
	if has, err := s.Has(ctx, k); !has || err != nil {
		t.Errorf("Has(%v) = %v, %v, want true", k, has, err)
	}
}

// board has several workers add to what is on a board, each a few times.
func board(t *testing.T, b *s3sink.Board) {
	t.Helper()
	ctx := t.Context()
	const workers, times = 4, 5
	var writing sync.WaitGroup
	for i := range workers {
		writing.Go(func() {
			for n := 0; n < times; {
				data, version, err := b.Read(ctx)
				if err != nil {
					t.Error(err)
					return
				}
				ok, err := b.Write(ctx, fmt.Appendf(data, "%d", i), version)
				if err != nil {
					t.Error(err)
					return
				}
				if ok {
					n++
				}
			}
		})
	}
	writing.Wait()
	if data, _, err := b.Read(ctx); len(data) != workers*times || err != nil {
		t.Errorf("the board says %q, %v, want %d digits: nobody's write is lost", data, err, workers*times)
	}
}

// checkpoint has two submitters go on from one checkpoint.
func checkpoint(t *testing.T, s *s3sink.Sink) {
	t.Helper()
	ctx := t.Context()
	if _, _, err := s.Checkpoint(ctx, "r"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Checkpoint = %v, want fs.ErrNotExist", err)
	}
	c := sink.Checkpoint{Run: "r", Count: 10, By: "one"}
	first, err := s.PutCheckpoint(ctx, c, "")
	if err != nil {
		t.Fatal(err)
	}
	c.Begun = 5
	if _, err := s.PutCheckpoint(ctx, c, first); err != nil {
		t.Fatal(err)
	}
	c.By = "two"
	if _, err := s.PutCheckpoint(ctx, c, first); !errors.Is(err, s3sink.ErrOvertaken) {
		t.Errorf("PutCheckpoint over another's = %v, want ErrOvertaken", err)
	}
	if got, _, err := s.Checkpoint(ctx, "r"); got.By != "one" || got.Begun != 5 || err != nil {
		t.Errorf("Checkpoint = %+v, %v, want the one that was stored", got, err)
	}
}
