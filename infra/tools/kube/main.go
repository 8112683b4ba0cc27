// Command kube holds manifests to the API types of Kubernetes, strictly: a field that
// they do not know is an error.
//
//	go -C infra/tools/kube run . ../../kubernetes/*.yaml
//
// Of KEDA's objects it reads the pod that a ScaledJob makes. It is a module of its own,
// so that Kubernetes is no dependency of the program.
package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/yaml"
)

func main() {
	failed := false
	for _, path := range os.Args[1:] {
		n, err := check(path)
		if err != nil {
			fmt.Fprintf(os.Stderr, "%s: %v\n", path, err)
			failed = true
			continue
		}
		fmt.Printf("%s: %d objects\n", path, n)
	}
	if failed || len(os.Args) < 2 {
		os.Exit(1)
	}
}

// check reads all documents of a file and returns how many there are.
func check(path string) (n int, err error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	docs := utilyaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(text)))
	for ; ; n++ {
		doc, err := docs.Read()
		if errors.Is(err, io.EOF) {
			return n, nil
		}
		if err == nil {
			err = decode(doc)
		}
		if err != nil {
			return n, fmt.Errorf("document %d: %w", n+1, err)
		}
	}
}

// decode reads one document as what it says it is.
func decode(doc []byte) error {
	var head struct{ APIVersion, Kind string }
	if err := yaml.Unmarshal(doc, &head); err != nil {
		return err
	}
	into := map[string]any{
		"v1 ServiceAccount":  &corev1.ServiceAccount{},
		"v1 ConfigMap":       &corev1.ConfigMap{},
		"apps/v1 Deployment": &appsv1.Deployment{},
	}[head.APIVersion+" "+head.Kind]
	switch head.Kind {
	case "ScaledObject":
		return within(doc, &autoscalingv2.HorizontalPodAutoscalerBehavior{}, "spec", "advanced", "horizontalPodAutoscalerConfig", "behavior")
	case "ScaledJob":
		return within(doc, &batchv1.JobSpec{}, "spec", "jobTargetRef")
	case "TriggerAuthentication":
		return nil
	}
	if into == nil {
		return fmt.Errorf("%s %s is not known here", head.APIVersion, head.Kind)
	}
	return yaml.UnmarshalStrict(doc, into)
}

// within reads strictly what is at a path of keys.
func within(doc []byte, into any, path ...string) error {
	var at any
	if err := yaml.Unmarshal(doc, &at); err != nil {
		return err
	}
	for _, key := range path {
		m, _ := at.(map[string]any)
		if at = m[key]; at == nil {
			return fmt.Errorf("no %s", key)
		}
	}
	text, err := json.Marshal(at)
	if err != nil {
		return err
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	return d.Decode(into)
}
