package document

import (
	"context"
	"errors"
	"unicode"

	"upwell/cmd/internal/document/pdftext"
)

// builtin reads a PDF without pdftotext.
func builtin(ctx context.Context, data []byte) ([]string, error) {
	pages, err := pdftext.Pages(ctx, data, maxText)
	switch {
	case err == nil:
		return pages, backwards(pages)
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case errors.Is(err, pdftext.ErrEncrypted):
		return nil, unreadable("encrypted; pdftotext reads it if it opens without a password, so install that; otherwise remove the password first, for example with qpdf --decrypt")
	default:
		return nil, unreadablef("%v; install pdftotext, which reads more PDFs, or print it to a new PDF", err)
	}
}

// backwards refuses text in a script that is written from right to left: its
// letters are in the order in which they stand on the page.
func backwards(pages []string) error {
	letters, rtl := 0, 0
	for _, p := range pages {
		for _, c := range p {
			if unicode.IsLetter(c) {
				letters++
			}
			if unicode.In(c, unicode.Arabic, unicode.Hebrew, unicode.Syriac, unicode.Thaana) {
				rtl++
			}
		}
	}
	if rtl*10 > letters {
		return unreadable("written from right to left, which needs pdftotext; install it")
	}
	return nil
}
