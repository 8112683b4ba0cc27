package main

import "runtime/debug"

const (
	// besideHeld is what a worker needs beside the prompts it holds, in bytes:
	// connections, requests under way, and room for the collector to work in.
	besideHeld = 40 << 20

	// lazyGC lets garbage grow to four times the live heap before it is
	// collected. With small prompts the live heap is some ten megabytes, and a
	// fifth of the processor time would otherwise go into collecting it; with
	// large ones the memory limit calls the collector earlier.
	lazyGC = 400
)

// tuneMemory sets the collector up for a worker that holds so many MiB of prompts,
// unless the operator has done so with Go's own variables.
func tuneMemory(heldMiB int, getenv func(string) string) {
	if getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(int64(heldMiB)<<20 + besideHeld)
	}
	if getenv("GOGC") == "" {
		debug.SetGCPercent(lazyGC)
	}
}
