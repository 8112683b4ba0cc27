package mantlesim_test

import (
	"fmt"
	"strings"
	"testing"

	"upwell/worker/mantle/mantlesim"
)

const contract = `This Agreement is made between Northwind Ltd and Contoso GmbH.
Either party may terminate this Agreement with ninety (90) days written notice. The monthly fee is 4,500 euros.
This Agreement is governed by the laws of Denmark, and the courts of Copenhagen have jurisdiction.
The effective date is 2024-03-15. Liability is limited to the fees paid in the last 12 months.

Which notice is needed to terminate the agreement, and what law governs it?`

func TestResponseShape(t *testing.T) {
	s := mantlesim.New(mantlesim.Config{})
	v := post(s, responses, grok(contract, `,"reasoning":{"effort":"high"},"include":["reasoning.encrypted_content"],"max_output_tokens":90000,"metadata":{"custom_id":"j1"},"store":false,"top_p":0.5`)).decode(t)
	for _, tc := range []struct {
		path []any
		want any
	}{
		{[]any{"object"}, "response"},
		{[]any{"status"}, "completed"},
		{[]any{"error"}, nil},
		{[]any{"incomplete_details"}, nil},
		{[]any{"model"}, "xai.grok-4.3"},
		{[]any{"service_tier"}, "default"},
		{[]any{"store"}, false},
		{[]any{"temperature"}, 0.7},
		{[]any{"top_p"}, 0.5},
		{[]any{"max_output_tokens"}, 90000.},
		{[]any{"metadata", "custom_id"}, "j1"},
		{[]any{"reasoning", "effort"}, "high"},
		{[]any{"output", 0, "type"}, "reasoning"},
		{[]any{"output", 1, "type"}, "message"},
		{[]any{"output", 1, "role"}, "assistant"},
		{[]any{"output", 1, "status"}, "completed"},
		{[]any{"output", 1, "content", 0, "type"}, "output_text"},
		{[]any{"output", 2}, nil},
	} {
		if got := at(v, tc.path...); got != tc.want {
			t.Errorf("%v = %v, want %v", tc.path, got, tc.want)
		}
	}
	for path, prefix := range map[string]string{"id": "resp_", "output": "rs_"} {
		id, _ := at(v, path).(string)
		if path == "output" {
			id, _ = at(v, path, 0, "id").(string)
		}
		if !strings.HasPrefix(id, prefix) {
			t.Errorf("%s id = %q", path, id)
		}
	}
	if at(v, "output", 0, "encrypted_content") == nil {
		t.Error("no encrypted reasoning, although it was asked for")
	}
}

func TestCompletionShape(t *testing.T) {
	s := mantlesim.New(mantlesim.Config{})
	v := post(s, chat, grokChat(contract, `,"service_tier":"flex"`)).decode(t)
	for path, want := range map[string]any{
		"object": "chat.completion", "model": "xai.grok-4.3", "service_tier": "flex",
	} {
		if got := at(v, path); got != want {
			t.Errorf("%s = %v, want %v", path, got, want)
		}
	}
	c := at(v, "choices", 0)
	if at(c, "finish_reason") != "stop" || at(c, "message", "role") != "assistant" || at(c, "message", "refusal") != nil || at(c, "message", "content") == "" {
		t.Errorf("choice = %v", c)
	}
	if !strings.HasPrefix(at(v, "id").(string), "chatcmpl-") {
		t.Errorf("id = %v", at(v, "id"))
	}
}

// usageOf reads the usage of an answer of either API.
func usageOf(t *testing.T, a answer) (u mantlesim.Usage, total int) {
	t.Helper()
	v := a.decode(t)
	n := func(path ...any) int {
		f, ok := at(v, append([]any{"usage"}, path...)...).(float64)
		if !ok {
			t.Errorf("no usage %v in %s", path, a.Text)
		}
		return int(f)
	}
	if at(v, "object") == "response" {
		return mantlesim.Usage{Input: n("input_tokens"), Cached: n("input_tokens_details", "cached_tokens"), Output: n("output_tokens"), Reasoning: n("output_tokens_details", "reasoning_tokens")}, n("total_tokens")
	}
	return mantlesim.Usage{Input: n("prompt_tokens"), Cached: n("prompt_tokens_details", "cached_tokens"), Output: n("completion_tokens"), Reasoning: n("completion_tokens_details", "reasoning_tokens")}, n("total_tokens")
}

func TestUsageIsConsistent(t *testing.T) {
	s := mantlesim.New(mantlesim.Config{})
	var sum mantlesim.Usage
	long := strings.Repeat("The quick brown fox jumps over the lazy dog. ", 400) // 4000 tokens
	for i, body := range []string{
		grok(contract), grok(long), grok(long + "again"), grok(contract, `,"reasoning":{"effort":"none"}`), grok(contract, `,"max_output_tokens":20`),
		`{"model":"xai.grok-4.3","instructions":"` + long[:4500] + `","input":[{"role":"user","content":[{"type":"input_text","text":"` + long[:4500] + `"},{"type":"input_image","image_url":"data:image/png;base64,iVBORw0KGgoA` + strings.Repeat("A", 8988) + `"}]}]}`,
	} {
		a := post(s, responses, body)
		u, total := usageOf(t, a)
		if u.Cached > u.Input || u.Reasoning > u.Output || u.Output == 0 || total != u.Input+u.Output {
			t.Errorf("%d: usage %+v, total %d", i, u, total)
		}
		visible := float64(len(a.output(t)))/4.5 + float64(u.Reasoning)
		within(t, "output tokens", float64(u.Output), visible, 1.5)
		if e := s.Ledger()[i]; e.Usage != u || !e.Billed {
			t.Errorf("%d: ledger has %+v, the answer %+v", i, e.Usage, u)
		}
		switch i {
		case 0:
			within(t, "input", float64(u.Input), float64(len(contract))/4.5, 1)
		case 1:
			within(t, "long input", float64(u.Input), 4000, 1)
			if u.Cached != 0 {
				t.Errorf("cached %d at first sight", u.Cached)
			}
		case 2:
			within(t, "cached", float64(u.Cached), 3*1024, 0)
		case 3:
			within(t, "reasoning at effort none", float64(u.Reasoning), 0, 0)
		case 4:
			within(t, "output at its limit", float64(u.Output), 20, 0)
		case 5:
			within(t, "two parts and an image", float64(u.Input), 3000, 1)
		}
		sum = mantlesim.Usage{Input: sum.Input + u.Input, Cached: sum.Cached + u.Cached, Output: sum.Output + u.Output, Reasoning: sum.Reasoning + u.Reasoning}
	}
	if got := s.Counts().Usage; got != sum {
		t.Errorf("counts have %+v, the answers %+v", got, sum)
	}
	if u, _ := usageOf(t, post(s, responses, `{"model":"xai.grok-4.6","input":"`+long+`"}`)); u.Cached != 0 {
		t.Errorf("cached %d for another model", u.Cached)
	}
	off := mantlesim.New(mantlesim.Config{CacheTokens: -1})
	post(off, responses, grok(long))
	if u, _ := usageOf(t, post(off, responses, grok(long))); u.Cached != 0 {
		t.Errorf("cached %d with caching off", u.Cached)
	}
}

func TestCost(t *testing.T) {
	s := mantlesim.New(mantlesim.Config{})
	long := strings.Repeat("The quick brown fox jumps over the lazy dog. ", 400)
	for tier, factor := range map[string]float64{"default": 1, "flex": 0.5, "priority": 1.75} {
		post(s, responses, grok(long, `,"service_tier":"`+tier+`"`))
		e := s.Ledger()
		last := e[len(e)-1]
		u := last.Usage
		want := (float64(u.Input-u.Cached)*1.25 + float64(u.Cached)*0.20 + float64(u.Output)*2.50) * factor / 1e6
		within(t, tier, last.Cost, want, 1e-12)
		if last.Tier != tier || last.Served != tier {
			t.Errorf("tiers %q, %q", last.Tier, last.Served)
		}
	}
}

// Only the limit of the request decides: a long answer is cut, a short one not.
func TestNaturalTruncation(t *testing.T) {
	s := mantlesim.New(mantlesim.Config{Output: mantlesim.Size{Median: 100, Sigma: 0.6}})
	cut := 0
	for range 400 {
		v := post(s, responses, grok(contract, `,"max_output_tokens":100,"reasoning":{"effort":"none"}`)).decode(t)
		n := at(v, "usage", "output_tokens").(float64)
		switch at(v, "status") {
		case "incomplete":
			cut++
			if n != 100 || at(v, "incomplete_details", "reason") != "max_output_tokens" || at(v, "output", -1, "status") != "incomplete" {
				t.Fatalf("incomplete with %v tokens: %v", n, v)
			}
		case "completed":
			if n > 100 {
				t.Fatalf("completed with %v tokens", n)
			}
		}
	}
	within(t, "cut", float64(cut), 200, 50)
	v := post(s, chat, grokChat(contract, `,"max_completion_tokens":5`)).decode(t)
	if at(v, "choices", 0, "finish_reason") != "length" || at(v, "usage", "completion_tokens") != 5. {
		t.Errorf("chat = %v", v)
	}
	// Reasoning can use up all there is: no message then.
	v = post(s, responses, grok(contract, `,"max_output_tokens":5`)).decode(t)
	if at(v, "output", 0, "type") != "reasoning" || at(v, "output", 1) != nil || at(v, "status") != "incomplete" {
		t.Errorf("all reasoning = %v", v)
	}
}

func TestAnswersDiffer(t *testing.T) {
	s := mantlesim.New(mantlesim.Config{})
	text, ids, requests := map[string]bool{}, map[any]bool{}, map[string]bool{}
	for _, path := range []string{responses, chat} {
		for range 200 {
			a := post(s, path, `{"model":"xai.grok-4.3","input":"hi","messages":[{"role":"user","content":"hi"}]}`)
			text[a.output(t)], ids[at(a.decode(t), "id")], requests[a.Header.Get("X-Request-Id")] = true, true, true
		}
	}
	if len(text) != 400 || len(ids) != 400 || len(requests) != 400 {
		t.Errorf("of 400 calls: %d texts, %d ids, %d request ids", len(text), len(ids), len(requests))
	}
}

func TestSeedRepeats(t *testing.T) {
	run := func(seed uint64) (all string) {
		s := mantlesim.New(mantlesim.Config{Seed: seed, Faults: []mantlesim.Fault{{Kind: mantlesim.Internal, P: 0.5}}})
		for range 20 {
			a := post(s, responses, grok(contract, `,"text":{"format":{"type":"json_schema","name":"x","schema":`+clauses+`}}`))
			all += fmt.Sprint(a.Code, a.Header.Get("X-Request-Id"))
			if a.Code == 200 {
				all += a.output(t)
			}
		}
		return all
	}
	if first, again := run(1), run(1); first != again {
		t.Error("the same seed gave different runs")
	}
	if run(1) == run(2) {
		t.Error("different seeds gave the same run")
	}
}

func BenchmarkCall(b *testing.B) {
	for _, kb := range []int{0, 2, 250} {
		b.Run(fmt.Sprintf("%dKB", kb), func(b *testing.B) {
			s := mantlesim.New(mantlesim.Config{})
			body := grok(strings.Repeat("All good sentences come to an end. ", kb*1024/35))
			b.SetBytes(int64(len(body)))
			b.ReportAllocs()
			for b.Loop() {
				post(s, responses, body)
			}
		})
	}
	b.Run("schema", func(b *testing.B) {
		s := mantlesim.New(mantlesim.Config{})
		body := grok(contract, `,"text":{"format":{"type":"json_schema","name":"x","schema":`+clauses+`}}`)
		for b.Loop() {
			post(s, responses, body)
		}
	})
}
