package aws_test

import (
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/awslabs/goformation/v7"

	"upwell/infra/internal/infratest"
)

// newer are properties that goformation's schema, of April 2024, does not know yet,
// by resource. TestSpecification holds them to AWS's own of 2026.
var newer = map[string][]string{
	"Service": {"AvailabilityZoneRebalancing"},
}

// encoded returns the deployed template as JSON, without what is newer than the schema.
func encoded(t *testing.T, deployed object) []byte {
	t.Helper()
	text, err := json.Marshal(deployed)
	if err != nil {
		t.Fatal(err)
	}
	var again object
	if err := json.Unmarshal(text, &again); err != nil {
		t.Fatal(err)
	}
	for resource, list := range newer {
		for _, name := range list {
			p := properties(again, resource)
			if p[name] == nil {
				t.Errorf("%s has no %s: strike it from the list", resource, name)
			}
			delete(p, name)
		}
	}
	if text, err = json.Marshal(again); err != nil {
		t.Fatal(err)
	}
	return text
}

// TestSchema holds each resource to CloudFormation's schema.
func TestSchema(t *testing.T) {
	tmpl := read(t)
	for name := range scenarios {
		deployed := deploy(t, tmpl, name)
		got, err := goformation.ParseJSON(encoded(t, deployed))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if len(got.Resources) != len(deployed["Resources"].(object)) {
			t.Errorf("%s: %d resources, want %d", name, len(got.Resources), len(deployed["Resources"].(object)))
		}
	}
}

// TestSchemaNotices shows that TestSchema has eyes.
func TestSchemaNotices(t *testing.T) {
	tmpl := read(t)
	for what, spoil := range map[string]func(deployed object){
		"unknown property":        func(d object) { properties(d, "Queue")["Visibility"] = 1 },
		"unknown property within": func(d object) { properties(d, "Service")["DeploymentConfiguration"].(object)["Most"] = 1 },
		"text for a number":       func(d object) { properties(d, "Queue")["VisibilityTimeout"] = "a while" },
		"unknown type":            func(d object) { d["Resources"].(object)["Queue"].(object)["Type"] = "AWS::SQS::Row" },
	} {
		deployed := deploy(t, tmpl, "plain")
		spoil(deployed)
		got, err := goformation.ParseJSON(encoded(t, deployed))
		if err == nil {
			_, custom := got.Resources["Queue"].(interface{ AWSCloudFormationType() string })
			if !custom || got.Resources["Queue"].AWSCloudFormationType() == "AWS::SQS::Queue" {
				t.Errorf("%s: it is taken", what)
			}
		}
	}
}

// TestSpecification holds resources, attributes and policies to AWS's own definitions.
func TestSpecification(t *testing.T) {
	complaints := infratest.Specification(t, os.Getenv(infratest.Installed))
	compare := func(deployed object, attributes [][2]string) []string {
		out := complaints(object{"template": deployed, "attributes": attributes})
		return strings.FieldsFunc(out, func(r rune) bool { return r == '\n' })
	}
	tmpl := read(t)
	var attributes [][2]string
	for a := range tmpl.mentions().attributes {
		attributes = append(attributes, a)
	}
	for name := range scenarios {
		for _, complaint := range compare(deploy(t, tmpl, name), attributes) {
			t.Errorf("%s: %s", name, complaint)
		}
	}

	// And it has eyes.
	deployed := deploy(t, tmpl, "plain")
	properties(deployed, "Queue")["Visibility"] = 1
	properties(deployed, "Service")["AvailabilityZoneRebalancing"] = "SOMETIMES"
	properties(deployed, "Bucket")["PublicAccessBlockConfiguration"].(object)["BlockPublicAcls"] = "yes"
	delete(properties(deployed, "ScalableTarget"), "MaxCapacity")
	statement := func(i int) object {
		return infratest.Dig(properties(deployed, "WorkerPolicy"), "PolicyDocument", "Statement", i).(object)
	}
	statement(0)["Action"] = []node{"sqs:TakeMessage"}
	statement(1)["Resource"] = "arn:aws:s3:::bucket"
	statement(3)["Resource"] = "*"
	statement(4)["Condition"].(object)["StringEquals"].(object)["bedrock-mantle:Modell"] = "x"
	got := compare(deployed, [][2]string{{"AWS::SQS::Queue", "ARN"}})
	slices.Sort(got)
	want := []string{
		`AWS::SQS::Queue: no attribute ARN`,
		`Bucket.PublicAccessBlockConfiguration.BlockPublicAcls: "yes", want boolean`,
		`Queue.Visibility: unknown`,
		`ScalableTarget.MaxCapacity: missing`,
		`Service.AvailabilityZoneRebalancing: SOMETIMES, want one of ENABLED, DISABLED`,
		`WorkerPolicy.PolicyDocument.Calls: bedrock-mantle:CreateInference knows no condition bedrock-mantle:Modell`,
		`WorkerPolicy.PolicyDocument.DeadLetters: sqs:GetQueueAttributes is not for arn:aws:s3:::bucket`,
		`WorkerPolicy.PolicyDocument.DeadLetters: sqs:GetQueueUrl is not for arn:aws:s3:::bucket`,
		`WorkerPolicy.PolicyDocument.DeadLetters: sqs:SendMessage is not for arn:aws:s3:::bucket`,
		`WorkerPolicy.PolicyDocument.Jobs: no such action: sqs:TakeMessage`,
		`WorkerPolicy.PolicyDocument.WhatIsThere: s3:ListBucket on *`,
	}
	if !slices.Equal(got, want) {
		t.Errorf("of a spoilt template it says\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}
