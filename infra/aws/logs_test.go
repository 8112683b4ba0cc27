package aws_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"upwell/infra/internal/infratest"
)

// A term is a part of a metric filter's pattern: $.key = "value", or !=.
var term = regexp.MustCompile(`^\$\.(\w+) (=|!=) "([^"]*)"$`)

// matches reports whether a metric filter counts a line of JSON.
func matches(t *testing.T, pattern, line string) bool {
	t.Helper()
	inner, ok := strings.CutPrefix(pattern, "{ ")
	inner, end := strings.CutSuffix(inner, " }")
	if !ok || !end {
		t.Fatalf("pattern %s is not known here", pattern)
	}
	var fields map[string]any
	if err := json.Unmarshal([]byte(line), &fields); err != nil {
		return false
	}
	for part := range strings.SplitSeq(inner, " && ") {
		m := term.FindStringSubmatch(part)
		if m == nil {
			t.Fatalf("term %s is not known here", part)
		}
		if value, ok := fields[m[1]].(string); !ok || (value == m[3]) != (m[2] == "=") {
			return false
		}
	}
	return true
}

// patterns returns the pattern of each metric, and checks that an alarm watches it.
func patterns(t *testing.T, deployed object) map[string]string {
	t.Helper()
	list, watched := make(map[string]string), make(map[any]bool)
	for name, r := range deployed["Resources"].(object) {
		p := properties(deployed, name)
		switch r.(object)["Type"] {
		case "AWS::Logs::MetricFilter":
			m := infratest.Dig(p, "MetricTransformations", 0)
			list[infratest.Dig(m, "MetricName").(string)] = p["FilterPattern"].(string)
			if infratest.Dig(m, "MetricNamespace") != "upwell/upwell" || infratest.Dig(m, "MetricValue") != "1" || p["LogGroupName"] != named("LogGroup") {
				t.Errorf("%s: %v of %v", name, m, p["LogGroupName"])
			}
		case "AWS::CloudWatch::Alarm":
			if p["Namespace"] == "upwell/upwell" {
				watched[p["MetricName"]] = true
			}
		}
	}
	for metric := range list {
		if !watched[metric] {
			t.Errorf("no alarm watches %s", metric)
		}
	}
	return list
}

// A backend is SQS, S3 and the endpoint on loopback.
func backend(t *testing.T) (env []string) {
	t.Helper()
	dir := t.TempDir()
	cmd := exec.CommandContext(t.Context(), infratest.Program(t), "local", "--dir", dir, "--sqs", "127.0.0.1:0", "--s3", "127.0.0.1:0", "--mantle", "127.0.0.1:0",
		"--latency", "10ms", "--accept-key", "good")
	cmd.Env = []string{"HOME=" + dir}
	cmd.Cancel, cmd.WaitDelay = func() error { return cmd.Process.Signal(os.Interrupt) }, 10*time.Second
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Wait() })
	for lines := bufio.NewScanner(out); lines.Scan(); {
		rest, ok := strings.CutPrefix(lines.Text(), "export ")
		if ok {
			env = append(env, strings.Fields(rest)...)
		}
		if strings.Contains(rest, "UPWELL_QUEUE") {
			return env
		}
	}
	t.Fatal("upwell local says nothing")
	return nil
}

// overhear runs a worker as the template does until it logs msg, and returns that line.
func overhear(t *testing.T, env []string, msg string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute) // spent only when the test fails
	cmd := exec.CommandContext(ctx, infratest.Program(t), "worker")
	cmd.Env = env
	errs, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { cancel(); _ = cmd.Wait() }()
	var all strings.Builder
	for lines := bufio.NewScanner(errs); lines.Scan(); {
		if fmt.Fprintln(&all, lines.Text()); strings.Contains(lines.Text(), `"`+msg+`"`) {
			return lines.Text()
		}
	}
	t.Fatalf("the worker did not log %q:\n%s", msg, all.String())
	return ""
}

// TestLogPatterns has a worker log what the alarms are about.
func TestLogPatterns(t *testing.T) {
	deployed := deploy(t, read(t), "plain")
	local := backend(t)
	settings := environment(deployed)
	env := []string{"HOME=" + t.TempDir(), "UPWELL_LOG_FORMAT=" + settings["UPWELL_LOG_FORMAT"], "UPWELL_LOG_LEVEL=" + settings["UPWELL_LOG_LEVEL"]}
	env = append(env, local...)
	job := filepath.Join(t.TempDir(), "jobs.jsonl")
	text := `{"custom_id":"a","method":"POST","url":"/v1/responses","body":{"model":"xai.grok-4.3","input":"hello"}}` + "\n"
	if err := os.WriteFile(job, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	infratest.Run(t, env, "submit", job, "--run", "poor", "--budget", "0.000001usd")
	logged := map[string]string{
		"RunParked":    overhear(t, append(env, "OPENAI_API_KEY=good"), "run parked"),
		"OtherErrors":  `{"level":"ERROR","msg":"answer not stored, and it was paid for"}`,
		"":             `{"level":"INFO","msg":"worker started","version":"1","err":"intake paused, it says"}`,
		"no JSON":      `level=ERROR msg="run parked"`,
		"IntakePaused": "",
	}
	infratest.Run(t, env, "submit", job, "--run", "rich")
	logged["IntakePaused"] = overhear(t, append(env, "OPENAI_API_KEY=bad"), "intake paused")

	list := patterns(t, deployed)
	if len(list) != 3 {
		t.Errorf("metrics %v, want three", list)
	}
	for is, line := range logged {
		got := make(map[string]bool)
		for metric, pattern := range list {
			got[metric] = matches(t, pattern, line)
		}
		want := map[string]bool{"RunParked": false, "IntakePaused": false, "OtherErrors": false}
		if _, known := want[is]; known {
			want[is] = true
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s\nis counted otherwise (-want +got):\n%s", line, diff)
		}
	}
}
