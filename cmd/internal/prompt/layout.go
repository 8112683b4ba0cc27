package prompt

import (
	"strings"
	"text/template/parse"
)

// A Layout says how much of a template's prompts is the same in all of them, in about
// so many tokens, as [Tokens] counts.
type Layout struct {
	System int // the system text and the playbook
	Schema int // the answer's schema, which the endpoint makes a part of the prompt
	Head   int // of the body, before its first placeholder
	Tail   int // of the body, constant as well, but behind a placeholder
}

// Shared returns how many tokens the prompts have in common from their beginning on:
// what a prompt cache can serve.
func (l Layout) Shared() int { return l.System + l.Schema + l.Head }

// Late reports whether most of what is constant stands behind a placeholder, where no
// cache finds it.
func (l Layout) Late() bool { return l.Tail > l.Shared() }

// Layout returns the layout of the template's prompts.
func (t *Template) Layout() Layout { return t.layout }

// layoutOf counts t's constant text. What stands within an if or a range counts for
// nothing, as not every prompt has it.
func layoutOf(t *Template) Layout {
	var head, tail strings.Builder
	into := &head
	for _, n := range t.body.Root.Nodes {
		if text, ok := n.(*parse.TextNode); ok {
			into.Write(text.Text)
		} else {
			into = &tail
		}
	}
	return Layout{Tokens(t.system), Tokens(string(t.schema)), Tokens(head.String()), Tokens(tail.String())}
}
