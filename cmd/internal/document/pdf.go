package document

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"regexp"
	"strings"
	"time"
)

// image matches an image in a PDF. An image is a stream, and what a stream is
// stands in the file in plain text even if the rest is compressed or encrypted.
var image = regexp.MustCompile(`/Subtype\s*/Image\b`)

func (r *Reader) readPDF(ctx context.Context, data []byte) (Document, error) {
	// Readers look for the mark in the first kilobyte, because mail programs and
	// web servers put lines before it.
	if !bytes.Contains(data[:min(len(data), 1024)], []byte("%PDF-")) {
		return Document{}, unreadablef("not a PDF but %s", kind(data))
	}
	pages, err := r.pages(ctx, data)
	if err != nil {
		return Document{}, err
	}
	for i, p := range pages {
		pages[i] = bullets.Replace(p)
	}
	doc := Document{Pages: len(pages)}
	if doc.Warnings, err = judge(pages, len(image.FindAllIndex(data, -1))); err != nil {
		return Document{}, err
	}
	doc.Text = tidy(strings.Join(pages, "\f"))
	return doc, nil
}

// bullets are characters of Word's fonts for symbols that are in every other PDF.
var bullets = strings.NewReplacer("\uf0b7", "•", "\uf0a7", "▪", "\uf0d8", "➢", "\uf0fc", "✓", "\uf0a8", "◻", "\uf06f", "◻", "\uf0fe", "☒", "\uf02d", "-")

// pages returns the text of each page.
func (r *Reader) pages(ctx context.Context, data []byte) ([]string, error) {
	program := r.PDFToText
	if program == "" {
		program, _ = exec.LookPath("pdftotext")
	}
	if program == "" || program == Builtin {
		return builtin(ctx, data)
	}
	return pdftotext(ctx, program, data)
}

// pdftotext runs the program of that name. It keeps the layout: columns stay side
// by side and cells in their rows, which models read better than a stream of
// words in the order in which they were drawn.
func pdftotext(ctx context.Context, program string, data []byte) ([]string, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	out := &bounded{max: maxText, full: cancel}
	said := &bounded{max: 4 << 10, full: func() {}}
	cmd := exec.CommandContext(ctx, program, "-layout", "-enc", "UTF-8", "-", "-")
	cmd.Stdin = bytes.NewReader(data)
	cmd.Stdout, cmd.Stderr = out, said
	// For pipes that a child of a wrapper script holds open. On a busy machine a
	// second is not enough to read what a program has left in its pipes.
	cmd.WaitDelay = 10 * time.Second

	err := cmd.Run()
	switch exit, isExit := errors.AsType[*exec.ExitError](err); {
	case out.over:
		return nil, unreadablef("more than %d MiB of text; no model takes that much, split it", maxText>>20)
	case err == nil:
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case isExit && exit.Exited():
		return nil, complaint(said.buf.String())
	default:
		return nil, fmt.Errorf("run %s: %w", program, err)
	}
	// Each page ends with a form feed.
	pages := strings.Split(strings.ToValidUTF8(out.buf.String(), "\ufffd"), "\f")
	return pages[:max(1, len(pages)-1)], nil
}

// complaint makes an error of what pdftotext said before it gave up.
func complaint(said string) error {
	line := ""
	for l := range strings.Lines(said) {
		if l = strings.TrimSpace(l); l != "" {
			line = l // the last one: those before it are what it tried to repair
		}
	}
	switch {
	case strings.Contains(said, "Incorrect password"):
		return errEncrypted
	case strings.Contains(said, "ermission"): // Copying of text from this document is not allowed
		return unreadable("its owner does not allow its text to be copied; ask for a version without that restriction")
	case len(line) > 200:
		line = strings.ToValidUTF8(line[:200], "") + "…"
	}
	return unreadablef("damaged PDF: pdftotext said %q; print it to a new PDF", line)
}

const errEncrypted = unreadable("encrypted with a password; remove it first, for example with qpdf --decrypt")

// A bounded buffer keeps at most max bytes, and calls full when there are more. It
// has no ReadFrom, which io.Copy would prefer to Write.
type bounded struct {
	buf  bytes.Buffer
	max  int
	full func()
	over bool
}

func (b *bounded) Write(p []byte) (int, error) {
	room := b.max - b.buf.Len()
	if len(p) > room && !b.over {
		b.over = true
		b.full()
	}
	b.buf.Write(p[:min(len(p), room)])
	return len(p), nil // or a program that complains at length would fail for it
}
