package prompt_test

import (
	"fmt"
	"testing/fstest"

	"upwell/cmd/internal/prompt"
)

const greeting = `---
model: xai.grok-4.3
effort: low
system: |
  You answer letters.
---
Answer {{.name}} of {{col "Home Town"}}:
{{.letter}}
`

func Example() {
	t, err := prompt.Parse("answer.md", []byte(greeting), fstest.MapFS{})
	if err != nil {
		fmt.Println(err)
		return
	}
	row := prompt.Record{
		ID: "row-1", Place: "letters.csv:2",
		Values: map[string]any{"name": "Ada", "Home Town": "London", "letter": "Where is my engine?"},
	}
	text, err := t.Prompt(row)
	fmt.Println(text, err)
	delete(row.Values, "letter")
	_, err = t.Job(row)
	fmt.Println(err)
	// Output:
	// Answer Ada of London:
	// Where is my engine? <nil>
	// letters.csv:2: answer.md:8: {{.letter}}: there is no column letter, want one of "Home Town", name
}

func ExampleTemplate_Job() {
	t, err := prompt.Parse("answer.md", []byte("---\nmodel: xai.grok-4.3\ntemperature: 0\n---\nSay {{.word}}."), nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	line, err := t.Job(prompt.Record{ID: "row-1", Place: "words.csv:2", Values: map[string]any{"word": `"hi"`}})
	fmt.Println(string(line), err)
	// Output:
	// {"custom_id":"row-1","method":"POST","url":"/v1/responses","body":{"model":"xai.grok-4.3","input":"Say \"hi\".","temperature":0},"upwell":{"template_sha256":"41a7e216c1bf7793e982a7e59865e6a37fe5177ffdd568928cc5dc98a2ace7c4"}} <nil>
}

func ExampleTemplate_Layout() {
	t, err := prompt.Parse("answer.md", []byte(greeting), fstest.MapFS{})
	if err != nil {
		fmt.Println(err)
		return
	}
	l := t.Layout()
	fmt.Println(l.System, "of the system text,", l.Head, "before the first placeholder:", l.Shared(), "in common")
	// Output:
	// 4 of the system text, 2 before the first placeholder: 6 in common
}

func ExampleTokens() {
	fmt.Println(prompt.Tokens("Each party may terminate on ninety days' notice."))
	fmt.Println(prompt.Tokens(`{"id":17,"amount":1250.00}`))
	// Output:
	// 10
	// 12
}
