package integration

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/sqs"

	"upwell/integration/fixture"
	"upwell/jobs"
	"upwell/sink"
)

var submitRows = flag.Int("submit.rows", 3000, "how many jobs TestSubmitLarge submits")

// Changes of one line that these tests have been seen to catch: the checkpoint is
// written after the jobs, or not at all; what may be queued is sent unmarked, or not
// at all; jobs in doubt are not looked up, or not held back; a submit that is told to
// end breaks off what is under way; a run that is queued is queued once more; --again
// queues what has an answer, or what failed; two may submit one run.

// maxDoubt is the most jobs that a kill may leave in doubt.
const maxDoubt = 4096

// handed is how many jobs a submit sends at a time.
const handed = 10

// checkpoint returns how far the submitting of a run is, as it lies in the bucket.
func (s *stack) checkpoint(t *testing.T, run string) sink.Checkpoint {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(s.dir, sink.CheckpointKey("", run)))
	if os.IsNotExist(err) {
		return sink.Checkpoint{}
	}
	if err != nil {
		t.Fatal(err)
	}
	c, err := sink.DecodeCheckpoint(text)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// total is how many messages wait in the queue.
func (s *stack) total(t *testing.T) int {
	t.Helper()
	return left(t, s.queue).Total()
}

// manyJobs writes a file of so many jobs, and returns their names, which are in order.
func manyJobs(t *testing.T, file string, n int) []string {
	t.Helper()
	names := make([]string, n)
	for i := range names {
		names[i] = fmt.Sprintf("job-%07d", i)
	}
	writeJobs(t, file, names)
	return names
}

// heldBack is how long second messages are held back in these tests: far longer than a
// call takes here.
const heldBack = "--hold-back=3s"

// TestSubmitKilledAtRandom kills a submit of many jobs ten times, wherever it happens to
// be, and twice more while it sends what may be queued already. What is sent in excess
// is no more than the checkpoints said was in doubt, and nothing is paid for twice.
func TestSubmitKilledAtRandom(t *testing.T) {
	lengthy(t, "it submits 20,000 jobs")
	t.Parallel()
	const total, kills = 20_000, 10
	s := newStack(t, "--latency", "1ms", "--sqs-latency", "5ms")
	file := filepath.Join(t.TempDir(), "killed.jsonl")
	names := manyJobs(t, file, total)
	direct := s.env
	sends := s.behind(t, "AWS_ENDPOINT_URL_SQS", operation("SendMessageBatch"))
	doubts, excess, sent := 0, 0, 0
	for n := range kills + 2 {
		before := s.checkpoint(t, "killed").Resumed()
		more := (total - before.Begun) / max(1, kills-n)
		if n >= kills { // the doubtful ones come last
			more += before.Doubtful() / 4
		}
		target := sent + rand.IntN(more)
		batches := (total - before.Begun + before.Doubtful()) / handed
		sends.shutAfter(max(0, min((target-sent)/handed+64, batches-1))) // it is not done before it is killed
		p := s.launch(t, "submit", file, heldBack)
		eventually(t, "it to have sent more", func() bool { return s.total(t) > target || hasEnded(p) })
		p.signal(t, syscall.SIGKILL)
		p.exits(t, -1)
		at := s.checkpoint(t, "killed")
		sent = s.total(t)
		if doubt := at.Begun - at.Queued; n < kills {
			doubts += doubt
		} else {
			excess += maxDoubt // what it let go of, and sends once more
		}
		if at.Queued < before.Queued || at.Begun-at.Queued > maxDoubt || n < kills && at.Doubtful() != before.Doubtful() && at.Queued < total {
			t.Errorf("kill %d: checkpoint %+v after %+v, want it to go on, with at most %d more in doubt", n, at, before, maxDoubt)
		}
		if len(at.Doubts) == 0 && at.Queued > sent {
			t.Errorf("kill %d: %d messages, and the checkpoint says that %d are queued", n, sent, at.Queued)
		}
	}
	sends.open()
	s.env = direct
	excess += doubts
	p := s.launch(t, "submit", file, heldBack)
	p.exits(t, 0)
	p.says(t, "standard error", p.stderr.String(), []string{`^run killed was submitted before: of 20000 jobs, 0 are not queued yet, and \d+ may be$`})
	p.says(t, "standard output", p.stdout.String(), []string{`^run killed: all 20000 jobs are queued or settled, \d+ of them were queued now, in .*/s\)$`, `^\d+ that may be in the queue twice are held back for up to 3s`})
	sent = s.total(t)
	t.Logf("%d messages in excess of %d after %d kills, %d in doubt", sent-total, total, kills+2, doubts)
	if sent < total || sent > total+excess {
		t.Errorf("%d messages for %d jobs, want at most %d in excess: what was in doubt", sent, total, excess)
	}
	s.submitsNothing(t, file, "killed", total)
	w := s.launch(t, "worker", "--exit-when-empty=2s", "--slots", "64", "--start-rate", "2000")
	for n := int64(1000); n <= total; n += 1000 { // all of them may take longer than a test waits for anything
		eventually(t, "a thousand more to be answered", func() bool { return s.counts(t).Billed >= n })
	}
	w.exits(t, 0)
	s.balance(t, "killed", names, 0)
	s.launch(t, "verify", "killed").exits(t, 0)
}

// TestSubmitKilledUnderWay has two workers answer what a submit sends that is killed and
// goes on: a job and its twin come to different workers, which know nothing of each
// other, and it is paid for once.
func TestSubmitKilledUnderWay(t *testing.T) {
	lengthy(t, "it waits for what is held back")
	t.Parallel()
	const total = 4000
	s := newStack(t, "--latency", "300ms", "--sqs-latency", "60ms")
	file := filepath.Join(t.TempDir(), "nightly.jsonl")
	names := manyJobs(t, file, total)
	worker := []string{"worker", "--slots", "400", "--start-rate", "1000"}
	workers := []*process{s.launch(t, worker...), s.launch(t, worker...)}
	sends := s.behind(t, "AWS_ENDPOINT_URL_SQS", operation("SendMessageBatch"))
	const hold = "--hold-back=30s" // longer than a machine stops for
	for _, batches := range []int{1, 120, 120} {
		_, before := sends.held()
		sends.shutAfter(batches + 20) // it is not done before it is killed
		p := s.launch(t, "submit", file, hold)
		eventually(t, "it to be under way", func() bool { _, n := sends.held(); return n >= before+batches })
		p.signal(t, syscall.SIGKILL)
		p.exits(t, -1)
	}
	sends.open()
	p := s.launch(t, "submit", file, hold)
	p.exits(t, 0)
	p.says(t, "standard output", p.stdout.String(), []string{`^run nightly: all 4000 jobs are queued or settled, \d+ of them were queued now`})
	eventually(t, "nothing to be left", func() bool { return s.total(t) == 0 })
	for _, w := range workers {
		w.signal(t, syscall.SIGTERM)
		w.exits(t, 0)
	}
	s.balance(t, "nightly", names, 0)
	s.launch(t, "verify", "nightly").exits(t, 0)
}

func hasEnded(p *process) bool {
	select {
	case <-p.ended:
		return true
	default:
		return false
	}
}

// submitsNothing submits a run that is queued whole.
func (s *stack) submitsNothing(t *testing.T, file, run string, total int) {
	t.Helper()
	before := s.total(t)
	p := s.launch(t, "submit", file)
	p.exits(t, 0)
	want := fmt.Sprintf(`^run %s: all %d jobs were queued on \d{4}-\d\d-\d\d \d\d:\d\d:\d\d; nothing to do \(--again queues those without an answer\)$`, run, total)
	p.says(t, "standard output", p.stdout.String(), []string{want})
	p.says(t, "standard error", p.stderr.String(), nil)
	if after := s.total(t); after != before {
		t.Errorf("%d messages after submitting the same input again, want %d as before", after, before)
	}
}

// TestSubmitInterrupted presses Ctrl-C again and again: nothing is in doubt, and no
// message is sent in excess.
func TestSubmitInterrupted(t *testing.T) {
	t.Parallel()
	const total = 6000
	s := newStack(t, "--sqs-latency", "150ms")
	file := filepath.Join(t.TempDir(), "nightly.jsonl")
	manyJobs(t, file, total)
	sends := s.behind(t, "AWS_ENDPOINT_URL_SQS", operation("SendMessageBatch"))
	for range 4 {
		before := s.total(t)
		sends.shutAfter(40) // it is not done before it is interrupted
		p := s.launch(t, "submit", file)
		eventually(t, "it to have sent some", func() bool { return s.total(t) > before })
		p.signal(t, syscall.SIGTERM)
		sends.open()
		p.exits(t, 130)
		at, sent := s.checkpoint(t, "nightly"), s.total(t)
		if at.Queued != sent || at.Begun != sent || len(at.Doubts) > 0 || sent <= before || sent == total {
			t.Errorf("checkpoint %+v after an interrupt with %d messages, want both numbers to be that", at, sent)
		}
		p.says(t, "standard error", p.stderr.String(), []string{fmt.Sprintf(`interrupted after %d of 6000 jobs were queued: run the same command again`, sent)})
	}
	p := s.launch(t, "submit", file)
	p.exits(t, 0)
	p.says(t, "standard error", p.stderr.String(), []string{`^run nightly was submitted before: of 6000 jobs, \d+ are not queued yet, and 0 may be$`})
	if sent := s.total(t); sent != total {
		t.Errorf("%d messages for %d jobs, want one each", sent, total)
	}
	s.submitsNothing(t, file, "nightly", total)
}

// TestSubmitTwiceAtOnce has two processes submit one run: one of them gives way.
func TestSubmitTwiceAtOnce(t *testing.T) {
	t.Parallel()
	const total = 8000
	s := newStack(t, "--sqs-latency", "50ms")
	file := filepath.Join(t.TempDir(), "nightly.jsonl")
	manyJobs(t, file, total)
	direct := s.env
	sends := s.behind(t, "AWS_ENDPOINT_URL_SQS", operation("SendMessageBatch"))
	sends.shutAfter(40) // it is not done before the second begins
	first := s.launch(t, "submit", file, heldBack)
	eventually(t, "the first to be under way", func() bool { return s.total(t) > 0 })
	s.env = direct
	alone := s.checkpoint(t, "nightly").By
	second := s.launch(t, "submit", file, heldBack)
	eventually(t, "the second to be under way, or to have given way", func() bool { return s.checkpoint(t, "nightly").By != alone || hasEnded(second) })
	sends.open()
	winner, loser := first, second
	if first.wait(t) == 2 { // its checkpoint was overwritten before it wrote the next
		winner, loser = second, first
	}
	winner.exits(t, 0)
	loser.exits(t, 2)
	loser.says(t, "standard error", loser.stderr.String(), []string{`another process is submitting this run: let it finish, or stop it`})
	if at, sent := s.checkpoint(t, "nightly"), s.total(t); at.Complete.IsZero() || sent < total || sent > total+maxDoubt {
		t.Errorf("%d messages for %d jobs and checkpoint %+v, want at most what was in doubt in excess", sent, total, at)
	}
}

// TestSubmitAgain has the queue lose messages, and the bucket answers.
func TestSubmitAgain(t *testing.T) {
	t.Parallel()
	s := newStack(t, "--latency", "1ms")
	file := filepath.Join(t.TempDir(), "nightly.jsonl")
	names := manyJobs(t, file, 40)
	failing(t, file) // the first
	work := func(code int) {
		s.launch(t, "worker", "--exit-when-empty=2s", "--start-rate", "500").exits(t, code)
	}
	lose := func(names ...string) {
		for _, id := range names {
			if err := os.Remove(lineOf(s.dir, sink.Results, id)); err != nil {
				t.Fatal(err)
			}
		}
	}
	again := func(want int, args ...string) {
		t.Helper()
		p := s.launch(t, append([]string{"submit", file, "--again"}, args...)...)
		p.exits(t, 0)
		p.says(t, "standard output", p.stdout.String(), []string{fmt.Sprintf(`^run nightly: all 40 jobs are queued or settled, %d of them were queued now, `, want)})
		if sent := s.total(t); sent != want {
			t.Errorf("--again %s queued %d, want %d", strings.Join(args, " "), sent, want)
		}
	}
	s.launch(t, "submit", file, "--retry-failed").exits(t, 2)
	s.launch(t, "submit", file, "--hold-back", "16m").exits(t, 2)
	s.launch(t, "submit", file).exits(t, 0)
	work(1)
	again(0)
	lose(names[7], names[8], names[39])
	s.submitsNothing(t, file, "nightly", 40)
	p := s.launch(t, "verify", "nightly")
	p.exits(t, 1)
	p.says(t, "standard output", p.stdout.String(), []string{`missing +3$`, `submit the same input again with --again`})
	again(3)
	work(0)
	s.launch(t, "verify", "nightly").exits(t, 0)
	again(1, "--retry-failed")
	work(1)
	if c := s.counts(t); c.Billed != 39+3+2*2 { // the one that failed is tried with more room
		t.Errorf("%d calls billed, want 39, 3 that were lost, and 2 for each time that the other failed", c.Billed)
	}

	// A run that an older upwell submitted has no checkpoint, and its manifest says none.
	s.forgetCheckpoint(t, "nightly")
	lose(names[11])
	p = s.launch(t, "submit", file)
	p.exits(t, 0)
	p.says(t, "standard error", p.stderr.String(), []string{`of 40 jobs, 0 are not queued yet, and 40 may be$`})
	if sent := s.total(t); sent != 1 {
		t.Errorf("%d queued of a run without a checkpoint, want the one without an answer", sent)
	}
	work(0)
	s.submitsNothing(t, file, "nightly", 40)

	// And the index is written anew even when there is nothing to do.
	if err := os.RemoveAll(filepath.Join(s.dir, "runs/nightly/ids")); err != nil {
		t.Fatal(err)
	}
	p = s.launch(t, "verify", "nightly")
	p.exits(t, 1)
	p.says(t, "standard error", p.stderr.String(), []string{`submit the same input again, which writes it anew`})
	s.submitsNothing(t, file, "nightly", 40)
	s.launch(t, "verify", "nightly").exits(t, 0)
}

// TestSubmitAgainFIFO sends a job again within the five minutes in which a FIFO queue
// takes no message twice: it is another message.
func TestSubmitAgainFIFO(t *testing.T) {
	t.Parallel()
	s := newStack(t, "--latency", "1ms")
	queues := s.sqs()
	for _, name := range []string{"f.fifo", "f-dead.fifo"} {
		_, err := queues.CreateQueue(t.Context(), &sqs.CreateQueueInput{QueueName: &name, Attributes: map[string]string{"FifoQueue": "true"}})
		if err != nil {
			t.Fatal(err)
		}
	}
	storage := []string{"--queue", "f.fifo", "--dead-queue", "f-dead.fifo"}
	file := filepath.Join(t.TempDir(), "nightly.jsonl")
	manyJobs(t, file, 2)
	work := func(args ...string) {
		t.Helper()
		s.launch(t, slices.Concat(args, storage)...).exits(t, 0)
	}
	work("submit", file)
	work("worker", "--exit-when-empty=2s")
	if err := os.RemoveAll(filepath.Join(s.dir, "runs/nightly/results")); err != nil {
		t.Fatal(err)
	}
	work("submit", file, "--again")
	work("worker", "--exit-when-empty=2s")
	s.launch(t, "verify", "nightly").exits(t, 0)
}

// forgetCheckpoint makes a run look as one does that an older upwell submitted.
func (s *stack) forgetCheckpoint(t *testing.T, run string) {
	t.Helper()
	path := filepath.Join(s.dir, sink.ManifestKey("", run))
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	old := bytes.Replace(text, []byte(`,"checkpoint":true`), nil, 1)
	if bytes.Equal(old, text) {
		t.Fatalf("%s says nothing of a checkpoint: %s", path, text)
	}
	if err := os.WriteFile(path, old, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(s.dir, sink.CheckpointKey("", run))); err != nil {
		t.Fatal(err)
	}
}

// TestSubmitLarge measures the submitting of many jobs, and that memory does not grow
// with them. With the flag's default it says little; the figures of the README are those
// of
//
//	go test ./integration -run TestSubmitLarge -v -timeout 30m -submit.rows 1000000
func TestSubmitLarge(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var peaks [2]int64
	for i, n := range []int{max(1, *submitRows/10), *submitRows} {
		s := newStack(t)
		file := filepath.Join(dir, fmt.Sprintf("rows-%d.jsonl", n))
		manyJobs(t, file, n)
		start := time.Now()
		p := s.launch(t, "submit", file)
		peaks[i] = p.peak()
		p.exits(t, 0)
		state := p.cmd.ProcessState
		t.Logf("%s: %v in all, %d MiB peak, %.0f µs CPU a job: %s", file, time.Since(start).Round(100*time.Millisecond), peaks[i]>>20,
			1e6*(state.UserTime()+state.SystemTime()).Seconds()/float64(n), strings.TrimSpace(p.stdout.String()))
		rate := regexp.MustCompile(`^run rows-\d+: ` + fmt.Sprint(n) + ` jobs queued in \S+ \((\d+)/s\)\n`)
		if !rate.MatchString(p.stdout.String()) {
			t.Errorf("it says %q, want how many jobs were queued, and how fast", p.stdout.String())
		}
		if sent := s.total(t); sent != n {
			t.Errorf("%d messages for %d jobs, want one each", sent, n)
		}
	}
	if peaks[1] > peaks[0]+64<<20 {
		t.Errorf("the peak was %d MiB, and with a tenth of the jobs %d: want no more than 64 between them", peaks[1]>>20, peaks[0]>>20)
	}
}

// TestSubmitOverTheLimit has bodies that a message has no room for: they are stored, and
// the message says where. A worker finds them there, and so does upwell run.
func TestSubmitOverTheLimit(t *testing.T) {
	t.Parallel()
	s := newStack(t, "--latency", "1ms")
	dir := t.TempDir()
	file := filepath.Join(dir, "large.jsonl")
	var lines bytes.Buffer
	names := []string{"job-0", "job-1", "job-2", "job-3", "job/4 ü"}
	for i, id := range names {
		size := 3 << 20
		if i%2 == 1 {
			size = 100
		}
		lines.Write(append(fixture.Job(id, `,"instructions":"`+strings.Repeat("x", size)+`"`), '\n'))
	}
	if err := os.WriteFile(file, lines.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	s.launch(t, "submit", file).exits(t, 0)
	for _, id := range []string{"job-0", "job-2", "job/4 ü"} {
		text, err := os.ReadFile(filepath.Join(s.dir, sink.JobKey("", jobs.Key{Run: "large", CustomID: id})))
		var line struct {
			CustomID string `json:"custom_id"`
			Upwell   struct{ Run string }
		}
		if err == nil {
			err = json.Unmarshal(text, &line)
		}
		if err != nil || line.CustomID != id || line.Upwell.Run != "large" || len(text) < 3<<20 {
			t.Errorf("the body of %q is of %q in run %q (%v), want it stored whole", id, line.CustomID, line.Upwell.Run, err)
		}
	}
	if n := len(files(t, filepath.Join(s.dir, "runs/large/bodies"))); n != 3 {
		t.Errorf("%d bodies are stored, want those of 3 jobs", n)
	}
	s.launch(t, "worker", "--exit-when-empty=2s", "--start-rate", "100").exits(t, 0)
	s.balance(t, "large", names, 0)
	s.launch(t, "verify", "large").exits(t, 0)

	out := filepath.Join(dir, "out")
	s.launch(t, "run", file, "-o", out, "-q").exits(t, 0)
	checkOutput(t, filepath.Join(out, "large.output.jsonl"), names)
	if n := len(files(t, filepath.Join(out, "s3/upwell/runs/large/bodies"))); n != 3 {
		t.Errorf("upwell run stored %d bodies, want those of 3 jobs", n)
	}
	if c := s.counts(t); c.Billed != 10 {
		t.Errorf("%d calls billed, want 5 of the worker and 5 of run", c.Billed)
	}
}

// files lists the files beneath a folder.
func files(t *testing.T, dir string) (paths []string) {
	t.Helper()
	for _, path := range tree(t, dir) {
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() {
			paths = append(paths, path)
		}
	}
	return paths
}
