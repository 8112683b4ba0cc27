package aws_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"upwell/infra/internal/infratest"
)

func TestMain(m *testing.M) { infratest.Main(m) }

// container returns the worker's, of a deployed template.
func container(deployed object) object {
	return infratest.Dig(properties(deployed, "TaskDefinition"), "ContainerDefinitions", 0).(object)
}

// environment returns that of the worker, secrets included.
func environment(deployed object) map[string]string {
	env := make(map[string]string)
	for _, e := range many(container(deployed)["Environment"]) {
		env[e.(object)["Name"].(string)] = e.(object)["Value"].(string)
	}
	for _, e := range many(container(deployed)["Secrets"]) {
		env[e.(object)["Name"].(string)] = "a secret"
	}
	return env
}

// withFiles has the scenario's files be there.
func withFiles(t *testing.T, scenario string) object {
	t.Helper()
	tmpl, given := read(t), maps.Clone(required)
	maps.Copy(given, scenarios[scenario])
	dir := t.TempDir()
	for name, text := range map[string]string{"Template": "---\nmodel: m\n---\n{{.text}}\n", "ConfigFile": `{"repairs": 2}`} {
		if given[name] == "" {
			continue
		}
		given[name] = filepath.Join(dir, name)
		if err := os.WriteFile(given[name], []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	deployed, errs := tmpl.resolve(given)
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	return deployed
}

// settings are what the program says is in force: those that the template is about.
type settings struct {
	Queue, Bucket, Prefix, Run, Drain, HTTP, Auth, Template string
	ExitWhenEmpty                                           string `json:"exit_when_empty"`
	Fleet                                                   bool
	Region, Tier                                            []string
	ReadFrom                                                []string `json:"read_from"`
	MaxOutputTokens                                         int      `json:"max_output_tokens"`
	Repairs, Slots                                          int
	MaxHeld                                                 int `json:"max_held_mib"`
}

// TestSettings has the program say what it makes of the environment that the template
// gives it.
func TestSettings(t *testing.T) {
	queue := fmt.Sprintf(refs["AWS::SQS::Queue"], named("Queue"))
	for _, scenario := range []string{"plain", "everything"} {
		deployed := withFiles(t, scenario)
		var got, want settings
		said := infratest.Settings(t, &got, environment(deployed), texts(container(deployed)["Command"])...)
		want = settings{
			Queue: queue, Bucket: named("Bucket"), Drain: "1m25s", ExitWhenEmpty: "0s", HTTP: "127.0.0.1:9464", Fleet: true,
			Region: []string{"us-west-2"}, Tier: []string{"flex", "default"}, Auth: "sigv4", Repairs: 1, Slots: 256, MaxHeld: 64,
		}
		keyed := false
		if scenario == "everything" {
			want.Prefix, keyed = "team/a", true
			want.Region, want.Tier, want.Auth = []string{"us-west-2", "us-east-1"}, []string{"flex"}, "key"
			want.MaxOutputTokens, want.Repairs, want.Slots, want.MaxHeld = 4000, 2, 500, 256
			want.Template = environment(deployed)["UPWELL_TEMPLATE"]
			want.ReadFrom = []string{"s3://" + named("Bucket") + "/in/contracts"}
		}
		if strings.Contains(said, "AWS_BEARER_TOKEN_BEDROCK is set") != keyed {
			t.Errorf("%s: the program says %q, want it to have a key: %v", scenario, said, keyed)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: settings differ (-want +got):\n%s", scenario, diff)
		}
	}
}

// others are the variables that are not upwell's own, and who reads them.
var others = map[string]string{
	"AWS_REGION":               "the AWS SDK",
	"AWS_BEARER_TOKEN_BEDROCK": "cmd, among the keys",
}

// unread lists the variables that the program does not read.
func unread(t *testing.T, env map[string]string) (list []string) {
	t.Helper()
	known := regexp.MustCompile(`\$(\w+)`).FindAllString(infratest.Run(t, nil, "worker", "--help"), -1)
	for name := range env {
		if others[name] == "" && !slices.Contains(known, "$"+name) {
			list = append(list, name)
		}
	}
	return list
}

// TestVariables finds variables that nobody reads.
func TestVariables(t *testing.T) {
	for scenario := range scenarios {
		env := environment(withFiles(t, scenario))
		if list := unread(t, env); len(list) > 0 {
			t.Errorf("%s: the program does not read %v", scenario, list)
		}
	}
	if list := unread(t, map[string]string{"UPWELL_SLOT": "1"}); len(list) != 1 {
		t.Error("UPWELL_SLOT is taken for a variable that the program reads")
	}
}

// TestNightly has the program say what it makes of the schedule's command.
func TestNightly(t *testing.T) {
	deployed := withFiles(t, "everything")
	var in struct {
		ContainerOverrides []struct {
			Name    string   `json:"name"`
			Command []string `json:"command"`
		} `json:"containerOverrides"`
	}
	text := infratest.Dig(properties(deployed, "Nightly"), "Target", "Input").(string)
	if err := json.Unmarshal([]byte(text), &in); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	if len(in.ContainerOverrides) != 1 || in.ContainerOverrides[0].Name != container(deployed)["Name"] {
		t.Fatalf("overrides %+v, want those of container %v", in.ContainerOverrides, container(deployed)["Name"])
	}
	var got settings
	infratest.Settings(t, &got, environment(deployed), in.ContainerOverrides[0].Command...)
	if got.Run != "tickets" || got.ExitWhenEmpty != "1m0s" || got.Queue == "" {
		t.Errorf("run %q, exits after %s, queue %q", got.Run, got.ExitWhenEmpty, got.Queue)
	}
}

// TestTimes holds the drain to what ECS allows, and what a worker holds to its memory.
func TestTimes(t *testing.T) {
	const (
		most    = 120 // StopTimeout on Fargate, in seconds
		atLeast = 35  // more than the drain, as README says
		beside  = 150 // MiB that a worker takes beside the prompts it holds, and some more; see README
	)
	tmpl := read(t)
	for scenario := range scenarios {
		deployed := deploy(t, tmpl, scenario)
		c := container(deployed)
		drain, err := time.ParseDuration(environment(deployed)["UPWELL_DRAIN"])
		if err != nil {
			t.Fatal(err)
		}
		if stop := c["StopTimeout"].(int); stop > most || stop < int(drain.Seconds())+atLeast {
			t.Errorf("%s: stopTimeout %d s, drain %v: want at least %d s more, and %d at most", scenario, stop, drain, atLeast, most)
		}
		p := properties(deployed, "TaskDefinition")
		memory, err := strconv.Atoi(p["Memory"].(string))
		if err != nil {
			t.Fatal(err)
		}
		held, err := strconv.Atoi(environment(deployed)["UPWELL_MAX_HELD_MIB"])
		if err != nil {
			t.Fatal(err)
		}
		if memory < held+beside {
			t.Errorf("%s: memory of %d MiB, want %d", scenario, memory, held+beside)
		}
	}
}

// TestImage compares the container with the image that it runs.
func TestImage(t *testing.T) {
	text, err := os.ReadFile("../../Dockerfile")
	if err != nil {
		t.Fatal(err)
	}
	c := container(deploy(t, read(t), "plain"))
	for _, want := range []string{
		"\nUSER " + c["User"].(string) + "\n",
		"\nENTRYPOINT [\"/upwell\"]\n",
		` CMD ["` + strings.Join(texts(infratest.Dig(c, "HealthCheck", "Command"))[1:], `", "`) + "\"]\n",
	} {
		if !strings.Contains(string(text), want) {
			t.Errorf("Dockerfile has no %q", want)
		}
	}
	if c["ReadonlyRootFilesystem"] != true || !cmp.Equal(infratest.Dig(c, "LinuxParameters", "Capabilities", "Drop"), []node{"ALL"}) {
		t.Error("the container may write to its image, or has capabilities")
	}

	// But /tmp it may write to, which has to be a volume of the image for its mode, 1777.
	deployed := deploy(t, read(t), "plain")
	if diff := cmp.Diff([]node{object{"Name": "tmp"}}, properties(deployed, "TaskDefinition")["Volumes"]); diff != "" {
		t.Errorf("the task's volumes differ (-want +got):\n%s", diff)
	}
	want := []node{object{"SourceVolume": "tmp", "ContainerPath": "/tmp", "ReadOnly": false}}
	if diff := cmp.Diff(want, container(deployed)["MountPoints"]); diff != "" {
		t.Errorf("the container's mounts differ (-want +got):\n%s", diff)
	}
	made, volume := strings.Index(string(text), "mkdir -m 1777 /out/tmp\n"), strings.Index(string(text), "\nVOLUME [\"/tmp\"]\n")
	if made < 0 || volume < made {
		t.Error("Dockerfile has no volume /tmp of mode 1777")
	}
}
