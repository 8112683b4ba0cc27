//go:build !unix

package main

// lock does nothing: without flock, keeping to one process a folder is up to the
// user.
func lock(string) (func(), error) { return func() {}, nil }
