package document_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"upwell/cmd/internal/document"
)

// script writes a program that stands in for pdftotext.
func script(t *testing.T, body string) string {
	t.Helper()
	if runtime.GOOS == "windows" {
		t.Skip("needs a shell")
	}
	name := filepath.Join(t.TempDir(), "pdftotext")
	if err := os.WriteFile(name, []byte("#!/bin/sh\n"+body+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	return name
}

// page has enough text to pass the gate.
const page = "This page has quite enough text to be one that was written and not scanned."

func TestPDFToTextPrograms(t *testing.T) {
	for _, c := range []struct {
		name, body string
		timeout    time.Duration
		text, want string // the text, or the reason
	}{
		{name: "pages", body: `printf '` + page + `\fAnd more.\f'`, text: page + "\n\nAnd more.\n"},
		{name: "options", body: `printf '%s in order of the options of ` + page + `\f' "$*"`, text: "-layout -enc UTF-8 - - in order of the options of " + page + "\n"},
		{name: "stdin", body: `head -c 8; printf ' ` + page + `\f'`, text: "%PDF-1.6 " + page + "\n"},
		{name: "not UTF-8", body: `printf '` + page + page + ` \200\f'`, text: page + page + " \ufffd\n"},
		{name: "no text", body: `printf '\f\f'`, want: "no text in it: 2 pages; if they show some, it is drawn as shapes"},
		{name: "password", body: `echo 'Command Line Error: Incorrect password' >&2; exit 1`, want: "encrypted with a password"},
		{name: "permission", body: `echo 'Copying of text from this document is not allowed: Permission' >&2; exit 3`, want: "its owner does not allow"},
		{name: "damaged", body: `echo 'Syntax Error: one' >&2; echo 'Syntax Error: two' >&2; exit 1`, want: `pdftotext said "Syntax Error: two"`},
		{name: "talkative", body: `yes 'Syntax Warning: x' | head -c 1000000 >&2; printf '` + page + `\f'`, text: page + "\n"},
		{name: "long complaint", body: `yes x | tr -d '\n' | head -c 1000000 >&2; exit 1`, want: strings.Repeat("x", 200) + "…"},
		{name: "endless", body: `exec yes '` + page + `'`, want: "more than 16 MiB of text"},
		{name: "slow", body: `exec sleep 60`, timeout: 50 * time.Millisecond, want: "reading it took more than 50ms"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := &document.Reader{PDFToText: script(t, c.body), Timeout: c.timeout}
			doc, err := r.Read(t.Context(), "a.pdf", fixture(t, "two-column.pdf"))
			if c.name == "stdin" {
				c.text = strings.Replace(c.text, "1.6", "1.4", 1)
			}
			if c.want == "" {
				if err != nil || doc.Text != c.text {
					t.Errorf("Read = %q, %v, want %q", doc.Text, err, c.text)
				}
				return
			}
			u, ok := errors.AsType[*document.UnreadableError](err)
			if !ok || !strings.Contains(u.Reason, c.want) || len(u.Reason) > 500 {
				t.Errorf("Read = %v, want %q", err, c.want)
			}
		})
	}
}

// A program that is not there or that is killed says nothing about the document,
// which must not be given up for it.
func TestPDFToTextFails(t *testing.T) {
	for _, program := range []string{filepath.Join(t.TempDir(), "missing"), script(t, "kill -KILL $$")} {
		_, err := (&document.Reader{PDFToText: program}).Read(t.Context(), "a.pdf", fixture(t, "contract.pdf"))
		if _, ok := errors.AsType[*document.UnreadableError](err); ok || err == nil || !strings.Contains(err.Error(), program) {
			t.Errorf("Read = %v, want an error of %s", err, program)
		}
	}
}

// When the context ends, pdftotext is gone before Read returns: a drain leaves no
// process behind.
func TestCancelKillsPDFToText(t *testing.T) {
	pidFile := filepath.Join(t.TempDir(), "pid")
	if err := syscall.Mkfifo(pidFile, 0o600); err != nil {
		t.Skip(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	r := &document.Reader{PDFToText: script(t, fmt.Sprintf("echo $$ > %s; exec sleep 60", pidFile))}
	done := make(chan error, 1)
	go func() {
		_, err := r.Read(ctx, "a.pdf", fixture(t, "contract.pdf"))
		done <- err
	}()
	data, err := os.ReadFile(pidFile) // blocks until the program is there
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(data)))
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("Read = %v, want %v", err, context.Canceled)
	}
	if err := syscall.Kill(pid, 0); !errors.Is(err, syscall.ESRCH) {
		t.Errorf("pdftotext still runs: %v", err)
	}
}
