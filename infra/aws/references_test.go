package aws_test

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"upwell/infra/internal/infratest"
)

// mentions lists what a template refers to: parameters and resources, and conditions.
type mentions struct {
	names, conditions map[string]bool
	attributes        map[[2]string]bool // type and attribute
}

func (t *template) mentions() *mentions {
	m := &mentions{make(map[string]bool), make(map[string]bool), make(map[[2]string]bool)}
	for _, part := range []string{"Conditions", "Rules", "Resources", "Outputs"} {
		m.visit(t, t.part(part))
	}
	for _, part := range []string{"Resources", "Outputs"} {
		for _, v := range t.part(part) {
			if c, ok := v.(object)["Condition"].(string); ok {
				m.conditions[c] = true
			}
			switch on := v.(object)["DependsOn"].(type) {
			case string:
				m.names[on] = true
			case []node:
				for _, name := range on {
					m.names[name.(string)] = true
				}
			}
		}
	}
	return m
}

func (m *mentions) target(t *template, text string) {
	name, attribute, ok := strings.Cut(text, ".")
	m.names[name] = true
	if ok {
		m.attributes[[2]string{t.typeOf(name), attribute}] = true
	}
}

func (m *mentions) visit(t *template, v node) {
	switch name, arg := call(v); name {
	case "Ref":
		m.names[arg.(string)] = true
		return
	case "Condition":
		m.conditions[arg.(string)] = true
		return
	case "Fn::If":
		m.conditions[arg.([]node)[0].(string)] = true
	case "Fn::GetAtt":
		m.target(t, fmt.Sprintf("%v.%v", arg.([]node)[0], arg.([]node)[1]))
		return
	case "Fn::Sub":
		for _, ref := range substituted.FindAllString(arg.(string), -1) {
			m.target(t, ref[2:len(ref)-1])
		}
		return
	}
	switch v := v.(type) {
	case object:
		for _, inner := range v {
			m.visit(t, inner)
		}
	case []node:
		for _, inner := range v {
			m.visit(t, inner)
		}
	}
}

// untidy lists references to nothing, and what nothing refers to.
func (t *template) untidy() (list []string) {
	m := t.mentions()
	for name := range m.names {
		_, known := pseudo[name]
		if !known && name != "AWS::NoValue" && t.part("Parameters")[name] == nil && t.typeOf(name) == "" {
			list = append(list, "reference to nothing: "+name)
		}
	}
	for name := range m.conditions {
		if t.part("Conditions")[name] == nil {
			list = append(list, "no such condition: "+name)
		}
	}
	for name := range t.part("Conditions") {
		if !m.conditions[name] {
			list = append(list, "condition that nothing asks for: "+name)
		}
	}
	for name := range t.part("Parameters") {
		if !m.names[name] {
			list = append(list, "parameter that nothing uses: "+name)
		}
	}
	slices.Sort(list)
	return list
}

func TestReferences(t *testing.T) {
	tmpl := read(t)
	for _, complaint := range tmpl.untidy() {
		t.Error(complaint)
	}
	for name := range scenarios {
		deploy(t, tmpl, name)
	}
}

// TestReferencesNotices shows that TestReferences has eyes.
func TestReferencesNotices(t *testing.T) {
	tmpl, err := parse([]byte(`
Parameters: {Used: {Type: String}, Unused: {Type: String}}
Conditions: {Asked: !Equals [!Ref Used, ""], Unasked: !Equals [!Ref Used, a]}
Resources:
  A: {Type: "AWS::SQS::Queue", Condition: Missing, DependsOn: Gone, Properties: {QueueName: !Sub "${Nothing}-${A.Arn}-${!Literal}"}}
  B: {Type: "AWS::SQS::Queue", Properties: {QueueName: !If [Asked, !GetAtt Nobody.Arn, !Ref AWS::NoValue]}}
`))
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"condition that nothing asks for: Unasked", "no such condition: Missing", "parameter that nothing uses: Unused",
		"reference to nothing: Gone", "reference to nothing: Nobody", "reference to nothing: Nothing",
	}
	if diff := cmp.Diff(want, tmpl.untidy()); diff != "" {
		t.Errorf("complaints differ (-want +got):\n%s", diff)
	}
	if _, err := parse([]byte("a: &x 1\nb: *x\n")); err == nil {
		t.Error("an alias is taken")
	}
}

// TestScenariosAreComplete has each condition hold in one scenario and not in another.
func TestScenariosAreComplete(t *testing.T) {
	tmpl := read(t)
	for name := range tmpl.part("Conditions") {
		seen := make(map[bool]bool)
		for _, given := range scenarios {
			r := &resolver{t: tmpl, values: make(values)}
			for p, v := range tmpl.part("Parameters") {
				r.values[p] = fmt.Sprint(v.(object)["Default"])
			}
			maps.Copy(r.values, given)
			seen[r.condition(name)] = true
		}
		if len(seen) != 2 {
			t.Errorf("condition %s is always %t", name, seen[true])
		}
	}
}

// TestRules gives parameters that make no sense together.
func TestRules(t *testing.T) {
	tmpl := read(t)
	for _, tt := range []struct {
		given values
		rule  string
	}{
		{values{"InboxPrefix": "in"}, "InboxNeedsTemplate"},
		{values{"Auth": "key"}, "KeyNeedsSecret"},
		{values{"KeySecret": "arn:aws:secretsmanager:us-west-2:111122223333:secret:a-Ab1Cd2"}, "SecretNeedsKey"},
		{values{"VpcEndpoints": "true"}, "EndpointsNeedRouteTables"},
		{values{"VpcEndpoints": "true", "RouteTableIds": ","}, "EndpointsNeedRouteTables"},
		{values{"KeySecret": "arn:aws:secretsmanager:us-west-2:111122223333:secret:bedrock", "Auth": "key"}, "does not match"},
		{values{"ScheduleRun": `a"]}]}`}, "does not match"},
		{values{"Prefix": "/team/"}, "does not match"},
		{values{"KeySecret": "ABSKsecret", "Auth": "key"}, "does not match"},
	} {
		maps.Copy(tt.given, required)
		if _, errs := tmpl.resolve(tt.given); len(errs) != 1 || !strings.Contains(errs[0], tt.rule) {
			t.Errorf("%v: %q, want a complaint by %s", tt.given, errs, tt.rule)
		}
	}
}

// TestForm looks at the template as a form to fill in, and as a request.
func TestForm(t *testing.T) {
	tmpl := read(t)
	var grouped []string
	for _, g := range infratest.Dig(tmpl.tree, "Metadata", "AWS::CloudFormation::Interface", "ParameterGroups").([]node) {
		for _, name := range g.(object)["Parameters"].([]node) {
			grouped = append(grouped, name.(string))
		}
	}
	slices.Sort(grouped)
	if diff := cmp.Diff(slices.Sorted(maps.Keys(tmpl.part("Parameters"))), grouped); diff != "" {
		t.Errorf("parameters and those in groups differ (-want +got):\n%s", diff)
	}
	for name, p := range tmpl.part("Parameters") {
		if text, _ := p.(object)["Description"].(string); text == "" || !strings.HasSuffix(text, ".") && !strings.Contains(text, "...") {
			t.Errorf("parameter %s: description %q", name, text)
		}
		if _, ok := required[name]; ok == (p.(object)["Default"] != nil) {
			t.Errorf("parameter %s: needed: %t, and has a default: %t", name, ok, !ok)
		}
	}
	info, err := os.Stat("upwell.yaml")
	if err != nil {
		t.Fatal(err)
	}
	const most = 51_200 // of a template that is not in S3, in bytes
	if info.Size() > most {
		t.Errorf("%d bytes, want %d at most", info.Size(), most)
	}
}
