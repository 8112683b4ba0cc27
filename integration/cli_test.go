package integration

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"upwell/integration/fixture"
	"upwell/jobs"
)

// cliFiles are in the working directory of every step of TestCommandLine.
var cliFiles = map[string]string{
	"settings.json": `{"queue": "file", "bucket": "file", "slots": 12, "max_attempts": 3, "max_rate": 2.5, "drain": "20s", "tier": ["flex", "default"], "look_up": true}`,
	"wrong.json":    `{"slots": 2.5, "tier": ["flx"],` + "\n" + `"maxRate": 1, "slotz": 1, "drain": "-1s", "drain": "1s", "look_up": "maybe"}`,
	"broken.json":   "{\"slots\": 1,\n \"bucket\": }",
	"list.json":     `[1]`,
	"nightly.jsonl": string(fixture.Job("a", "")) + "\n\n" + strings.Replace(string(fixture.Job("b", "")), `"input"`, `"text":{"format":{"type":"text"}},"input"`, 1) + "\n",
	"law.json":      `{"type":"object","properties":{"law":{"type":"string"}},"required":["law"],"additionalProperties":false}`,
	"plain.jsonl":   string(fixture.Job("a", "")) + "\n" + string(fixture.Job("b", "")) + "\n",
	"hostile.json":  `{"$ref":"file:///etc/passwd"}`,
	"named.jsonl":   strings.Replace(fixture.LawJob(jobs.Responses, "a", ""), fixture.LawSchema, `{"type":"object"}`, 1) + "\n" + strings.Replace(fixture.LawJob(jobs.Responses, "b", ""), fixture.LawSchema, `"law"`, 1) + "\n",
	"wrong.jsonl":   string(fixture.Job("a", "")) + "\n" + strings.Replace(fixture.LawJob(jobs.Responses, "b", ""), fixture.LawSchema, `{"$ref":"http://x/y"}`, 1) + "\n",
	"faults.json":   `[{"kind":"thunder"}]`,
	"prices.json":   `{"date":"2026-01-02","source":"me","models":{"m":{"flex":{"input":1,"cached":1}}}}`,
	"greet.md":      "---\nmodel: xai.grok-4.3\ntiers: [flex]\nschema: law.json\nsystem: You are brief.\n---\nGreet {{.name}} of {{col \"Home Town\"}}.\n",
	"late.md":       "---\nmodel: xai.grok-4.3\n---\n{{.name}}: which law governs the letters of this person, and which court decides?\n",
	"typo.md":       "---\nmodel: xai.grok-4.3\neffrot: low\n---\n{{.name}}\n",
	"people.csv":    "name,Home Town,age\nAda,London,36\n\"Emmy \"\"the\"\" Noether\",Erlangen,53\nGrace,New York,85\n",
	"unnamed.csv":   "nom,age\nAda,36\n",
	"more.jsonl":    string(fixture.Job("c", "")) + "\n" + string(fixture.Job("d", `,"max_output_tokens":1`)) + "\n",
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
		{args: "--help", stdout: []string{`^Usage: upwell <command>`, `^Start with: upwell demo`, `^  run `, `^  worker `, `^  submit `, `^  status `, `^  verify `, `^  export `, `^  dead list `, `^  dead show `, `^  dead redrive `, `^  doctor `, `^  local `}},
		{args: "", stdout: []string{`^Usage: upwell <command>`}},
		{args: "run --help", stdout: []string{`^Usage: upwell run <input>`, `--output=DIR`, `--simulate`, `UPWELL_SLOTS`}},
		{args: "worker --help", stdout: []string{`--exit-when-empty`, `UPWELL_QUEUE`}},
		{args: "--version", stdout: some},
	}},
	{"what cannot be understood is not printed to a file", []step{
		{args: "frobnicate", code: 2, stderr: []string{`^upwell: .*frobnicate`, `--help`}},
		{args: "dead list", code: 2, stderr: []string{`^upwell: no queue: name the dead-letter queue with --dead-queue`}},
		{args: "dead list --where class=trunc", code: 2, stderr: []string{`^upwell: --where class=trunc: unknown class, want truncated,`}},
		{args: "dead list --where klass=x,id=y", code: 2, stderr: []string{`^upwell: --where unknown key "klass", want class, id,`}},
		{args: "dead redrive --dead-queue q", code: 2, stderr: []string{`^upwell: no queue: name the queue of jobs`}},
		{args: "dead redrive --queue q --set tier=fast", code: 2, stderr: []string{`^upwell: --set tier=fast: unknown tier "fast"`}},
		{args: "dead show --queue q", code: 2, stderr: []string{`<id>`}},
		{args: "dead show --queue q --body --redact a", code: 2, stderr: []string{`--body.*--redact|--redact.*--body`}},
		{args: "run", code: 2, stderr: []string{`^upwell: .*<input>`, `^try: upwell run --help`}},
		{args: "run nightly.jsonl", code: 2, stderr: []string{`^upwell: no folder for the results: name it with --output or -o$`}},
		{args: "submit nightly.jsonl", code: 2, stderr: []string{`^upwell: no bucket: name it with --bucket or UPWELL_BUCKET$`}},
		{args: "submit nightly.jsonl --bucket b", code: 2, stderr: []string{`^upwell: no queue: name it with --queue or UPWELL_QUEUE$`}},
		{args: "submit nightly.jsonl --estimate", code: 2, stderr: []string{`^upwell: no bucket: `}},
		{args: "worker", code: 2, stderr: []string{`--queue`, `--bucket`}},
		{args: "worker --queue q --bucket b --slots many", code: 2, stderr: []string{`--slots`}},
		{args: "worker --queue q --bucket b --auth magic", code: 2, stderr: []string{`--auth.*sigv4`}},
		{args: "run missing.jsonl -o out", code: 2, stderr: []string{`missing\.jsonl`}, unmade: "out"},
		{args: "run . -o out", code: 2, stderr: []string{`is a folder`}, unmade: "out"},
		{args: "run nightly.jsonl -o out --run ../elsewhere --simulate", code: 2, stderr: []string{`^upwell: --run: "../elsewhere", want letters`}, unmade: "elsewhere"},
	}},
	{"flags, then variables, then the file", []step{
		{
			env: "UPWELL_SLOTS=7", args: "worker --config settings.json --print-config --bucket flag",
			stdout: []string{`"queue": "file"`, `"bucket": "flag"`, `"slots": 7`, `"max_attempts": 3`, `"start_rate": 0`, `"max_rate": 2.5`, `"drain": "20s"`, `"flex",$`, `"look_up": true`},
		},
		{env: "UPWELL_CONFIG=settings.json", args: "worker --print-config", stdout: []string{`"slots": 12`}},
		{args: "worker --config wrong.json --queue q --bucket b", code: 2, stderr: []string{
			`^upwell: wrong\.json:1: slots: want a whole number, not 2\.5$`, `^wrong\.json:1: tier: want one of flex, .*, not \["flx"\]$`,
			`^wrong\.json:2: maxRate: unknown setting, want max_rate$`, `^wrong\.json:2: slotz: unknown setting`,
			`^wrong\.json:2: drain: want a duration such as .*, not "-1s"$`, `^wrong\.json:2: drain: set for the second time$`, `^wrong\.json:2: look_up: want true or false, not "maybe"$`,
		}},
		{args: "worker --drain=-5s", code: 2, stderr: []string{`^upwell: --drain: want a duration such as`}},
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
		{args: "run more.jsonl -o out --simulate --quiet", code: 1, made: "out/more.errors.jsonl", stdout: []string{`1 of 2 jobs answered, 1 failed`}, stderr: []string{`^upwell: 1 of 2 jobs failed, and .*more\.errors\.jsonl says why: --retry-failed tries them again$`}},
	}},
	{"made-up answers are kept from real ones", []step{
		{args: "run nightly.jsonl -o out --simulate --quiet", made: "out/nightly.output.jsonl", stdout: []string{`the answers are made up, by --simulate`}},
		{args: "run nightly.jsonl -o out --base-url http://127.0.0.1:1/v1", code: 2, stderr: []string{`^upwell: the answers in .*out are made up, by --simulate: give another folder with -o$`}},
		{args: "export nightly --dir out -o -", stdout: []string{`"custom_id":"a"`}, stderr: []string{`2 rows`}},
	}},
	{"settings that make no sense are named", []step{
		{args: "run nightly.jsonl -o x --simulate --max-rate=-1", code: 2, stderr: []string{`^upwell: --max-rate -1: want 0 or more$`}, unmade: "x"},
		{args: "run nightly.jsonl -o x --simulate --start-rate=NaN", code: 2, stderr: []string{`^upwell: --start-rate NaN: want`}, unmade: "x"},
		{args: "worker --queue q --bucket b --slots 0", code: 2, stderr: []string{`^upwell: --slots 0: want 1 or more$`}},
		{args: "worker --queue q --bucket b --max-attempts=-1", code: 2, stderr: []string{`^upwell: --max-attempts -1: want`}},
		{args: "worker --queue q --bucket b --tier flx", code: 2, stderr: []string{`^upwell: --tier must be one of "flex","default","priority","reserved" but got "flx"$`, `^try: upwell worker --help$`}},
		{args: "run nightly.jsonl -o y --simulate --report none/report.html", code: 2, stderr: []string{`^upwell: --report .*report\.html: no such file or directory$`}},
		{args: "run nightly.jsonl -o y --simulate --report .", code: 2, stderr: []string{`that is a folder: name a file$`}},
		{args: "sumbit nightly.jsonl", code: 2, stderr: []string{`did you mean "submit"`, `^try: upwell --help$`}},
	}},
	{"answers are held to a schema", []step{
		{args: "run plain.jsonl -o out --simulate --quiet --schema law.json", made: "out/plain.output.jsonl", stdout: []string{`2 of 2 jobs answered`}},
		{args: "run plain.jsonl -o out --simulate --quiet", code: 2, stderr: []string{`schemas differ: choose another name with --run`}},
		{args: "run named.jsonl -o named --simulate --quiet --schema law=law.json", stdout: []string{`2 of 2 jobs answered`}},
		{args: "run named.jsonl -o x --simulate", code: 2, stderr: []string{`named\.jsonl:2: upwell\.schema: "law", but the run has no schema of that name: give it with --schema NAME=FILE`}, unmade: "x"},
		{args: "run wrong.jsonl -o x --simulate", code: 2, stderr: []string{`wrong\.jsonl:2: upwell\.schema: it refers to "http://x/y": references must stay inside`}, unmade: "x"},
		{args: "run nightly.jsonl -o x --simulate --schema hostile.json", code: 2, stderr: []string{`--schema hostile\.json: it refers to "file:///etc/passwd"`}, unmade: "x"},
		{args: "run nightly.jsonl -o x --simulate --schema none.json", code: 2, stderr: []string{`none\.json`}, unmade: "x"},
		{args: "run nightly.jsonl -o x --simulate --schema law.json --schema hostile.json", code: 2, stderr: []string{`"law" is for all jobs already`}, unmade: "x"},
		{args: "run nightly.jsonl -o x --simulate --repairs 4", code: 2, stderr: []string{`4 repairs: want at most 3`}},
		{args: "run nightly.jsonl -o x --simulate --prices prices.json", code: 2, stderr: []string{`prices\.json: prices: models\.m\.flex\.output: want a price`}},
	}},
	{"the doctor says what is wrong", []step{
		{args: "doctor --help", stdout: []string{`--no-call`, `--json`, `UPWELL_QUEUE`, `--model=MODEL`}},
		{
			args: "doctor --queue q --bucket b --base-url http://127.0.0.1:1/v1", code: 3,
			stdout: []string{`^✗ credentials +no AWS credentials: `, `^ +→ set AWS_PROFILE, or AWS_ACCESS_KEY_ID`, `^✗ endpoint +127\.0\.0\.1:1: the connection is refused$`, `^- queue +skipped: no AWS credentials$`, `^✗ region +no Region`, `^3 failures, \d+ not examined$`},
		},
		{args: "doctor --json --base-url http://127.0.0.1:1/v1", code: 3, stdout: []string{`^\[$`, `^    "check": "endpoint",$`, `^    "status": "failure",$`}},
		{args: "doctor --base-path xai", code: 2, stderr: []string{`--base-path "xai": want MODEL=PATH`}},
		{args: "doctor --region us-east-1 --allow-region us-west-2", code: 2, stderr: []string{`--allow-region us-west-2 leaves none`}},
		{args: "doctor --prices prices.json", code: 2, stderr: []string{`models\.m\.flex\.output: want a price`}},
	}},
	{"faults are checked before anything is served", []step{
		{args: "local --faults faults.json", code: 2, stderr: []string{`faults\.json: .*"thunder"`}},
	}},
	{"the folder of a run is exported", []step{
		{args: "export --help", stdout: []string{`^Usage: upwell export --output=`, `Hive`, `--columns=NAME=PATH:TYPE`, `--dir`}},
		{args: "run more.jsonl -o out --simulate --quiet", code: 1, stdout: some, stderr: some},
		{args: "export more --dir out -o more.csv", made: "more.csv", stdout: []string{`^run more: 2 rows \(1 answered, 1 failed\), .* in 1 file, .*: more\.csv$`}},
		{args: "export more --dir out -o tables/ -f parquet --partition-by date", made: "tables/_SUCCESS", stdout: some},
		{args: "export more --dir out -o more", code: 2, stderr: []string{`--format: want jsonl, csv or parquet`}, unmade: "more"},
		{args: "export more --dir out -o x.csv --format xml", code: 2, stderr: []string{`--format.*jsonl`}},
		{args: "export more --dir out -o x.csv --max-file-mib 3", code: 2, stderr: []string{`end x\.csv in /`}},
		{args: "export more --dir out -o x/ -f csv --max-file-mib 5000", code: 2, stderr: []string{`want 1 to 4096`}, unmade: "x"},
		{args: "export more --dir out -o x.csv --partition-by run", code: 2, stderr: []string{`end x\.csv in /`}},
		{args: "export more --dir out -o x/ -f csv --partition-by date,run", code: 2, stderr: []string{`run,date`}, unmade: "x"},
		{args: "export more --dir out -o x/ -f csv --partition-by date --columns custom_id,Date=finished", code: 2, stderr: []string{`Date is in the names of the folders`}, unmade: "x"},
		{args: "export more --dir out -o x.csv --columns nope", code: 2, stderr: []string{`there is no nope: there is custom_id`}, unmade: "x.csv"},
		{args: "export more --dir out -o none/x.csv", code: 2, stderr: []string{`none`}, unmade: "none"},
		{args: "export other --dir out -o x.csv", code: 3, stderr: []string{`correct the run's name`}, unmade: "x.csv"},
		{args: "export more --dir tables -o x.csv", code: 2, stderr: []string{`tables is not the folder of an upwell run`}},
		{args: "export more -o x.csv", code: 2, stderr: []string{`give --bucket, or --dir`}},
	}},
	{"what is asked for does not need what it does not use", []step{
		{args: "run nightly.jsonl --estimate", stdout: []string{`^run nightly: 2 jobs, estimated; nothing was sent$`}, stderr: perhaps},
		{args: "submit nightly.jsonl --dry-run", stdout: []string{`nightly\.jsonl: 2 jobs, all good; nothing was queued`}, stderr: perhaps},
		{args: "submit nightly.jsonl --estimate --bucket my-bucket", code: 3, stderr: []string{`^upwell: s3 check s3://my-bucket: no Region: set AWS_REGION, or region in the profile$`}},
	}},
	{"a bucket that cannot be got at is no mistake of the command", []step{
		{args: "run s3://b/x.jsonl -o x --simulate", env: "AWS_REGION=us-west-2", code: 3, stderr: []string{`^upwell: s3://b/x\.jsonl: no AWS credentials: .*: set AWS_PROFILE`}, unmade: "x"},
		{args: "submit s3://b/in/ --bucket b --queue q --template greet.md", env: "AWS_REGION=us-west-2", code: 3, stderr: []string{`^upwell: s3://b/in/: no AWS credentials: .*: set AWS_PROFILE`}},
		{args: "template check greet.md s3://b/in/", env: "AWS_REGION=us-west-2", code: 3, stderr: []string{`^upwell: s3://b/in/: no AWS credentials: .*: set AWS_PROFILE`}},
		{args: "template check greet.md s3://my-bucket/in/", code: 3, stderr: []string{`^upwell: s3://my-bucket/in/: .*no Region: set AWS_REGION, or region in the profile$`}},
		{args: "template check greet.md s3://b/in/", env: "AWS_PROFILE=none", code: 3, stderr: []string{`^upwell: s3://b/in/: no AWS credentials: failed to get shared config profile, none: correct --profile or AWS_PROFILE`}},
	}},
	{"a template is checked before it costs anything", []step{
		{args: "template --help", stdout: []string{`^Usage: upwell template <command>`, `template check `}},
		{args: "template check --help", stdout: []string{`^Usage: upwell template check <template> \[<input>\]`, `--first=N`, `--format`}},
		{args: "template check greet.md", stdout: []string{`^template greet\.md$`, `placeholders  name, Home Town$`, `schema  +law, about \d+ tokens`, `tiers  +flex$`}},
		{
			args: "template check greet.md people.csv -n 2",
			stdout: []string{
				`^job "row-1" of people\.csv:2, about \d+ tokens:$`, `"instructions": "You are brief\."`, `"input": "Greet Ada of London\."`, `"service_tier": "flex"`, `"additionalProperties": false`,
				`"input": "Greet Emmy \\"the\\" Noether of Erlangen\."`, `^shared prefix: about \d+ of \d+ tokens are the same`, `^hint: no placeholder for age$`,
			},
		},
		{args: "template check greet.md people.csv --key name --json --first 1", stdout: []string{`"custom_id": "Ada"`, `"before_first_placeholder": 2`, `"no placeholder for age"`}},
		{args: "template check late.md people.csv", stdout: []string{`^hint: most constant text, \d+ of \d+ tokens, comes after the first placeholder`}},
		{args: "template check greet.md unnamed.csv", code: 2, stdout: some, stderr: []string{`^upwell: no job can be made of 1 of the first 1 records:$`, `unnamed\.csv:2: greet\.md:7: \{\{\.name\}\}: there is no column name, want one of age, nom$`}},
		{args: "template check typo.md people.csv", code: 2, stderr: []string{`^upwell: typo\.md:3: effrot: unknown setting, want model, `}},
		{args: "template check none.md", code: 2, stderr: []string{`^upwell: template none\.md: no such file`}},
		{args: "template check greet.md none.csv", code: 2, stderr: []string{`none\.csv`}},
		{args: "template check greet.md people.csv -n 0", code: 2, stderr: []string{`-n 0: want at least 1`}},
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

// TestResultsAndTemplateAreNoInput runs the folder that it stands in, twice: the same
// jobs both times, with the template, what it names and the results of the first time
// in it.
func TestResultsAndTemplateAreNoInput(t *testing.T) {
	t.Parallel()
	for _, output := range []string{"results", "."} {
		dir := t.TempDir()
		for name, text := range map[string]string{
			"msa.txt": "A contract.", "law.json": cliFiles["law.json"], "rules.md": "Be brief.",
			"review.md": "---\nmodel: xai.grok-4.3\nschema: law.json\nplaybook: rules.md\n---\n{{.text}}\n",
		} {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		for range 2 {
			p := launchIn(t, dir, nil, "run", ".", "-o", output, "--template", "review.md", "--run", "review", "--simulate", "--quiet")
			p.exits(t, 0)
			p.says(t, "standard output", p.stdout.String(), []string{`^run review: 1 of 1 jobs answered, 0 failed`})
			p.says(t, "standard error", p.stderr.String(), []string{`left out .*review\.md .*rules\.md `})
		}
	}
}

// TestFullDisk has what cannot be printed be an error.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Skip(err)
	}
	defer full.Close()
	dir := t.TempDir()
	for _, name := range []string{"late.md", "nightly.jsonl"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(cliFiles[name]), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, args := range []string{"template check late.md", "run nightly.jsonl -o out --simulate --quiet", "verify nightly --dir out", "export nightly --dir out -o -", "worker --queue q --bucket b --print-config"} {
		cmd := exec.CommandContext(t.Context(), program, strings.Fields(args)...)
		cmd.Dir, cmd.Stdout = dir, full
		if err := cmd.Run(); cmd.ProcessState.ExitCode() != 3 {
			t.Errorf("upwell %s on a full disk: %v, want exit code 3", args, err)
		}
	}
}

// patient are the lines about progress that are written once some work has taken ten
// seconds: on a busy machine, any may.
var patient = regexp.MustCompile(`(?m)^(\{"at":"[^"]+","seconds":.*"rate":.*\}|[a-z ]+: \d+(/\d+)? \w+( \(\d+%\))? · .*/s( · .*)?)\n`)

// hurried returns a text without them.
func hurried(text string) string { return patient.ReplaceAllString(text, "") }

// says verifies that text has all that is wanted, or is empty if nothing is.
func (p *process) says(t *testing.T, where, text string, want []string) {
	t.Helper()
	if len(want) == 0 && hurried(text) != "" {
		t.Errorf("upwell %s: %s has %q, want nothing", strings.Join(p.cmd.Args[1:], " "), where, text)
	}
	for _, w := range want {
		if !regexp.MustCompile(`(?m)` + w).MatchString(text) {
			t.Errorf("upwell %s: %s has %q, want a match for %s", strings.Join(p.cmd.Args[1:], " "), where, text, w)
		}
	}
}

// TestSettingsAreRead has the settings that are printed be read as a file, and be the same
// then.
func TestSettingsAreRead(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	printed := func(args ...string) string {
		p := launchIn(t, dir, nil, append([]string{"worker", "--print-config"}, args...)...)
		p.exits(t, 0)
		return p.stdout.String()
	}
	want := printed("--queue", "q", "--bucket", "b", "--slots", "7", "--max-rate", "2.5", "--escalate", "90s", "--tier", "flex,default", "--look-up", "--read-from", "s3://a/b")
	if err := os.WriteFile(filepath.Join(dir, "settings.json"), []byte(want), 0o644); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, printed("--config", "settings.json")); diff != "" {
		t.Errorf("settings differ (-want +got):\n%s", diff)
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
		if strings.Contains(args, "print") && (!strings.Contains(all, "OPENAI_API_KEY is set\n") || !strings.Contains(all, "AWS_BEARER_TOKEN_BEDROCK is set\n")) {
			t.Errorf("upwell %s prints %s, want it to say that there are keys", args, all)
		}
	}
}
