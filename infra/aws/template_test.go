// Package aws_test checks what is deployed without deploying it: against the schemas
// of CloudFormation and IAM, and against what the program reads and logs.
package aws_test

import (
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"upwell/infra/internal/infratest"
)

// A node is a part of a template as CloudFormation's JSON form has it: functions are
// objects with one key.
type node = any

// object is a mapping of a template.
type object = map[string]node

// A template is one of CloudFormation.
type template struct {
	tree object
}

func read(t *testing.T) *template {
	t.Helper()
	text, err := os.ReadFile("upwell.yaml")
	if err != nil {
		t.Fatal(err)
	}
	tmpl, err := parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return tmpl
}

func parse(text []byte) (*template, error) {
	var doc yaml.Node
	if err := yaml.Unmarshal(text, &doc); err != nil {
		return nil, err
	}
	tree, err := plain(doc.Content[0])
	if err != nil {
		return nil, err
	}
	return &template{tree.(object)}, nil
}

// plain returns y with its tags as functions. CloudFormation knows no aliases.
func plain(y *yaml.Node) (v node, err error) {
	if y.Kind == yaml.AliasNode || y.Anchor != "" {
		return nil, fmt.Errorf("line %d: CloudFormation knows no aliases", y.Line)
	}
	switch y.Kind {
	case yaml.MappingNode:
		m := make(object)
		for i := 0; i < len(y.Content); i += 2 {
			key := y.Content[i].Value
			if _, double := m[key]; double {
				return nil, fmt.Errorf("line %d: %s is there twice", y.Line, key)
			}
			if m[key], err = plain(y.Content[i+1]); err != nil {
				return nil, err
			}
		}
		v = m
	case yaml.SequenceNode:
		list := make([]node, len(y.Content))
		for i, c := range y.Content {
			if list[i], err = plain(c); err != nil {
				return nil, err
			}
		}
		v = list
	default:
		if tag := y.ShortTag(); strings.HasPrefix(tag, "!!") {
			err = y.Decode(&v)
		} else {
			v = y.Value
		}
	}
	name, isFunction := strings.CutPrefix(y.Tag, "!")
	switch {
	case err != nil || !isFunction || strings.HasPrefix(name, "!"):
		return v, err
	case name == "Ref" || name == "Condition":
		return object{name: v}, nil
	case name == "GetAtt":
		resource, attribute, _ := strings.Cut(v.(string), ".")
		return object{"Fn::GetAtt": []node{resource, attribute}}, nil
	}
	return object{"Fn::" + name: v}, nil
}

func (t *template) part(name string) object {
	part, _ := t.tree[name].(object)
	return part
}

// typeOf returns the type of a resource.
func (t *template) typeOf(resource string) string {
	r, _ := t.part("Resources")[resource].(object)
	text, _ := r["Type"].(string)
	return text
}

// call returns the function that v is, or nothing.
func call(v node) (name string, arg node) {
	m, ok := v.(object)
	if !ok || len(m) != 1 {
		return "", nil
	}
	for k, arg := range m {
		if k == "Ref" || k == "Condition" && isText(arg) || strings.HasPrefix(k, "Fn::") {
			return k, arg
		}
	}
	return "", nil
}

func isText(v node) bool { _, ok := v.(string); return ok }

// values are those of a template's parameters, as they are given on a command line.
type values map[string]string

// pseudo are the parameters that each template has.
var pseudo = map[string]string{
	"AWS::AccountId": "111122223333", "AWS::Region": "us-west-2", "AWS::Partition": "aws",
	"AWS::StackName": "upwell", "AWS::URLSuffix": "amazonaws.com",
}

// refs are what a Ref of a resource returns, by its type; else it is a name.
var refs = map[string]string{
	"AWS::SQS::Queue":                            "https://sqs.us-west-2.amazonaws.com/111122223333/%s",
	"AWS::IAM::ManagedPolicy":                    "arn:aws:iam::111122223333:policy/%s",
	"AWS::SNS::Topic":                            "arn:aws:sns:us-west-2:111122223333:%s",
	"AWS::ECS::TaskDefinition":                   "arn:aws:ecs:us-west-2:111122223333:task-definition/%s:1",
	"AWS::ECS::Service":                          "arn:aws:ecs:us-west-2:111122223333:service/cluster/%s",
	"AWS::ApplicationAutoScaling::ScalingPolicy": "arn:aws:autoscaling:us-west-2:111122223333:scalingPolicy:1:resource/ecs/service/%s",
}

// arns are the ARNs of resources, by type.
var arns = map[string]string{
	"AWS::SQS::Queue":   "arn:aws:sqs:us-west-2:111122223333:%s",
	"AWS::S3::Bucket":   "arn:aws:s3:::%s",
	"AWS::IAM::Role":    "arn:aws:iam::111122223333:role/%s",
	"AWS::ECS::Cluster": "arn:aws:ecs:us-west-2:111122223333:cluster/%s",
}

// named is the name that a resource gets.
func named(resource string) string { return "upwell-" + strings.ToLower(resource) }

// A resolver computes a template's functions.
type resolver struct {
	t      *template
	values values
	errs   []string
}

// none is what AWS::NoValue is: it takes with it what it is the value of.
type none struct{}

// resolve returns the template as it is deployed with the given parameters, without
// functions, and without resources whose condition does not hold.
func (t *template) resolve(given values) (object, []string) {
	r := &resolver{t: t, values: make(values)}
	for name, p := range t.part("Parameters") {
		p := p.(object)
		value, ok := given[name]
		if !ok && p["Default"] != nil {
			value, ok = fmt.Sprint(p["Default"]), true
		}
		if !ok {
			r.errs = append(r.errs, "parameter without a value: "+name)
		}
		r.values[name] = value
		r.allowed(name, p, value)
	}
	for name := range given {
		if t.part("Parameters")[name] == nil {
			r.errs = append(r.errs, "no such parameter: "+name)
		}
	}
	for name, rule := range t.part("Rules") {
		rule := rule.(object)
		if !r.truth(rule["RuleCondition"]) {
			continue
		}
		for _, a := range rule["Assertions"].([]node) {
			if !r.truth(a.(object)["Assert"]) {
				r.errs = append(r.errs, fmt.Sprintf("rule %s: %v", name, a.(object)["AssertDescription"]))
			}
		}
	}
	out := object{"AWSTemplateFormatVersion": t.tree["AWSTemplateFormatVersion"]}
	for _, part := range []string{"Resources", "Outputs"} {
		made := make(object)
		for name, v := range t.part(part) {
			v := v.(object)
			if c, ok := v["Condition"].(string); ok && !r.condition(c) {
				continue
			}
			made[name] = r.value(v)
			delete(made[name].(object), "Condition")
		}
		out[part] = made
	}
	return out, r.errs
}

// allowed notes a value that the parameter does not take.
func (r *resolver) allowed(name string, p object, value string) {
	if list, ok := p["AllowedValues"].([]node); ok && !slices.ContainsFunc(list, func(v node) bool { return fmt.Sprint(v) == value }) {
		r.errs = append(r.errs, fmt.Sprintf("parameter %s: %q is not allowed", name, value))
	}
	if pattern, ok := p["AllowedPattern"].(string); ok && !regexp.MustCompile(pattern).MatchString(value) {
		r.errs = append(r.errs, fmt.Sprintf("parameter %s: %q does not match %s", name, value, pattern))
	}
	n, err := strconv.ParseFloat(value, 64)
	if low, ok := p["MinValue"].(int); ok && (err != nil || n < float64(low)) {
		r.errs = append(r.errs, fmt.Sprintf("parameter %s: %s is below %d", name, value, low))
	}
	if high, ok := p["MaxValue"].(int); ok && (err != nil || n > float64(high)) {
		r.errs = append(r.errs, fmt.Sprintf("parameter %s: %s is above %d", name, value, high))
	}
}

func (r *resolver) fail(format string, args ...any) node {
	r.errs = append(r.errs, fmt.Sprintf(format, args...))
	return ""
}

// value computes v.
func (r *resolver) value(v node) node {
	if name, arg := call(v); name != "" {
		return r.function(name, arg)
	}
	switch v := v.(type) {
	case object:
		out := make(object)
		for k, inner := range v {
			if made := r.value(inner); made != node(none{}) {
				out[k] = made
			}
		}
		return out
	case []node:
		out := []node{}
		for _, inner := range v {
			if made := r.value(inner); !isNone(made) {
				out = append(out, made)
			}
		}
		return out
	}
	return v
}

func isNone(v node) bool { _, ok := v.(none); return ok }

func (r *resolver) function(name string, arg node) node {
	switch name {
	case "Ref":
		return r.ref(arg.(string))
	case "Fn::GetAtt":
		return r.attribute(arg.([]node)[0].(string), arg.([]node)[1].(string))
	case "Fn::Sub":
		return substituted.ReplaceAllStringFunc(arg.(string), func(ref string) string {
			target := ref[2 : len(ref)-1]
			if resource, attribute, ok := strings.Cut(target, "."); ok {
				return fmt.Sprint(r.attribute(resource, attribute))
			}
			return fmt.Sprint(r.ref(target))
		})
	case "Fn::Join":
		var texts []string
		for _, v := range r.list(arg.([]node)[1]) {
			texts = append(texts, fmt.Sprint(v))
		}
		return strings.Join(texts, arg.([]node)[0].(string))
	case "Fn::If":
		a := arg.([]node)
		if r.condition(a[0].(string)) {
			return r.value(a[1])
		}
		return r.value(a[2])
	}
	return r.fail("function %s is not known here", name)
}

// substituted is what Fn::Sub replaces.
var substituted = regexp.MustCompile(`\$\{[^!}][^}]*\}`)

func (r *resolver) list(v node) []node {
	list, ok := r.value(v).([]node)
	if !ok {
		r.fail("%v is no list", v)
	}
	return list
}

func (r *resolver) ref(name string) node {
	if name == "AWS::NoValue" {
		return none{}
	}
	if text, ok := pseudo[name]; ok {
		return text
	}
	if p, ok := r.t.part("Parameters")[name].(object); ok {
		switch kind, _ := p["Type"].(string); {
		case kind == "Number":
			n, err := strconv.Atoi(r.values[name])
			if err != nil {
				return r.fail("parameter %s: %v", name, err)
			}
			return n
		case kind == "CommaDelimitedList" || strings.HasPrefix(kind, "List<"):
			list := []node{}
			for part := range strings.SplitSeq(r.values[name], ",") {
				list = append(list, strings.TrimSpace(part))
			}
			return list
		}
		return r.values[name]
	}
	kind := r.t.typeOf(name)
	if kind == "" {
		return r.fail("reference to nothing: %s", name)
	}
	if format, ok := refs[kind]; ok {
		return fmt.Sprintf(format, named(name))
	}
	return named(name)
}

func (r *resolver) attribute(resource, attribute string) node {
	kind := r.t.typeOf(resource)
	switch {
	case kind == "":
		return r.fail("attribute of nothing: %s.%s", resource, attribute)
	case attribute == "Arn" && arns[kind] != "":
		return fmt.Sprintf(arns[kind], named(resource))
	case attribute == "QueueName" || attribute == "Name":
		return named(resource)
	}
	return r.fail("attribute %s.%s is not known here", resource, attribute)
}

func (r *resolver) condition(name string) bool {
	c, ok := r.t.part("Conditions")[name]
	if !ok {
		r.fail("no such condition: %s", name)
		return false
	}
	return r.truth(c)
}

// truth computes a condition.
func (r *resolver) truth(v node) bool {
	name, arg := call(v)
	switch name {
	case "Condition":
		return r.condition(arg.(string))
	case "Fn::Not":
		return !r.truth(arg.([]node)[0])
	case "Fn::Equals":
		a := arg.([]node)
		return fmt.Sprint(r.value(a[0])) == fmt.Sprint(r.value(a[1]))
	case "Fn::EachMemberEquals": // rules alone have it
		a := arg.([]node)
		return !slices.ContainsFunc(r.value(a[0]).([]node), func(v node) bool { return v != r.value(a[1]) })
	case "Fn::And":
		return !slices.ContainsFunc(arg.([]node), func(v node) bool { return !r.truth(v) })
	case "Fn::Or":
		return slices.ContainsFunc(arg.([]node), r.truth)
	}
	r.fail("%v is no condition", v)
	return false
}

// required are the parameters without a default.
var required = values{
	"Image": "111122223333.dkr.ecr.us-west-2.amazonaws.com/upwell@sha256:0", "VpcId": "vpc-1", "SubnetIds": "subnet-1,subnet-2",
}

// scenarios are deployments that between them use all that the template has.
var scenarios = map[string]values{
	"plain": {},
	"everything": {
		"Architecture": "ARM64", "AssignPublicIp": "ENABLED", "VpcEndpoints": "true", "RouteTableIds": "rtb-1,rtb-2",
		"Models": "xai.grok-4.3,openai.gpt-oss-120b", "Tiers": "flex", "Regions": "us-west-2,us-east-1", "Auth": "key",
		"KeySecret": "arn:aws:secretsmanager:us-west-2:111122223333:secret:bedrock-Ab1Cd2", "MaxOutputTokens": "4000",
		"MaxTasks": "16", "JobsPerTask": "250", "IdleMinutes": "5", "Spot": "true", "Cpu": "1024", "Memory": "2048", "Slots": "500", "MaxHeldMiB": "256",
		"ConfigFile": "/etc/upwell.json", "LogLevel": "debug", "Prefix": "team/a", "ExpireTablesAfterDays": "90", "LogDays": "7",
		"InboxPrefix": "in/contracts", "Template": "/templates/review.md",
		"AlarmEmail": "ops@example.org", "AlarmTopic": "arn:aws:sns:us-west-2:111122223333:ops", "OldestMessageSeconds": "3600",
		"Schedule": "cron(0 2 * * ? *)", "ScheduleTimezone": "Europe/Berlin", "ScheduleRun": "tickets",
	},
	"two Regions, two models": {
		"Models": "xai.grok-4.3,openai.gpt-oss-120b", "Tiers": "flex", "Regions": "us-west-2,us-east-1",
		"VpcEndpoints": "true", "RouteTableIds": "rtb-1",
	},
	"short-term keys, another registry": {"Auth": "short-term", "Repository": "", "Image": "registry.example.org/upwell:1"},
}

// deploy resolves a scenario.
func deploy(t *testing.T, tmpl *template, name string) object {
	t.Helper()
	given := maps.Clone(required)
	maps.Copy(given, scenarios[name])
	out, errs := tmpl.resolve(given)
	for _, err := range errs {
		t.Errorf("%s: %s", name, err)
	}
	return out
}

// properties returns those of a resource.
func properties(deployed object, resource string) object {
	m, _ := infratest.Dig(deployed, "Resources", resource, "Properties").(object)
	return m
}
