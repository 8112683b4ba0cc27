package aws_test

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"upwell/infra/internal/infratest"
)

// TestQueues holds the queues to what the worker wants of them.
func TestQueues(t *testing.T) {
	deployed := deploy(t, read(t), "plain")
	queue, dead := properties(deployed, "Queue"), properties(deployed, "DeadQueue")
	for name, q := range map[string]object{"Queue": queue, "DeadQueue": dead} {
		want := object{"SqsManagedSseEnabled": true, "VisibilityTimeout": 120, "MessageRetentionPeriod": 14 * 86_400, "MaximumMessageSize": 1 << 20}
		for k, v := range want {
			if !cmp.Equal(q[k], v) {
				t.Errorf("%s: %s is %v, want %v", name, k, q[k], v)
			}
		}
	}
	want := object{"deadLetterTargetArn": fmt.Sprintf(arns["AWS::SQS::Queue"], named("DeadQueue")), "maxReceiveCount": 100}
	if diff := cmp.Diff(want, queue["RedrivePolicy"].(object)); diff != "" {
		t.Errorf("redrive policy differs (-want +got):\n%s", diff)
	}
	// Only the queue may have the other as its dead-letter queue.
	source := "arn:aws:sqs:us-west-2:111122223333:" + queue["QueueName"].(string)
	if diff := cmp.Diff(object{"redrivePermission": "byQueue", "sourceQueueArns": []node{source}}, dead["RedriveAllowPolicy"].(object)); diff != "" {
		t.Errorf("redrive allow policy differs (-want +got):\n%s", diff)
	}
}

// TestBucket holds the bucket to what keeps it private, and its objects.
func TestBucket(t *testing.T) {
	tmpl := read(t)
	for scenario, rules := range map[string]int{"plain": 1, "everything": 2} {
		deployed := deploy(t, tmpl, scenario)
		b := properties(deployed, "Bucket")
		for _, k := range []string{"BlockPublicAcls", "BlockPublicPolicy", "IgnorePublicAcls", "RestrictPublicBuckets"} {
			if infratest.Dig(b, "PublicAccessBlockConfiguration", k) != true {
				t.Errorf("%s: no %s", scenario, k)
			}
		}
		if infratest.Dig(b, "OwnershipControls", "Rules", 0, "ObjectOwnership") != "BucketOwnerEnforced" {
			t.Errorf("%s: ownership is not enforced", scenario)
		}
		if infratest.Dig(b, "BucketEncryption", "ServerSideEncryptionConfiguration", 0, "ServerSideEncryptionByDefault", "SSEAlgorithm") != "AES256" {
			t.Errorf("%s: no encryption", scenario)
		}
		list := many(infratest.Dig(b, "LifecycleConfiguration", "Rules"))
		if len(list) != rules {
			t.Errorf("%s: %d lifecycle rules, want %d", scenario, len(list), rules)
		}
		for _, r := range list { // none of them touches results
			if infratest.Dig(r, "ExpirationInDays") != nil && infratest.Dig(r, "Prefix") != "tables/" {
				t.Errorf("%s: expires %v", scenario, infratest.Dig(r, "Prefix"))
			}
		}
		for _, k := range []string{"DeletionPolicy", "UpdateReplacePolicy"} {
			if infratest.Dig(deployed, "Resources", "Bucket", k) != "Retain" {
				t.Errorf("%s: %s is %v, want Retain", scenario, k, infratest.Dig(deployed, "Resources", "Bucket", k))
			}
		}
	}
	inbox := infratest.Dig(properties(deploy(t, tmpl, "everything"), "Bucket"), "NotificationConfiguration", "QueueConfigurations", 0)
	if got := infratest.Dig(inbox, "Filter", "S3Key", "Rules", 0, "Value"); got != "in/contracts/" {
		t.Errorf("the queue is told of %v, want what is in in/contracts/", got)
	}
}
