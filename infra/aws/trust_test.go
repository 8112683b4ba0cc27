package aws_test

import (
	"maps"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"upwell/infra/internal/infratest"
)

// by is a condition that holds for requests on behalf of the account.
var by = object{"aws:SourceAccount": "111122223333"}

// TestTrust compares who may be a role.
func TestTrust(t *testing.T) {
	tasks := object{
		"Effect": "Allow", "Principal": object{"Service": "ecs-tasks.amazonaws.com"}, "Action": "sts:AssumeRole",
		"Condition": object{"StringEquals": by, "ArnLike": object{"aws:SourceArn": "arn:aws:ecs:us-west-2:111122223333:*"}},
	}
	want := map[string]node{
		"TaskRole": []node{tasks}, "ExecutionRole": []node{tasks},
		"SchedulerRole": []node{object{
			"Effect": "Allow", "Principal": object{"Service": "scheduler.amazonaws.com"}, "Action": "sts:AssumeRole",
			"Condition": object{"StringEquals": by},
		}},
	}
	deployed, got := deploy(t, read(t), "everything"), make(map[string]node)
	for name, r := range deployed["Resources"].(object) {
		if r.(object)["Type"] == "AWS::IAM::Role" {
			got[name] = infratest.Dig(properties(deployed, name), "AssumeRolePolicyDocument", "Statement")
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("trust differs (-want +got):\n%s", diff)
	}
}

// TestServices compares what AWS's services may do for the stack, whole.
func TestServices(t *testing.T) {
	const account = "us-west-2:111122223333:"
	roles := []node{"arn:aws:iam::111122223333:role/upwell-taskrole", "arn:aws:iam::111122223333:role/upwell-executionrole"}
	want := map[string]object{
		"QueuePolicy.BucketTellsOfObjects": {
			"Principal": object{"Service": "s3.amazonaws.com"}, "Action": "sqs:SendMessage", "Resource": "arn:aws:sqs:" + account + "upwell-queue",
			"Condition": object{"StringEquals": by, "ArnLike": object{"aws:SourceArn": "arn:aws:s3:::*"}},
		},
		"TopicPolicy.Alarms": {
			"Principal": object{"Service": "cloudwatch.amazonaws.com"}, "Action": "sns:Publish", "Resource": "arn:aws:sns:" + account + "upwell-topic",
			"Condition": object{"StringEquals": by},
		},
		"SchedulerRole.Task": {
			"Action": "ecs:RunTask", "Resource": "arn:aws:ecs:" + account + "task-definition/upwell-taskdefinition:1",
			"Condition": object{"ArnEquals": object{"ecs:cluster": "arn:aws:ecs:" + account + "cluster/upwell-cluster"}},
		},
		"SchedulerRole.Tags": {
			"Action": "ecs:TagResource", "Resource": "arn:aws:ecs:" + account + "task/upwell-cluster/*",
			"Condition": object{"StringEquals": object{"ecs:CreateAction": "RunTask"}},
		},
		"SchedulerRole.Roles": {
			"Action": "iam:PassRole", "Resource": roles,
			"Condition": object{"StringEquals": object{"iam:PassedToService": "ecs-tasks.amazonaws.com"}},
		},
		"ExecutionRole.Logs": {
			"Action":   []node{"logs:CreateLogStream", "logs:PutLogEvents"},
			"Resource": "arn:aws:logs:" + account + "log-group:upwell-loggroup:log-stream:worker/*",
		},
		"ExecutionRole.Image": {
			"Action":   []node{"ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"},
			"Resource": "arn:aws:ecr:" + account + "repository/upwell",
		},
		"ExecutionRole.Registry": {"Action": "ecr:GetAuthorizationToken", "Resource": "*"},
		"ExecutionRole.Key":      {"Action": "secretsmanager:GetSecretValue", "Resource": scenarios["everything"]["KeySecret"]},
	}
	workers := []string{"WorkerPolicy", "TaskRole"} // TestActions and TestLeastPrivilege are about these
	deployed, got := deploy(t, read(t), "everything"), make(map[string]object)
	for name := range deployed["Resources"].(object) {
		if slices.Contains(workers, name) {
			continue
		}
		for _, s := range statements(properties(deployed, name)) {
			if s["Effect"] == "Allow" {
				s = maps.Clone(s)
				delete(s, "Effect")
				got[name+"."+s["Sid"].(string)] = s
				delete(s, "Sid")
			}
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("statements differ (-want +got):\n%s", diff)
	}
}

// TestEndpointsComeFirst has the service wait for each endpoint that is made, as its
// first worker has no way out before.
func TestEndpointsComeFirst(t *testing.T) {
	tmpl := read(t)
	for scenario := range scenarios {
		deployed := deploy(t, tmpl, scenario)
		var want []string
		for name, r := range deployed["Resources"].(object) {
			if r.(object)["Type"] == "AWS::EC2::VPCEndpoint" {
				want = append(want, named(name))
			}
		}
		var got []string
		for _, v := range infratest.Dig(deployed, "Resources", "Service", "Metadata").(object) {
			for _, id := range texts(v) {
				if id != "none" {
					got = append(got, id)
				}
			}
		}
		slices.Sort(want)
		slices.Sort(got)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: the service waits for other endpoints (-made +waited for):\n%s", scenario, diff)
		}
	}
}
