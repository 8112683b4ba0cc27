package sqssim_test

import (
	"encoding/base64"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"upwell/jobs/sqsqueue/sqssim"
)

// moving makes a queue whose n messages have gone to its dead-letter queue.
func moving(t *testing.T, n int, f func(t *testing.T, w *world, q, dlq string)) {
	t.Helper()
	virtual(t, sqssim.Config{}, func(t *testing.T, w *world) {
		dlq := w.create("dlq", nil)
		q := w.create("q", attrs{"RedrivePolicy": `{"deadLetterTargetArn":"` + arn + `dlq","maxReceiveCount":1}`})
		for i := range n {
			w.send(q, strconv.Itoa(i))
		}
		for range n {
			w.one(q)
		}
		time.Sleep(30 * time.Second)
		w.none(q)
		f(t, w, q, dlq)
		w.balance()
	})
}

func (w *world) start(in *sqs.StartMessageMoveTaskInput) (handle *string, err error) {
	in.SourceArn = new(arn + "dlq")
	out, err := w.c.StartMessageMoveTask(w.Context(), in)
	if err != nil {
		return nil, err
	}
	return out.TaskHandle, nil
}

func (w *world) tasks(n int32) []types.ListMessageMoveTasksResultEntry {
	w.Helper()
	out, err := w.c.ListMessageMoveTasks(w.Context(), &sqs.ListMessageMoveTasksInput{
		SourceArn: new(arn + "dlq"), MaxResults: &n,
	})
	if err != nil {
		w.Fatal(err)
	}
	return out.Results
}

func TestMoveAtOnce(t *testing.T) {
	moving(t, 3, func(t *testing.T, w *world, q, dlq string) {
		held := w.one(dlq, hide(60)) // not moved: only visible messages are
		old := w.Messages("dlq")[1]
		_, err := w.start(&sqs.StartMessageMoveTaskInput{})
		w.check(err)
		task := w.tasks(1)[0]
		if *task.Status != "COMPLETED" || task.ApproximateNumberOfMessagesMoved != 2 ||
			*task.ApproximateNumberOfMessagesToMove != 2 || task.TaskHandle != nil || task.DestinationArn != nil ||
			task.StartedTimestamp != time.Now().UnixMilli() {
			t.Errorf("task = %+v", task)
		}
		ms := w.Messages("q")
		if len(ms) != 2 || ms[0].Body != old.Body || ms[0].ID == old.ID || ms[0].Receives != 0 ||
			!ms[0].Sent.Equal(time.Now()) || ms[0].Source != "" {
			t.Errorf("moved: %+v, want %+v as a new message", ms, old)
		}
		w.check(w.delete(dlq, held.ReceiptHandle))
		w.one(q) // it can be received again
	})
}

func TestMoveAtRate(t *testing.T) {
	moving(t, 5, func(t *testing.T, w *world, _, _ string) {
		w.create("other", nil)
		start := time.Now()
		var wg sync.WaitGroup
		wg.Go(func() {
			for i := range 5 { // a receiver that was there before wakes for each
				w.one("other", wait(20))
				if got, want := time.Since(start), time.Duration(i+1)*500*time.Millisecond; got != want {
					t.Errorf("message %d came after %v, want %v", i, got, want)
				}
			}
		})
		synctest.Wait()
		handle, err := w.start(&sqs.StartMessageMoveTaskInput{
			DestinationArn: new(arn + "other"), MaxNumberOfMessagesPerSecond: new(int32(2)),
		})
		w.check(err)
		_, err = w.start(&sqs.StartMessageMoveTaskInput{})
		wantCode(t, err, "InvalidParameterValue")
		time.Sleep(1100 * time.Millisecond)
		task := w.tasks(1)[0]
		if *task.Status != "RUNNING" || task.ApproximateNumberOfMessagesMoved != 2 || *task.TaskHandle != *handle ||
			*task.DestinationArn != arn+"other" || *task.MaxNumberOfMessagesPerSecond != 2 {
			t.Errorf("task = %+v", task)
		}
		wg.Wait()
		if got := *w.tasks(1)[0].Status; got != "COMPLETED" {
			t.Errorf("status is %s, want COMPLETED", got)
		}
	})
}

func TestCancelMove(t *testing.T) {
	moving(t, 5, func(t *testing.T, w *world, _, _ string) {
		ctx := t.Context()
		handle, err := w.start(&sqs.StartMessageMoveTaskInput{MaxNumberOfMessagesPerSecond: new(int32(1))})
		w.check(err)
		time.Sleep(2 * time.Second)
		out, err := w.c.CancelMessageMoveTask(ctx, &sqs.CancelMessageMoveTaskInput{TaskHandle: handle})
		if err != nil || out.ApproximateNumberOfMessagesMoved != 2 {
			t.Errorf("CancelMessageMoveTask = %+v, %v, want 2 moved", out, err)
		}
		time.Sleep(time.Hour)
		if got := w.Stats().Queues["q"].Visible; got != 2 {
			t.Errorf("%d messages moved, want 2", got)
		}
		_, err = w.c.CancelMessageMoveTask(ctx, &sqs.CancelMessageMoveTaskInput{TaskHandle: handle})
		wantCode(t, err, "InvalidParameterValue")

		raw, err := base64.StdEncoding.DecodeString(*handle)
		w.check(err)
		other := base64.StdEncoding.EncodeToString([]byte(strings.Replace(string(raw), `"taskId":"`, `"taskId":"x`, 1)))
		_, err = w.c.CancelMessageMoveTask(ctx, &sqs.CancelMessageMoveTaskInput{TaskHandle: &other})
		wantType[*types.ResourceNotFoundException](t, err)
		_, err = w.c.CancelMessageMoveTask(ctx, &sqs.CancelMessageMoveTaskInput{TaskHandle: new("x")})
		wantCode(t, err, "InvalidParameterValue")

		for range 12 {
			_, err := w.start(&sqs.StartMessageMoveTaskInput{})
			w.check(err)
		}
		if got := w.tasks(10); len(got) != 10 || *got[9].Status != "COMPLETED" {
			t.Errorf("%d tasks listed, want the last 10", len(got))
		}
	})
}

func TestMoveFails(t *testing.T) {
	moving(t, 2, func(t *testing.T, w *world, _, dlq string) {
		ctx := t.Context()
		for name, tt := range map[string]struct {
			in   sqs.StartMessageMoveTaskInput
			want string
		}{
			"source":      {sqs.StartMessageMoveTaskInput{SourceArn: new(arn + "no")}, "ResourceNotFoundException"},
			"not a DLQ":   {sqs.StartMessageMoveTaskInput{SourceArn: new(arn + "q")}, "InvalidParameterValue"},
			"destination": {sqs.StartMessageMoveTaskInput{SourceArn: new(arn + "dlq"), DestinationArn: new(arn + "no")}, "ResourceNotFoundException"},
			"to itself":   {sqs.StartMessageMoveTaskInput{SourceArn: new(arn + "dlq"), DestinationArn: new(arn + "dlq")}, "InvalidParameterValue"},
			"rate":        {sqs.StartMessageMoveTaskInput{SourceArn: new(arn + "dlq"), MaxNumberOfMessagesPerSecond: new(int32(501))}, "InvalidParameterValue"},
		} {
			_, err := w.c.StartMessageMoveTask(ctx, &tt.in)
			if err == nil {
				t.Errorf("%s: no error", name)
			}
			wantCode(t, err, tt.want)
		}

		other := w.create("other", nil)
		_, err := w.start(&sqs.StartMessageMoveTaskInput{
			DestinationArn: new(arn + "other"), MaxNumberOfMessagesPerSecond: new(int32(1)),
		})
		w.check(err)
		_, err = w.c.DeleteQueue(ctx, &sqs.DeleteQueueInput{QueueUrl: &other})
		w.check(err)
		time.Sleep(time.Minute)
		task := w.tasks(1)[0]
		if *task.Status != "FAILED" || *task.FailureReason != "AWS.SimpleQueueService.NonExistentQueue" {
			t.Errorf("task = %s %v", *task.Status, task.FailureReason)
		}
		if n := len(w.Messages("dlq")); n != 2 {
			t.Errorf("%d messages left, want 2", n)
		}

		_, err = w.start(&sqs.StartMessageMoveTaskInput{})
		w.check(err)
		w.send(dlq, "sent to it directly")
		_, err = w.start(&sqs.StartMessageMoveTaskInput{})
		w.check(err)
		var got []string
		for _, task := range w.tasks(10) {
			reason := ""
			if task.FailureReason != nil {
				reason = *task.FailureReason
			}
			got = append(got, fmt.Sprint(*task.Status, task.ApproximateNumberOfMessagesMoved, reason))
		}
		if want := "FAILED0CouldNotDetermineMessageSource COMPLETED2 FAILED0AWS.SimpleQueueService.NonExistentQueue"; strings.Join(got, " ") != want {
			t.Errorf("tasks are %q, want %q", got, want)
		}
	})
}
