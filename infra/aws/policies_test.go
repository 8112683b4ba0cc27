package aws_test

import (
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"upwell/infra/internal/infratest"
)

// wildcards are the statements whose resource has a wildcard, and why it must.
var wildcards = map[string]string{
	"WorkerPolicy.Results":   "objects are named by runs and jobs, which come and go",
	"WorkerPolicy.Documents": "as are those that somebody puts into the inbox",
	"WorkerPolicy.Calls":     "Regions are a list, which no function makes ARNs of: the condition has them",
	"WorkerPolicy.Keys":      "the action knows no resource",
	"TaskRole.ProtectItself": "a task's id is made when it starts: the condition has the cluster",
	"SchedulerRole.Tags":     "as is that of the one that the schedule starts",
	"ExecutionRole.Logs":     "a log stream's name ends in the task's id",
	"ExecutionRole.Registry": "the action knows no resource",
}

// statements returns those of a resource's policies, trust aside.
func statements(p object) (list []object) {
	docs := []node{p["PolicyDocument"]}
	for _, inner := range many(p["Policies"]) {
		docs = append(docs, infratest.Dig(inner, "PolicyDocument"))
	}
	for _, d := range docs {
		for _, s := range many(infratest.Dig(d, "Statement")) {
			list = append(list, s.(object))
		}
	}
	return list
}

// worker returns the statements about workers.
func worker(deployed object) []object {
	return append(statements(properties(deployed, "WorkerPolicy")), statements(properties(deployed, "TaskRole"))...)
}

// many returns v as a list, as a policy may have one or several.
func many(v node) []node {
	switch v := v.(type) {
	case nil:
		return nil
	case []node:
		return v
	}
	return []node{v}
}

func texts(v node) (list []string) {
	for _, x := range many(v) {
		list = append(list, fmt.Sprint(x))
	}
	return list
}

// TestWildcards finds none but those that must be.
func TestWildcards(t *testing.T) {
	tmpl := read(t)
	seen := make(map[string]bool)
	for scenario := range scenarios {
		deployed := deploy(t, tmpl, scenario)
		for name := range deployed["Resources"].(object) {
			for _, s := range statements(properties(deployed, name)) {
				at := fmt.Sprintf("%s.%v", name, s["Sid"])
				if s["NotAction"] != nil || s["NotResource"] != nil || s["NotPrincipal"] != nil {
					t.Errorf("%s says what it is not about", at)
				}
				if s["Effect"] != "Allow" {
					continue
				}
				if strings.Contains(fmt.Sprint(s["Action"]), "*") || fmt.Sprint(s["Principal"]) == "*" {
					t.Errorf("%s allows %v to %v", at, s["Action"], s["Principal"])
				}
				if strings.Contains(fmt.Sprint(s["Resource"]), "*") {
					if seen[at] = true; wildcards[at] == "" {
						t.Errorf("%s is about %v: say why it must", at, s["Resource"])
					}
				}
			}
		}
	}
	for at := range wildcards {
		if !seen[at] {
			t.Errorf("%s has no wildcard: strike it from the list", at)
		}
	}
}

// quoted finds the actions in a README sentence; a service holds for those after it.
var quoted = regexp.MustCompile("`(?:([a-z0-9-]+):)?([A-Z]\\w+)`")

// actionsIn returns the actions that text names.
func actionsIn(text string) (list []string) {
	service := ""
	for _, m := range quoted.FindAllStringSubmatch(text, -1) {
		if m[1] != "" {
			service = m[1]
		}
		list = append(list, service+":"+m[2])
	}
	return list
}

// TestActions compares what workers may do with what README says that they need.
func TestActions(t *testing.T) {
	text, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	words := strings.Join(strings.Fields(string(text)), " ")
	_, words, _ = strings.Cut(words, "## Deploy it")
	_, words, ok := strings.Cut(words, "It needs ")
	words, _, end := strings.Cut(words, ". ")
	if !ok || !end {
		t.Fatal("README does not say what a worker needs: look for its sentence \"It needs …\"")
	}
	words = regexp.MustCompile(`\([^)]*\)`).ReplaceAllString(words, "") // what others need
	queue, words, _ := strings.Cut(words, " on the queue")
	dead, words, _ := strings.Cut(words, "on the dead-letter queue")
	objects, words, _ := strings.Cut(words, "on the prefix")
	bucket, endpoint, ok := strings.Cut(words, "on the bucket")
	if !ok || !strings.Contains(dead, "and the last two") {
		t.Fatalf("README says it in other words: %q", words)
	}
	want := map[string][]string{
		"Jobs": actionsIn(queue), "Results": actionsIn(objects), "WhatIsThere": actionsIn(bucket), "Calls": actionsIn(endpoint),
		"ProtectItself": {"ecs:UpdateTaskProtection"}, // ECS alone knows tasks
	}
	last := want["Jobs"][len(want["Jobs"])-2:]
	want["DeadLetters"] = append(actionsIn(strings.Replace(dead, "`SendMessage`", "`sqs:SendMessage`", 1)), last...)

	got := make(map[string][]string)
	for _, s := range worker(deploy(t, read(t), "plain")) {
		got[s["Sid"].(string)] = texts(s["Action"])
	}
	sorted := cmp.Transformer("sorted", func(list []string) []string { return slices.Sorted(slices.Values(list)) })
	if diff := cmp.Diff(want, got, cmp.FilterPath(func(p cmp.Path) bool { return len(p) == 2 }, sorted)); diff != "" {
		t.Errorf("what workers may do differs from README (-want +got):\n%s", diff)
	}
}

// TestTLSOnly has each queue and the bucket refuse what comes without TLS.
func TestTLSOnly(t *testing.T) {
	deployed := deploy(t, read(t), "everything")
	policies := map[string]string{"Queue": "QueuePolicy", "DeadQueue": "DeadQueuePolicy", "Bucket": "BucketPolicy"}
	for name, r := range deployed["Resources"].(object) {
		switch r.(object)["Type"] {
		case "AWS::SQS::Queue", "AWS::S3::Bucket":
			if policies[name] == "" {
				t.Errorf("%s has no policy", name)
			}
		}
	}
	for name, policy := range policies {
		arn := fmt.Sprintf(arns[read(t).typeOf(name)], named(name))
		want := []string{arn}
		if name == "Bucket" {
			want = append(want, arn+"/*")
		}
		p := properties(deployed, policy)
		if on := append(texts(p["Queues"]), texts(p["Bucket"])...); len(on) != 1 || !strings.HasSuffix(on[0], named(name)) {
			t.Errorf("%s is a policy of %v", policy, on)
		}
		denies := 0
		for _, s := range statements(p) {
			switch {
			case s["Effect"] == "Allow":
				if s["Sid"] != "BucketTellsOfObjects" || infratest.Dig(s, "Principal", "Service") != "s3.amazonaws.com" {
					t.Errorf("%s allows %v", policy, s)
				}
			case cmp.Equal(texts(s["Resource"]), want) && s["Principal"] == "*" && strings.HasSuffix(fmt.Sprint(s["Action"]), ":*") &&
				cmp.Equal(s["Condition"], object{"Bool": object{"aws:SecureTransport": "false"}}):
				denies++
			}
		}
		if denies != 1 {
			t.Errorf("%s does not deny what comes without TLS", policy)
		}
	}
}

// A request is what IAM is asked about.
type request struct {
	action, resource string
	context          map[string]string
}

// allows reports whether one of the statements allows r.
func allows(t *testing.T, list []object, r request) bool {
	t.Helper()
	return slices.ContainsFunc(list, func(s object) bool {
		return s["Effect"] == "Allow" && slices.Contains(texts(s["Action"]), r.action) &&
			slices.ContainsFunc(texts(s["Resource"]), func(p string) bool { return like(p, r.resource) }) && holds(t, s["Condition"], r)
	})
}

// like matches a pattern in which * stands for any text.
func like(pattern, text string) bool {
	ok, err := regexp.MatchString("^"+strings.ReplaceAll(regexp.QuoteMeta(pattern), `\*`, ".*")+"$", text)
	return ok && err == nil
}

// holds evaluates a condition: all of its keys, and any of a key's values.
func holds(t *testing.T, condition node, r request) bool {
	t.Helper()
	blocks, _ := condition.(object)
	for operator, keys := range blocks {
		for key, want := range keys.(object) {
			got, ok := r.context[key]
			switch operator {
			case "StringEqualsIfExists":
				ok = !ok || slices.Contains(texts(want), got)
			case "StringEquals", "ArnEquals":
				ok = ok && slices.Contains(texts(want), got)
			default:
				t.Fatalf("operator %s is not known here", operator)
			}
			if !ok {
				return false
			}
		}
	}
	return true
}

// TestLeastPrivilege asks what workers may do.
func TestLeastPrivilege(t *testing.T) {
	const (
		project = "arn:aws:bedrock-mantle:us-west-2:111122223333:project/default"
		bucket  = "arn:aws:s3:::upwell-bucket/"
		task    = "arn:aws:ecs:us-west-2:111122223333:task/upwell-cluster/1"
	)
	call := func(changes ...string) request {
		c := map[string]string{"aws:RequestedRegion": "us-west-2", "bedrock-mantle:Model": "xai.grok-4.3", "bedrock-mantle:ServiceTier": "flex"}
		for i := 0; i < len(changes); i += 2 {
			if c[changes[i]] = changes[i+1]; changes[i+1] == "" {
				delete(c, changes[i])
			}
		}
		return request{"bedrock-mantle:CreateInference", project, c}
	}
	key := request{"bedrock-mantle:CallWithBearerToken", "*", map[string]string{"bedrock-mantle:BearerTokenType": "SHORT_TERM"}}
	protect := request{"ecs:UpdateTaskProtection", task, map[string]string{"ecs:cluster": "arn:aws:ecs:us-west-2:111122223333:cluster/upwell-cluster"}}
	elsewhere := maps.Clone(protect.context)
	elsewhere["ecs:cluster"] = "arn:aws:ecs:us-west-2:111122223333:cluster/other"
	for _, tt := range []struct {
		scenario string
		request  request
		want     bool
	}{
		{"plain", call(), true},
		{"plain", call("bedrock-mantle:ServiceTier", ""), true},
		{"plain", call("bedrock-mantle:ServiceTier", "priority"), false},
		{"plain", call("bedrock-mantle:Model", "openai.gpt-5.5"), false},
		{"plain", call("bedrock-mantle:Model", ""), false},
		{"plain", call("aws:RequestedRegion", "us-east-1"), false},
		{"two Regions, two models", call("aws:RequestedRegion", "us-east-1", "bedrock-mantle:Model", "openai.gpt-oss-120b"), true},
		{"two Regions, two models", call("bedrock-mantle:ServiceTier", "default"), false},
		{"everything", call(), false}, // it has a key, whose user calls
		{"plain", request{"bedrock-mantle:CreateInference", strings.Replace(project, "default", "proj_1", 1), call().context}, false},
		{"plain", request{"bedrock-mantle:CreateInference", strings.Replace(project, "1111", "9999", 1), call().context}, false},
		{"plain", key, false},
		{"everything", key, false},
		{"short-term keys, another registry", key, true},
		{"short-term keys, another registry", request{key.action, "*", map[string]string{"bedrock-mantle:BearerTokenType": "LONG_TERM"}}, false},
		{"plain", request{"sqs:ReceiveMessage", "arn:aws:sqs:us-west-2:111122223333:upwell-queue", nil}, true},
		{"plain", request{"sqs:ReceiveMessage", "arn:aws:sqs:us-west-2:111122223333:upwell-deadqueue", nil}, false},
		{"plain", request{"sqs:SendMessage", "arn:aws:sqs:us-west-2:111122223333:upwell-deadqueue", nil}, true},
		{"plain", request{"sqs:SendMessage", "arn:aws:sqs:us-west-2:111122223333:upwell-queue-2", nil}, false},
		{"plain", request{"s3:PutObject", bucket + "runs/q3/results/00/a.json", nil}, true},
		{"plain", request{"s3:PutObject", bucket + "state/levels.json", nil}, true},
		{"plain", request{"s3:PutObject", bucket + "tables/a.parquet", nil}, false},
		{"plain", request{"s3:GetObject", bucket + "in/contracts/a.pdf", nil}, false},
		{"plain", request{"s3:DeleteObject", bucket + "runs/q3/results/00/a.json", nil}, false},
		{"everything", request{"s3:PutObject", bucket + "team/a/runs/q3/results/00/a.json", nil}, true},
		{"everything", request{"s3:PutObject", bucket + "runs/q3/results/00/a.json", nil}, false},
		{"everything", request{"s3:GetObject", bucket + "in/contracts/a.pdf", nil}, true},
		{"everything", request{"s3:PutObject", bucket + "in/contracts/a.pdf", nil}, false},
		{"everything", request{"s3:GetObject", bucket + "in/contracts-of-others/a.pdf", nil}, false},
		{"plain", protect, true},
		{"plain", request{protect.action, task, elsewhere}, false},
	} {
		role := worker(deploy(t, read(t), tt.scenario))
		if got := allows(t, role, tt.request); got != tt.want {
			t.Errorf("%s: %v allowed: %t, want %t", tt.scenario, tt.request, got, tt.want)
		}
	}
}
