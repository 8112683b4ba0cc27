package integration

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// cliFiles are in the working directory of every step of TestCommandLine.
var cliFiles = map[string]string{
	"settings.json": `{"queue": "file", "bucket": "file", "slots": 12, "max_attempts": 3, "max_rate": 2.5, "drain": "20s", "tier": ["flex", "default"], "look_up": true}`,
	"typo.json":     `{"slotz": 1}`,
	"wrong.json":    `{"slots": 2.5}`,
	"broken.json":   "{\"slots\": 1,\n \"bucket\": }",
	"list.json":     `[1]`,
	"nightly.jsonl": string(job("a", "")) + "\n\n" + strings.Replace(string(job("b", "")), `"input"`, `"text":{"format":{"type":"text"}},"input"`, 1) + "\n",
	"more.jsonl":    string(job("c", "")) + "\n" + string(job("d", `,"max_output_tokens":1`)) + "\n",
}

// secrets is an environment with one of each.
var secrets = []string{
	"OPENAI_API_KEY=sk-0123456789abcdef", "OPENAI_BASE_URL=https://gateway.example/v1",
	"AWS_BEARER_TOKEN_BEDROCK=ABSKsecretsecretsecret",
	"AWS_ACCESS_KEY_ID=AKIAIOSFODNN7EXAMPLE", "AWS_SECRET_ACCESS_KEY=wJalrXUtnFEMIbPxRfiCYEXAMPLEKEY",
}

// A step is a command line and what must come of it.
type step struct {
	env  string // one variable more, or none
	args string // separated by spaces
	code int

	stdout, stderr []string // regular expressions, by line; nil where nothing may be
	made, unmade   string   // files that there must be afterwards, and must not
}

// Output of which nothing in particular is wanted: some of it, or perhaps some.
var (
	some    = []string{`.`}
	perhaps = []string{``}
)

var commandLine = []struct {
	name  string
	steps []step
}{
	{"help is what was asked for", []step{
		{args: "--help", stdout: []string{`^Usage: upwell <command>`, `^Start with: upwell demo`, `^  run `, `^  worker `, `^  submit `, `^  status `, `^  local `}},
		{args: "", stdout: []string{`^Usage: upwell <command>`}},
		{args: "run --help", stdout: []string{`^Usage: upwell run --output=DIR <input>`, `--simulate`, `UPWELL_SLOTS`}},
		{args: "worker --help", stdout: []string{`--exit-when-empty`, `UPWELL_QUEUE`}},
		{args: "--version", stdout: some},
	}},
	{"what cannot be understood is not printed to a file", []step{
		{args: "frobnicate", code: 2, stderr: []string{`^upwell: .*frobnicate`, `--help`}},
		{args: "run", code: 2, stderr: []string{`^upwell: .*--output`, `^try: upwell run --help`}},
		{args: "worker", code: 2, stderr: []string{`--queue`, `--bucket`}},
		{args: "worker --queue q --bucket b --slots many", code: 2, stderr: []string{`--slots`}},
		{args: "worker --queue q --bucket b --auth magic", code: 2, stderr: []string{`--auth.*sigv4`}},
		{args: "run missing.jsonl -o out", code: 2, stderr: []string{`missing\.jsonl`}, unmade: "out"},
		{args: "run . -o out", code: 2, stderr: []string{`is a folder`}, unmade: "out"},
		{args: "run nightly.jsonl -o out --run ../elsewhere --simulate", code: 2, stderr: []string{`^upwell: `}, unmade: "elsewhere"},
	}},
	{"flags, then variables, then the file", []step{
		{
			env: "UPWELL_SLOTS=7", args: "worker --config settings.json --print-config --bucket flag",
			stdout: []string{`"Queue": "file"`, `"Bucket": "flag"`, `"Slots": 7`, `"MaxAttempts": 3`, `"StartRate": 0`, `"MaxRate": 2.5`, `"Drain": "20s"`, `"flex",$`, `"LookUp": true`},
		},
		{env: "UPWELL_CONFIG=settings.json", args: "worker --print-config", stdout: []string{`"Slots": 12`}},
		{args: "worker --config typo.json --queue q --bucket b", code: 2, stderr: []string{`typo\.json: .*"slotz"`, `slots`}},
		{args: "worker --config wrong.json --queue q --bucket b", code: 2, stderr: []string{`--slots.*2\.5`}},
		{args: "worker --config broken.json --queue q --bucket b", code: 2, stderr: []string{`broken\.json:2:`}},
		{args: "worker --config list.json --queue q --bucket b", code: 2, stderr: []string{`want a JSON object`}},
		{args: "worker --config none.json --queue q --bucket b", code: 2, stderr: []string{`none\.json`}},
	}},
	{"a file goes through a simulated endpoint into a folder", []step{
		{
			args: "run nightly.jsonl -o out --simulate", made: "out/nightly.output.jsonl", unmade: "out/nightly.errors.jsonl",
			stdout: []string{`^run nightly: 2 of 2 jobs answered, 0 failed`, `nightly\.output\.jsonl`}, stderr: perhaps,
		},
		{args: "run nightly.jsonl -o out --simulate --quiet", stdout: []string{`2 of 2 jobs answered`}},
		{args: "run more.jsonl -o out --simulate --run nightly", code: 2, stderr: []string{`choose another name with --run`}},
		{args: "run more.jsonl -o out --simulate --quiet", code: 1, made: "out/more.errors.jsonl", stdout: []string{`1 of 2 jobs answered, 1 failed`}},
	}},
}

func TestCommandLine(t *testing.T) {
	t.Parallel()
	for _, tt := range commandLine {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			for name, text := range cliFiles {
				if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			for _, st := range tt.steps {
				p := launchIn(t, dir, []string{st.env}, strings.Fields(st.args)...)
				p.exits(t, st.code)
				p.says(t, "standard output", p.stdout.String(), st.stdout)
				p.says(t, "standard error", p.stderr.String(), st.stderr)
				if _, err := os.Stat(filepath.Join(dir, st.made)); err != nil {
					t.Errorf("upwell %s: %v, want it to be made", st.args, err)
				}
				if _, err := os.Stat(filepath.Join(dir, st.unmade)); st.unmade != "" && err == nil {
					t.Errorf("upwell %s made %s, want it not to", st.args, st.unmade)
				}
			}
		})
	}
}

// says verifies that text has all that is wanted, or is empty if nothing is.
func (p *process) says(t *testing.T, where, text string, want []string) {
	t.Helper()
	if len(want) == 0 && text != "" {
		t.Errorf("upwell %s: %s has %q, want nothing", strings.Join(p.cmd.Args[1:], " "), where, text)
	}
	for _, w := range want {
		if !regexp.MustCompile(`(?m)` + w).MatchString(text) {
			t.Errorf("upwell %s: %s has %q, want a match for %s", strings.Join(p.cmd.Args[1:], " "), where, text, w)
		}
	}
}

// TestNoSecretIsPrinted looks for the secrets of the environment in what the
// program says when it is asked for its settings, and when they do not work.
func TestNoSecretIsPrinted(t *testing.T) {
	t.Parallel()
	unreachable := []string{"AWS_REGION=us-west-2", "AWS_ENDPOINT_URL_SQS=http://127.0.0.1:1", "AWS_ENDPOINT_URL_S3=http://127.0.0.1:1", "AWS_MAX_ATTEMPTS=1"}
	for _, args := range []string{"worker --print-config --queue q --bucket b", "worker --queue q --bucket b --log-level debug"} {
		p := launch(t, append(unreachable, secrets...), strings.Fields(args)...)
		p.wait(t)
		all := p.stdout.String() + p.stderr.String()
		for _, s := range secrets {
			name, value, _ := strings.Cut(s, "=")
			if !strings.Contains(value, "://") && strings.Contains(all, value) {
				t.Errorf("upwell %s prints %s: %s", args, name, all)
			}
		}
		if strings.Contains(args, "print") && (!strings.Contains(all, `"APIKeySet": true`) || !strings.Contains(all, `"BearerTokenSet": true`)) {
			t.Errorf("upwell %s prints %s, want it to say that there are keys", args, all)
		}
	}
}
