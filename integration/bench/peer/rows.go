package main

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// A row of the comparison: what was counted, and how much of it.
type row struct {
	what  string
	short string // for the picture; a row without it is not there
	more  bool   // is better

	scenario, number, format string // where it is from

	// program and other are who played, and which scenario, in the second column
	// where that is not "connect" and the same.
	program, other string

	upwell, connect cell
}

// A cell is a number and how it is written; not measured, it is empty.
type cell struct {
	n    float64
	text string
}

var allRows = []row{
	{
		what:  "processor time per job, SQS, S3 and the call included, 2 KB prompts",
		short: "processor time per job", scenario: "cpu", number: "cpu", format: "%.2f ms",
	},
	{
		what:  "jobs/s; 256 slots, calls of 200 ms, 20 ms to SQS and S3: 1,280 possible",
		short: "jobs/s, 20 ms to SQS and S3", more: true, scenario: "rate", number: "rate", format: "%.0f",
	},
	{
		what:  "12,800 calls, same runs: on a new TCP connection",
		short: "calls on a new TCP connection", scenario: "rate", number: "fresh", format: "%.0f %%",
	},
	{
		what:  "peak memory, 3,000 prompts of 250 KB, 256 slots, calls of 2 s",
		short: "peak memory, 250 KB prompts", scenario: "memory", number: "peak", format: "%.0f MB",
	},
	{
		what:  "jobs/s, same runs: 128 possible",
		short: "jobs/s, same runs", more: true, scenario: "memory", number: "rate", format: "%.0f",
	},
	{what: "processor time per job, same runs", scenario: "memory", number: "cpu", format: "%.1f ms"},
	{
		what:  "5,000 jobs at a hidden 200 calls/s, from cold: 25 s possible",
		short: "5,000 jobs at a hidden 200 calls/s", scenario: "hidden", number: "seconds", format: "%.1f s",
	},
	{
		what:  "calls refused, same runs",
		short: "calls refused, same runs", scenario: "hidden", number: "refused", format: "%.0f",
	},
	{what: "jobs dead-lettered, same runs", scenario: "hidden", number: "dead", format: "%.0f"},
	{
		what:  "jobs dead-lettered when Connect gives refused jobs back to the queue (`reject_errored`, 5 receives)",
		short: "dead-lettered, Connect without retry", scenario: "hidden", number: "dead", format: "%.0f", program: "nack",
	},
	{what: "the 5,000 once the limit is known: upwell remembers it, Connect's `rate_limit` is told it", scenario: "known", number: "seconds", format: "%.1f s"},
	{what: "calls refused, same runs", scenario: "known", number: "refused", format: "%.0f"},
	{what: "SIGTERM with 100 calls of 20 s in flight, then a restart: calls for the 100 jobs", scenario: "term", number: "calls", format: "%.0f"},
	{
		what:  "the same with Connect's default `shutdown_timeout`",
		short: "calls for 100 jobs, default SIGTERM", scenario: "term", number: "calls", format: "%.0f", other: "term20",
	},
	{what: "SIGKILL of one of two workers, 256 slots each, 5,000 jobs: lost", scenario: "kill", number: "lost", format: "%.0f"},
	{what: "calls paid for again, same runs", scenario: "kill", number: "repeated", format: "%.0f"},
	{
		what:  "results overwritten with another answer, same runs",
		short: "results overwritten after SIGKILL", scenario: "kill", number: "doubled", format: "%.0f",
	},
	{
		what:  "from the kill to the last answer, same runs",
		short: "from SIGKILL to the last answer", scenario: "kill", number: "took", format: "%.0f s",
	},
}

// rows makes the table of a record. What was not run is left out.
func (rec *record) rows() (rows []row) {
	for _, r := range allRows {
		r.upwell = rec.cell(r.scenario, "upwell", r.number, r.format)
		r.connect = rec.cell(cmp.Or(r.other, r.scenario), cmp.Or(r.program, "connect"), r.number, r.format)
		if r.upwell.text != "" && r.connect.text != "" {
			rows = append(rows, r)
		}
	}
	return rows
}

// cell is the median of a number over the runs of a scenario that were not disturbed
// (over all if all were), with the least and the most if they differ.
func (rec *record) cell(scenario, program, number, format string) cell {
	var all, calm []float64
	for _, r := range rec.Runs {
		if r.Scenario == scenario && r.Program == program {
			all = append(all, r.Numbers[number])
			if r.Numbers["others"] < noise {
				calm = append(calm, r.Numbers[number])
			}
		}
	}
	if len(calm) > 0 {
		all = calm
	}
	if len(all) == 0 {
		return cell{}
	}
	slices.Sort(all)
	m := median(all)
	c := cell{m, thousands(fmt.Sprintf(format, m))}
	bare, _, _ := strings.Cut(format, " ") // without the unit
	low, high := thousands(fmt.Sprintf(bare, all[0])), thousands(fmt.Sprintf(bare, all[len(all)-1]))
	if low != high {
		c.text += fmt.Sprintf(" (%s–%s)", low, high)
	}
	return c
}

// median is that of sorted numbers.
func median(sorted []float64) float64 {
	n := len(sorted)
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}

// thousands puts a comma into a number of four to six digits at the start of text.
func thousands(text string) string {
	digits := strings.IndexFunc(text, func(r rune) bool { return r < '0' || r > '9' })
	if digits < 0 {
		digits = len(text)
	}
	if digits < 4 || digits > 6 {
		return text
	}
	return text[:digits-3] + "," + text[digits-3:]
}

// table writes rows in Markdown.
func (rec *record) table(rows []row) string {
	var b strings.Builder
	fmt.Fprintf(&b, "| on the same work | upwell | Redpanda Connect %s |\n|---|---|---|\n", rec.Connect)
	for _, r := range rows {
		fmt.Fprintf(&b, "| %s | %s | %s |\n", r.what, r.upwell.text, r.connect.text)
	}
	return b.String()
}
