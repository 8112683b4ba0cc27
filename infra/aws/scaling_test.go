package aws_test

import (
	"fmt"
	"strings"
	"testing"

	"upwell/infra/internal/infratest"
)

// step is one of a scaling policy's, from the alarm's threshold.
func step(p object, above int) (capacity int, hits int) {
	for _, s := range many(infratest.Dig(p, "StepScalingPolicyConfiguration", "StepAdjustments")) {
		s := s.(object)
		low, bounded := s["MetricIntervalLowerBound"].(int)
		high, ends := s["MetricIntervalUpperBound"].(int)
		if (!bounded || above >= low) && (!ends || above < high) {
			capacity = s["ScalingAdjustment"].(int)
			hits++
		}
	}
	return capacity, hits
}

// TestScaling computes how many workers a queue gets.
func TestScaling(t *testing.T) {
	deployed := deploy(t, read(t), "everything")
	wanted, idle := properties(deployed, "Wanted"), properties(deployed, "Idle")
	for metric, alarm := range map[string]object{"wanted": wanted, "left": idle} {
		m := many(alarm["Metrics"])
		expression := infratest.Dig(m[0], "Expression").(string)
		for i, name := range map[int]string{1: "Visible", 2: "NotVisible", 3: "Delayed"} {
			id := infratest.Dig(m[i], "Id").(string)
			if !strings.Contains(expression, id) || infratest.Dig(m[i], "MetricStat", "Metric", "MetricName") != "ApproximateNumberOfMessages"+name ||
				infratest.Dig(m[i], "MetricStat", "Metric", "Dimensions", 0, "Value") != named("Queue") || infratest.Dig(m[i], "ReturnData") != false {
				t.Errorf("%s is %q of %v", metric, expression, m[i])
			}
		}
	}
	if got := infratest.Dig(wanted, "Metrics", 0, "Expression"); got != "CEIL((visible + hidden + delayed) / 250)" {
		t.Errorf("workers wanted: %v", got)
	}
	out, in := properties(deployed, "ScaleOut"), properties(deployed, "ScaleIn")
	for _, p := range []object{out, in} {
		if infratest.Dig(p, "StepScalingPolicyConfiguration", "AdjustmentType") != "ExactCapacity" {
			t.Error("steps are not capacities")
		}
	}
	last := 0
	for n := 1; n <= 200; n++ {
		got, hits := step(out, n-wanted["Threshold"].(int))
		if hits != 1 || got > n || got < min(n*2/3, 64) || got < last {
			t.Errorf("%d workers wanted: %d, by %d steps", n, got, hits)
		}
		last = got
	}
	if got, hits := step(in, 0-idle["Threshold"].(int)); got != 0 || hits != 1 {
		t.Errorf("nothing left: %d workers, by %d steps", got, hits)
	}
	if fmt.Sprint(wanted["ComparisonOperator"], idle["ComparisonOperator"]) != "GreaterThanOrEqualToThresholdLessThanThreshold" || idle["EvaluationPeriods"] != 5 {
		t.Errorf("alarms: %v, %v of %v", wanted["ComparisonOperator"], idle["ComparisonOperator"], idle["EvaluationPeriods"])
	}
	if target := properties(deployed, "ScalableTarget"); target["MinCapacity"] != 0 || target["MaxCapacity"] != 16 || properties(deployed, "Service")["DesiredCount"] != nil {
		t.Errorf("from %v to %v workers", target["MinCapacity"], target["MaxCapacity"])
	}
}
