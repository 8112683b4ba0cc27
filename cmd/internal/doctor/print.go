package doctor

import (
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

var marks = map[Status]string{OK: "✓", Warning: "!", Failure: "✗", Skipped: "-"}

// Print writes a line for each finding, what to do on lines of their own beneath, and
// a count at the end.
func Print(w io.Writer, list []Finding) error {
	width := 0
	for _, f := range list {
		width = max(width, utf8.RuneCountInString(f.Check))
	}
	var b strings.Builder
	for _, f := range list {
		found := f.Found
		if f.Status == Skipped {
			found = "skipped: " + found
		}
		fmt.Fprintf(&b, "%s %-*s  %s\n", marks[f.Status], width, f.Check, found)
		arrow := "→"
		for line := range strings.SplitSeq(f.Fix, "\n") {
			if line != "" {
				fmt.Fprintf(&b, "  %-*s  %s %s\n", width, "", arrow, line)
			}
			if strings.HasSuffix(line, ":") {
				arrow = " " // what follows is one thing
			}
		}
	}
	fmt.Fprintf(&b, "\n%s\n", Sum(list))
	_, err := io.WriteString(w, b.String())
	return err
}

// Sum says in a line how it ended.
func Sum(list []Finding) string {
	failures, warnings, skipped := Count(list, Failure), Count(list, Warning), Count(list, Skipped)
	parts := []string{plural(failures, "failure")}
	if failures == 0 {
		parts[0] = "nothing stands in a worker's way"
	}
	if warnings > 0 {
		parts = append(parts, plural(warnings, "warning"))
	}
	if skipped > 0 {
		parts = append(parts, fmt.Sprintf("%d not examined", skipped))
	}
	return strings.Join(parts, ", ")
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
