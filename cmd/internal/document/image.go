package document

import (
	"bytes"
	"image/jpeg"
	"image/png"

	"upwell/cmd/internal/prompt"
)

// maxImage is the largest image that the endpoint takes (docs.x.ai, Models).
const maxImage = 20 << 20

const (
	pngMagic  = "\x89PNG\r\n\x1a\n"
	jpegMagic = "\xff\xd8\xff"
)

// readImage checks that data is the image that its name says. Only its header is
// decoded: what it shows is for the model.
func readImage(typ string, data []byte) (Document, error) {
	if len(data) > maxImage {
		return Document{}, unreadablef("an image of %.1f MiB; at most 20 MiB can be sent, make it smaller", float64(len(data))/(1<<20))
	}
	media, magic, decode := "image/png", pngMagic, png.DecodeConfig
	if typ == "jpg" {
		media, magic, decode = "image/jpeg", jpegMagic, jpeg.DecodeConfig
	}
	if !bytes.HasPrefix(data, []byte(magic)) {
		return Document{}, unreadablef("not a %s image but %s; convert it, or give it the right ending", typ, kind(data))
	}
	c, err := decode(bytes.NewReader(data))
	if err != nil {
		return Document{}, unreadablef("damaged image: %v", err)
	}
	if c.Width <= 0 || c.Height <= 0 {
		return Document{}, unreadablef("damaged image: %d by %d pixels", c.Width, c.Height)
	}
	return Document{Image: &prompt.Image{Type: media, Data: data}}, nil
}

// kind says what data is by its first bytes, for messages.
func kind(data []byte) string {
	for _, k := range []struct{ magic, name string }{
		{pngMagic, "a PNG image"},
		{jpegMagic, "a JPEG image"},
		{"%PDF-", "a PDF"},
		{"GIF8", "a GIF image"},
		{"RIFF", "a WebP image or another RIFF file"},
		{"II*\x00", "a TIFF image"},
		{"MM\x00*", "a TIFF image"},
		{"PK\x03\x04", "a zip archive (or an Office document)"},
		{"\xd0\xcf\x11\xe0", "an Office document of the old format, or one with a password"},
		{"{\\rtf", "an RTF document"},
		{"<", "HTML or XML"},
		{"\x1f\x8b", "a gzip file"},
	} {
		if bytes.HasPrefix(data, []byte(k.magic)) {
			return k.name
		}
	}
	return "something else"
}
