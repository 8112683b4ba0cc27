package dead_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"upwell/cmd/internal/dead"
	"upwell/jobs"
	"upwell/jobs/sqsqueue"
)

func letter(change func(*sqsqueue.Letter)) *sqsqueue.Letter {
	l := &sqsqueue.Letter{
		DeadLetter: jobs.DeadLetter{Key: jobs.Key{Run: "nightly", CustomID: "a/b"}, Class: jobs.Truncated, Status: 200, FirstFailed: time.Now().Add(-30 * time.Hour)},
		ID:         "0a-1b", Model: "xai.grok-4.3", Sent: time.Now(),
		Body: []byte(`{"custom_id":"a/b","url":"/v1/responses","body":{"model":"xai.grok-4.3","input":"hi"}}`),
	}
	if change != nil {
		change(l)
	}
	return l
}

func TestFilter(t *testing.T) {
	unknown := letter(func(l *sqsqueue.Letter) { l.Class, l.Status, l.FirstFailed = sqsqueue.Unknown, 0, time.Time{} })
	comma := letter(func(l *sqsqueue.Letter) { l.CustomID = "a,b" })
	teapot := letter(func(l *sqsqueue.Letter) { l.Status = 418 })
	for _, tt := range []struct {
		where  string
		letter *sqsqueue.Letter // default: one that was truncated
		want   bool
	}{
		{"", nil, true},
		{"class=truncated", nil, true},
		{"class=refused", nil, false},
		{"class=refused class=truncated", nil, true},
		{"class=truncated run=other", nil, false},
		{"run=nightly model=xai.grok-4.3 status=200 id=a/b older=24h", nil, true},
		{"model=xai.grok", nil, false},
		{"id=nightly/a/b", nil, true},
		{"id=0a-1b", nil, true},
		{"id=b", nil, false},
		{"id=b id=a/b", nil, true},
		{"status=2xx", nil, true},
		{"status=4xx", nil, false},
		{"status=4xx", teapot, true},
		{"status=418 status=5xx", teapot, true},
		{"status=2xx", teapot, false},
		{"older=29h59m", nil, true},
		{"older=31h", nil, false},
		{"older=1d", nil, true},
		{"older=2d", nil, false},
		{"class=unknown status=0", unknown, true},
		{"status=0", nil, false},
		{"older=1s", unknown, false}, // by when it was sent
		{"id=a,b", comma, true},
		{"id=a,b,run=nightly", comma, true},
		{"run=nightly,id=nightly/a,b,class=truncated", comma, true},
		{"id=a,b,run=other", comma, false},
		{"id=a", comma, false},
		{"id=b,id=a,b", comma, true},
		{"class=refused,class=truncated,older=1h", nil, true},
		{"class=truncated,older=31h", nil, false},
	} {
		f, err := dead.ParseFilter(strings.Fields(tt.where))
		if err != nil {
			t.Errorf("ParseFilter(%s) = %v, want nil", tt.where, err)
			continue
		}
		if tt.letter == nil {
			tt.letter = letter(nil)
		}
		if got := f.Match(tt.letter); got != tt.want {
			t.Errorf("%q matches %s of %d: %v, want %v", tt.where, tt.letter.Class, tt.letter.Status, got, tt.want)
		}
	}
}

func TestFilterErrors(t *testing.T) {
	for term, want := range map[string]string{
		"truncated":       "want KEY=VALUE",
		"class=":          "want KEY=VALUE",
		"klass=truncated": `unknown key "klass", want class, id, model, run, status or older`,
		"class=trunc":     "class=trunc: unknown class, want truncated, schema, refused, context_length, bad_request, bad_job, exhausted, expired, poison, unknown",
		"status=ok":       "status=ok: want a status",
		"status=xx":       "want a status",
		"status=0xx":      "want a status",
		"status=6xx":      "want a status",
		"status=50x":      "want a status",
		"older=x":         "older=x: want a duration, such as 90m, 24h or 7d",
		"older=-1h":       "want a duration",
		"older=1.5d":      "want a duration",
		"model=m,n":       "model=m,n: want KEY=VALUE after a comma, with one of class, id, model, run, status or older",
		"run=r,klass=x":   "want KEY=VALUE after a comma",
		"id=a,class=b":    "class=b: unknown class",
		"id=a,run=":       "want KEY=VALUE",
		"older=1h,2h":     "want a duration",
	} {
		if _, err := dead.ParseFilter([]string{term}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("ParseFilter(%s) = %v, want an error with %q", term, err, want)
		}
	}
}

// What --set makes of a job of either API.
func TestChange(t *testing.T) {
	const (
		responses = `{"custom_id":"a","url":"/v1/responses","body":{BODY"model":"m","input":"é"}UPWELL}`
		chat      = `{"custom_id":"a","url":"/v1/chat/completions","body":{BODY"model":"m","messages":[]}UPWELL}`
	)
	for _, tt := range []struct {
		sets                      string
		job, body, upwell         string // of the job as it is
		wantModel, wantBody, rest string // what follows the model, what the body begins with, and what follows the body
	}{
		{"max_output_tokens=8000", responses, ``, ``, `"m"`, ``, `,"max_output_tokens":8000}}`},
		{"max_output_tokens=8000", responses, `"max_output_tokens":1,`, ``, `"m"`, `"max_output_tokens":8000,`, `}}`},
		{"max_output_tokens=8000", chat, ``, ``, `"m"`, ``, `,"max_completion_tokens":8000}}`},
		{"max_output_tokens=8000", chat, `"max_tokens":1,`, ``, `"m"`, `"max_tokens":8000,`, `}}`},
		{"max_output_tokens=8000", chat, `"max_completion_tokens":1,`, ``, `"m"`, `"max_completion_tokens":8000,`, `}}`},
		{"max_output_tokens=8000", chat, `"max_tokens":2,"max_completion_tokens":1,`, ``, `"m"`, `"max_tokens":2,"max_completion_tokens":8000,`, `}}`},
		{"effort=high", responses, ``, ``, `"m"`, ``, `,"reasoning":{"effort":"high"}}}`},
		{"effort=high", responses, `"reasoning":{"summary":"auto","effort":"low"},`, ``, `"m"`, `"reasoning":{"summary":"auto","effort":"high"},`, `}}`},
		{"effort=high", chat, ``, ``, `"m"`, ``, `,"reasoning_effort":"high"}}`},
		{"tier=flex", responses, ``, ``, `"m"`, ``, `},"upwell":{"tiers":["flex"]}}`},
		{"tier=flex", chat, `"service_tier":"priority",`, ``, `"m"`, `"service_tier":"flex",`, `}}`},
		{"tier=flex", responses, `"service_tier":"auto",`, `,"upwell":{"tiers":["default"],"run":"r"}`, `"m"`, `"service_tier":"flex",`, `},"upwell":{"run":"r"}}`},
		{"tier=flex,default", responses, `"service_tier":"priority",`, ``, `"m"`, ``, `},"upwell":{"tiers":["flex","default"]}}`},
		{"model=n", chat, ``, ``, `"n"`, ``, `}}`},
		{"max_attempts=3 output_ceiling=9000", responses, ``, ``, `"m"`, ``, `},"upwell":{"max_attempts":3,"output_ceiling":9000}}`},
		{"deadline=2999-01-02T03:04:05Z", responses, ``, ``, `"m"`, ``, `},"upwell":{"deadline":"2999-01-02T03:04:05Z"}}`},
		{"deadline=none", responses, ``, `,"upwell":{"deadline":"2020-01-01T00:00:00Z","run":"r"}`, `"m"`, ``, `},"upwell":{"run":"r"}}`},
		{"deadline=24h", responses, ``, ``, `"m"`, ``, `},"upwell":{"deadline":"2000-01-02T00:00:00Z"}}`}, // in a bubble
		{`body.text.format={"type":"json_object"} upwell.regions=["us-west-2"]`, responses, ``, ``, `"m"`, ``, `,"text":{"format":{"type":"json_object"}}},"upwell":{"regions":["us-west-2"]}}`},
		{"", responses, ` "n" : 1.50 ,`, `,"x":null`, `"m"`, ` "n" : 1.50 ,`, `},"x":null}`},
	} {
		t.Run(tt.sets, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, err := dead.ParseChange(strings.Fields(tt.sets))
				if err != nil {
					t.Fatalf("ParseChange = %v, want nil", err)
				}
				text := strings.NewReplacer("BODY", tt.body, "UPWELL", tt.upwell).Replace(tt.job)
				want := strings.NewReplacer("BODY", tt.wantBody, `"m"`, tt.wantModel, "}UPWELL}", tt.rest).Replace(tt.job)
				got, err := c.Apply([]byte(text))
				if string(got) != want || err != nil {
					t.Errorf("%s makes\n%s, %v, of\n%s, want\n%s", tt.sets, got, err, text, want)
				}
				if _, err := jobs.Parse(got, ""); err != nil {
					t.Errorf("%s is not a job any more: %v", got, err)
				}
			})
		})
	}
}

func TestChangeErrors(t *testing.T) {
	for set, want := range map[string]string{
		"max_output_tokens":        "want KEY=VALUE",
		"model=":                   "want KEY=VALUE",
		"max_output_tokens=many":   "want a whole number from 1",
		"max_attempts=0":           "want a whole number from 1",
		"tier=fast":                `unknown tier "fast", want some of flex, default, priority, reserved`,
		"deadline=tomorrow":        "want a time such as",
		"deadline=-1h":             "it has passed",
		"temperature=1":            `unknown key "temperature", want max_output_tokens, tier,`,
		"body=1":                   `unknown key "body"`,
		"body.=1":                  `unknown key "body."`,
		"body..x=1":                `unknown key`,
		"custom_id.x=1":            `unknown key`,
		"body.service_tier=flex":   "text goes in double quotes",
		`upwell.tiers=["flex"`:     "want JSON for a path",
		"deadline=2001-01-01T0:0Z": "want a time such as",
	} {
		if _, err := dead.ParseChange([]string{set}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("ParseChange(%s) = %v, want an error with %q", set, err, want)
		}
	}
}

// A letter becomes the job it was, or stays and says why.
func TestJob(t *testing.T) {
	const (
		body   = `"custom_id":"a/b","url":"/v1/responses","body":{"model":"xai.grok-4.3","input":"hi"}`
		inRun  = `{"upwell":{"run":"nightly"},` + body + `}`
		stored = "s3://b/runs/nightly/letters/00/a.json"

		pointer   = `["com.amazon.sqs.javamessaging.MessageS3Pointer",{"s3BucketName":"b","s3Key":"k"}]`
		reference = `{"custom_id":"a/b","body_ref":"s3://b/runs/nightly/bodies/00/a.json"}`
		event     = `{"Records":[{"eventSource":"aws:s3","eventName":"ObjectCreated:Put","s3":{"bucket":{"name":"b"},"object":{"key":"k.pdf"}}}]}`
		wrapped   = `{"Type":"Notification","TopicArn":"t","Message":"{\"custom_id\":\"a\",\"body\":{}}"}`
	)
	text := func(s string) func(*sqsqueue.Letter) {
		return func(l *sqsqueue.Letter) { l.Body = []byte(s) }
	}
	ref := func(name string) func(*sqsqueue.Letter) {
		return func(l *sqsqueue.Letter) { l.BodyRef = name }
	}
	bucket := func(_ context.Context, ref string) ([]byte, error) {
		if ref != stored {
			return nil, errors.New("no such body")
		}
		return []byte("{" + body + "}"), nil
	}
	for _, tt := range []struct {
		name      string
		change    func(*sqsqueue.Letter)
		set       string
		bucket    func(context.Context, string) ([]byte, error)
		want, why string
	}{
		{name: "in the run that it failed in", want: inRun},
		{name: "in a run of its own", change: text(`{` + body + `,"upwell":{"run":"own"}}`), want: `{` + body + `,"upwell":{"run":"own"}}`},
		{name: "in a run that cannot be", change: func(l *sqsqueue.Letter) { l.Run = "../x" }, want: `{` + body + `}`},
		{name: "in no run", change: func(l *sqsqueue.Letter) { l.Run = "" }, want: `{` + body + `}`},
		{name: "changed", set: "model=n", want: strings.Replace(inRun, "xai.grok-4.3", "n", 1)},
		{name: "no JSON", change: text("hello"), why: "not a job: not JSON"},
		{name: "cut off", change: text(`{"custom_id":"a`), set: "model=n", why: "not a job: not JSON: it ends in the middle"},
		{name: "no job", change: text(`{"custom_id":"a"}`), why: "not a job: url"},
		{name: "no job after the change", set: `upwell.nonsense=1`, why: "not a job: upwell.nonsense: unknown key"},
		{name: "a job after the change", change: text(strings.Replace(`{`+body+`}`, `"xai.grok-4.3"`, `7`, 1)), set: "model=n", want: strings.Replace(inRun, "xai.grok-4.3", "n", 1)},
		{name: "nothing to change", change: text(`{"custom_id":"a","body":[1]}`), set: "model=n", why: "body: a JSON array, want an object to look for"},
		{name: "expired", change: text(`{` + body + `,"upwell":{"deadline":"2020-01-01T00:00:00Z"}}`), why: "its deadline passed on 2020-01-01T00:00:00Z, and it would only expire again: --set deadline=24h"},
		{
			name: "expired, with a new deadline", change: text(`{` + body + `,"upwell":{"deadline":"2020-01-01T00:00:00Z"}}`), set: "deadline=none",
			want: `{` + body + `,"upwell":{"run":"nightly"}}`,
		},
		{name: "too large", change: text(`{` + body + `,"x":"` + strings.Repeat("x", sqsqueue.MaxMessage) + `"}`), why: "SQS takes at most"},
		// What refers to a job goes back as it came, and nothing of it can be changed.
		{name: "a pointer", change: text(pointer), want: pointer},
		{name: "an event", change: text(event), want: event},
		{name: "a reference", change: text(reference), want: reference},
		{name: "a wrapped job", change: text(wrapped), want: wrapped},
		{name: "a pointer, changed", change: text(pointer), set: "model=n", why: "it is no job itself, but refers to one, which --set cannot change"},
		{name: "a wrapped job, changed", change: text(wrapped), set: "model=n", why: "it is no job itself"},
		{name: "a wrong pointer", change: text(`{"s3BucketName":"b"}`), why: "not a job: s3Key: missing"},
		{name: "a pointer, too large", change: text(`{"s3BucketName":"b","s3Key":"k","x":"` + strings.Repeat("x", sqsqueue.MaxMessage) + `"}`), why: "SQS takes at most"},
		{name: "stored", change: ref(stored), bucket: bucket, want: inRun},
		{name: "stored, and lost", change: ref(stored + "x"), bucket: bucket, why: "no such body"},
		{name: "stored nobody says where", change: ref(stored), why: "its body is in the bucket: name that with --bucket"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, err := dead.ParseChange(strings.Fields(tt.set))
			if err != nil {
				t.Fatal(err)
			}
			p := &dead.Plan{Change: c, Body: tt.bucket}
			got, err := p.Job(t.Context(), letter(tt.change))
			if tt.why != "" {
				if err == nil || !strings.Contains(err.Error(), tt.why) {
					t.Errorf("Job = %.200s, %v, want an error with %q", got, err, tt.why)
				}
				return
			}
			if string(got) != tt.want || err != nil {
				t.Errorf("Job = %s, %v, want %s", got, err, tt.want)
			}
		})
	}
}

// The model of a letter whose body is stored elsewhere is known there.
func TestMatchLooksAtStoredBodies(t *testing.T) {
	f, err := dead.ParseFilter([]string{"model=xai.grok-4.3"})
	if err != nil {
		t.Fatal(err)
	}
	l := letter(func(l *sqsqueue.Letter) { l.Model, l.BodyRef = "", "s3://b/runs/r/letters/00/a.json" })
	p := &dead.Plan{Filter: f}
	if p.Match(t.Context(), l) {
		t.Error("a letter of unknown model matches")
	}
	p.Body = func(context.Context, string) ([]byte, error) { return letter(nil).Body, nil }
	if !p.Match(t.Context(), l) {
		t.Error("a letter whose stored body has the model does not match")
	}
}

func TestPrint(t *testing.T) {
	const text = `{"custom_id":"a","body":{"model":"m","n":1.50e3,"input":[{"role":"user","content":"Dear \u001b[31mSir<\/b>"}],"empty":{},"none":[],"x":null,"y":true}}`
	for _, tt := range []struct {
		name  string
		style dead.Style
		text  string
		want  string
	}{
		{"all", dead.Style{}, text, `{
  "custom_id": "a",
  "body": {
    "model": "m",
    "n": 1.50e3,
    "input": [
      {
        "role": "user",
        "content": "Dear \u001b[31mSir</b>"
      }
    ],
    "empty": {},
    "none": [],
    "x": null,
    "y": true
  }
}`},
		{"short", dead.Style{Longest: 4}, `{"a":"12345","b":"1234"}`, "{\n  \"a\": \"1234\"… (5 characters),\n  \"b\": \"1234\"\n}"},
		{"ends", dead.Style{Longest: 4, Ends: true}, `{"a":"1234äü","b":"1234"}`, "{\n  \"a\": \"123\" … 2 characters … \"ü\",\n  \"b\": \"1234\"\n}"},
		{"redacted", dead.Style{Redact: true}, `{"model":"m","input":"geheim","metadata":{"x":["y"]}}`, "{\n  \"model\": \"m\",\n  \"input\": \"(6 characters)\",\n  \"metadata\": {\n    \"x\": [\n      \"(1 characters)\"\n    ]\n  }\n}"},
		{"no JSON", dead.Style{}, "a\x1b[2J\u009b", `"a\u001b[2J·"`},
		{"no JSON, redacted", dead.Style{Redact: true}, `{"input":"geheim`, `"(16 characters)"`},
	} {
		if got := tt.style.Print([]byte(tt.text)); got != tt.want {
			t.Errorf("%s: Print = %s, want %s", tt.name, got, tt.want)
		}
	}
	if got, want := dead.Redacted(`field: "Dear \"Sir\"", want "a`), `field: "…", want "…"`; got != want {
		t.Errorf("Redacted = %s, want %s", got, want)
	}
	if got, want := dead.Clean("a\x1b[31m\nb\u202e"), "a·[31m·b·"; got != want {
		t.Errorf("Clean = %q, want %q", got, want)
	}
}
