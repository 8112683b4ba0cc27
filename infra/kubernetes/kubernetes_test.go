// Package kubernetes_test checks manifests without a cluster. Kubernetes' own objects
// are held to its types by infra/tools/kube.
package kubernetes_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"

	"upwell/infra/internal/infratest"
)

type object = map[string]any

// read returns the objects of a file, by kind.
func read(t *testing.T, file string) map[string]object {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	all := make(map[string]object)
	for d := yaml.NewDecoder(bytes.NewReader(text)); ; {
		var o object
		err := d.Decode(&o)
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		all[o["kind"].(string)] = o
	}
}

// A workload is what makes pods, and what scales it.
type workload struct {
	file         string
	pod, scaler  object
	config       map[string]string
	wantExit     string
	readinessToo bool
}

func workloads(t *testing.T) []workload {
	t.Helper()
	main, job := read(t, "upwell.yaml"), read(t, "scaledjob.yaml")
	config := make(map[string]string)
	for k, v := range main["ConfigMap"]["data"].(object) {
		config[k] = v.(string)
	}
	return []workload{
		{"upwell.yaml", infratest.Dig(main["Deployment"], "spec", "template").(object), main["ScaledObject"], config, "0s", true},
		{"scaledjob.yaml", infratest.Dig(job["ScaledJob"], "spec", "jobTargetRef", "template").(object), job["ScaledJob"], config, "1m0s", false},
	}
}

func TestMain(m *testing.M) { infratest.Main(m) }

// TestSettings has the program say what it makes of what pods get.
func TestSettings(t *testing.T) {
	known := regexp.MustCompile(`\$(\w+)`).FindAllString(infratest.Run(t, nil, "worker", "--help"), -1)
	type settings struct {
		Queue, Bucket, Drain, HTTP string
		ExitWhenEmpty              string `json:"exit_when_empty"`
		Fleet                      bool
		Tier                       []string
		Slots                      int
		MaxHeld                    int `json:"max_held_mib"`
	}
	for _, w := range workloads(t) {
		for name := range w.config {
			if name != "AWS_REGION" && !slices.Contains(known, "$"+name) {
				t.Errorf("the program does not read %s", name)
			}
		}
		c := infratest.Dig(w.pod, "spec", "containers", 0)
		if infratest.Dig(c, "envFrom", 0, "configMapRef", "name") != "upwell" {
			t.Errorf("%s: the container does not get the ConfigMap", w.file)
		}
		var args []string
		for _, a := range infratest.Dig(c, "args").([]any) {
			args = append(args, a.(string))
		}
		var got settings
		infratest.Settings(t, &got, w.config, args...)
		want := settings{Queue: w.config["UPWELL_QUEUE"], Bucket: w.config["UPWELL_BUCKET"], Drain: "1m25s", ExitWhenEmpty: w.wantExit, HTTP: "0.0.0.0:9464", Fleet: true}
		want.Tier, want.Slots, want.MaxHeld = []string{"flex", "default"}, 256, 64
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: settings differ (-want +got):\n%s", w.file, diff)
		}
	}
}

// TestPods looks at what pods may do, and at how they are told to stop.
func TestPods(t *testing.T) {
	for _, w := range workloads(t) {
		spec, c := infratest.Dig(w.pod, "spec"), infratest.Dig(w.pod, "spec", "containers", 0)
		drain, err := time.ParseDuration(w.config["UPWELL_DRAIN"])
		if err != nil {
			t.Fatal(err)
		}
		if grace, _ := infratest.Dig(spec, "terminationGracePeriodSeconds").(int); grace < int(drain.Seconds())+35 {
			t.Errorf("%s: grace period of %d s, want 35 s more than the drain of %v", w.file, grace, drain)
		}
		wantPod := object{"runAsNonRoot": true, "runAsUser": 65532, "runAsGroup": 65532, "seccompProfile": object{"type": "RuntimeDefault"}}
		if diff := cmp.Diff(wantPod, infratest.Dig(spec, "securityContext")); diff != "" {
			t.Errorf("%s: the pod's security context differs (-want +got):\n%s", w.file, diff)
		}
		want := object{"allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": object{"drop": []any{"ALL"}}}
		if diff := cmp.Diff(want, infratest.Dig(c, "securityContext")); diff != "" {
			t.Errorf("%s: the container's security context differs (-want +got):\n%s", w.file, diff)
		}
		if diff := cmp.Diff([]any{object{"name": "tmp", "emptyDir": object{}}}, infratest.Dig(spec, "volumes")); diff != "" {
			t.Errorf("%s: volumes differ (-want +got):\n%s", w.file, diff)
		}
		if diff := cmp.Diff([]any{object{"name": "tmp", "mountPath": "/tmp"}}, infratest.Dig(c, "volumeMounts")); diff != "" {
			t.Errorf("%s: mounts differ, and the root is read-only (-want +got):\n%s", w.file, diff)
		}
		if infratest.Dig(spec, "serviceAccountName") != "upwell" || infratest.Dig(spec, "automountServiceAccountToken") != false {
			t.Errorf("%s: service account %v, token mounted: %v", w.file, infratest.Dig(spec, "serviceAccountName"), infratest.Dig(spec, "automountServiceAccountToken"))
		}
		port := fmt.Sprint(infratest.Dig(c, "ports", 0, "containerPort"))
		if !strings.HasSuffix(w.config["UPWELL_HTTP"], ":"+port) || strings.HasPrefix(w.config["UPWELL_HTTP"], "127.") {
			t.Errorf("%s: probes ask port %s, and the worker answers at %s", w.file, port, w.config["UPWELL_HTTP"])
		}
		probes := map[string]string{"livenessProbe": "/healthz"}
		if w.readinessToo {
			probes["readinessProbe"], probes["startupProbe"] = "/readyz", "/healthz"
		}
		for probe, path := range probes {
			if diff := cmp.Diff(object{"path": path, "port": infratest.Dig(c, "ports", 0, "name")}, infratest.Dig(c, probe, "httpGet")); diff != "" {
				t.Errorf("%s: %s differs (-want +got):\n%s", w.file, probe, diff)
			}
		}
		for _, path := range [][]any{{"requests", "cpu"}, {"requests", "memory"}, {"limits", "memory"}} {
			if infratest.Dig(c, append([]any{"resources"}, path...)...) == nil {
				t.Errorf("%s: no %v", w.file, path)
			}
		}
	}
}

// fields are those of KEDA's objects in version 2, whose types are not to be had here.
var fields = map[string][]string{
	"ScaledObject": {"advanced", "cooldownPeriod", "fallback", "idleReplicaCount", "initialCooldownPeriod", "maxReplicaCount", "minReplicaCount", "pollingInterval", "scaleTargetRef", "triggers"},
	"ScaledJob": {
		"envSourceContainerName", "failedJobsHistoryLimit", "jobTargetRef", "maxReplicaCount", "minReplicaCount", "pollingInterval", "rollout",
		"rolloutStrategy", "scalingStrategy", "successfulJobsHistoryLimit", "triggers",
	},
	"trigger": {"authenticationRef", "metadata", "metricType", "name", "type", "useCachedMetrics"},
	"aws-sqs-queue": {
		"queueURL", "queueURLFromEnv", "queueLength", "activationQueueLength", "scaleOnInFlight", "scaleOnDelayed", "awsRegion", "awsEndpoint",
	},
}

// TestScaling has what workers hold keep them.
func TestScaling(t *testing.T) {
	for _, w := range workloads(t) {
		spec, trigger := infratest.Dig(w.scaler, "spec"), infratest.Dig(w.scaler, "spec", "triggers", 0)
		metadata := infratest.Dig(trigger, "metadata").(object)
		for kind, o := range map[string]any{w.scaler["kind"].(string): spec, "trigger": trigger, "aws-sqs-queue": metadata} {
			for k := range o.(object) {
				if !slices.Contains(fields[kind], k) {
					t.Errorf("%s: %s has no %s", w.file, kind, k)
				}
			}
		}
		want := object{
			"queueURL": w.config["UPWELL_QUEUE"], "awsRegion": w.config["AWS_REGION"], "queueLength": "1000",
			"scaleOnInFlight": "true", "scaleOnDelayed": "true",
		}
		if diff := cmp.Diff(want, metadata); diff != "" {
			t.Errorf("%s: trigger differs (-want +got):\n%s", w.file, diff)
		}
		if infratest.Dig(trigger, "type") != "aws-sqs-queue" || infratest.Dig(trigger, "authenticationRef", "name") != "upwell" {
			t.Errorf("%s: trigger %v", w.file, trigger)
		}
	}
	all := read(t, "upwell.yaml")
	for kind, o := range all {
		if infratest.Dig(o, "metadata", "name") != "upwell" {
			t.Errorf("%s is named %v", kind, infratest.Dig(o, "metadata", "name"))
		}
	}
	if target := infratest.Dig(all["ScaledObject"], "spec", "scaleTargetRef", "name"); target != infratest.Dig(all["Deployment"], "metadata", "name") {
		t.Errorf("what is scaled is %v", target)
	}
	if n := infratest.Dig(all["Deployment"], "spec", "replicas"); n != nil {
		t.Errorf("replicas are %v: to apply it again would set them again", n)
	}
	if infratest.Dig(all["Deployment"], "spec", "selector", "matchLabels", "app.kubernetes.io/name") != infratest.Dig(all["Deployment"], "spec", "template", "metadata", "labels", "app.kubernetes.io/name") {
		t.Error("the Deployment does not select its pods")
	}
	down := infratest.Dig(all["ScaledObject"], "spec", "advanced", "horizontalPodAutoscalerConfig", "behavior", "scaleDown", "policies", 0)
	grace := infratest.Dig(all["Deployment"], "spec", "template", "spec", "terminationGracePeriodSeconds")
	if infratest.Dig(down, "value") != 1 || infratest.Dig(down, "periodSeconds").(int) < grace.(int) {
		t.Errorf("pods go by %v, and take %v s to go", down, grace)
	}
}

// TestJobsAreLeftToWork has neither KEDA nor an autoscaler of nodes stop a Job.
func TestJobsAreLeftToWork(t *testing.T) {
	job := read(t, "scaledjob.yaml")["ScaledJob"]
	if diff := cmp.Diff(object{"strategy": "gradual"}, infratest.Dig(job, "spec", "rollout")); diff != "" {
		t.Errorf("rollout differs (-want +got):\n%s", diff)
	}
	want := object{"cluster-autoscaler.kubernetes.io/safe-to-evict": "false", "karpenter.sh/do-not-disrupt": "true"}
	if diff := cmp.Diff(want, infratest.Dig(job, "spec", "jobTargetRef", "template", "metadata", "annotations")); diff != "" {
		t.Errorf("annotations differ (-want +got):\n%s", diff)
	}
}

// TestKEDA holds KEDA's objects to the schemas of its custom resources, which say what
// is needed and of what type, and let unknown fields pass.
func TestKEDA(t *testing.T) {
	complaints := infratest.Specification(t, os.Getenv(infratest.Installed))
	compare := func(objects ...any) string { return complaints(object{"objects": objects}) }
	all := read(t, "upwell.yaml")
	if got := compare(all["ScaledObject"], all["TriggerAuthentication"], read(t, "scaledjob.yaml")["ScaledJob"]); got != "" {
		t.Error(got)
	}
	infratest.Dig(all["ScaledObject"], "spec").(object)["minReplicaCount"] = "none"
	if got := compare(all["ScaledObject"]); !strings.Contains(got, "minReplicaCount must be integer") {
		t.Errorf("of a spoilt object it says %q", got)
	}
}
