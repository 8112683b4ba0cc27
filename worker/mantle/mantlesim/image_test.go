package mantlesim_test

import (
	"encoding/base64"
	"strings"
	"testing"

	"upwell/worker/mantle/mantlesim"
)

// TestImages holds the simulator to what xAI documents of images, so that a client
// that sends anything else notices here.
func TestImages(t *testing.T) {
	s := mantlesim.New(mantlesim.Config{})
	data := func(kind, signature string, size int) string {
		return "data:" + kind + ";base64," + base64.StdEncoding.EncodeToString([]byte(signature+strings.Repeat("\x00", size-len(signature))))
	}
	png, jpeg := data("image/png", "\x89PNG\r\n\x1a\n", 100), data("image/jpeg", "\xff\xd8\xff", 100)
	part := func(url string) string { return `{"type":"input_image","image_url":"` + url + `"}` }
	chatPart := func(url string) string {
		return `{"type":"image_url","image_url":{"url":"` + url + `","detail":"high"}}`
	}
	billed := int64(0)
	for _, tc := range []struct {
		name, path, part, says string
		code                   int
	}{
		{"png", responses, part(png), "", 200},
		{"jpeg", responses, part(jpeg), "", 200},
		{"detail", responses, strings.Replace(part(png), `}`, `,"detail":"low"}`, 1), "", 200},
		{"the largest", responses, part(data("image/png", "\x89PNG\r\n\x1a\n", 20<<20)), "", 200},
		{"in a chat", chat, chatPart(jpeg), "", 200},
		{"too large", responses, part(data("image/png", "\x89PNG\r\n\x1a\n", 20<<20+1)), "larger than 20 MiB", 400},
		{"wrong detail", responses, strings.Replace(part(png), `}`, `,"detail":"full"}`, 1), "'auto', 'low' and 'high'", 400},
		{"another type", responses, part(data("image/gif", "GIF89a", 100)), "image/png or image/jpeg", 400},
		{"another image", responses, part(data("image/png", "\xff\xd8\xff", 100)), "no image/png", 400},
		{"nothing", responses, part("data:image/png;base64,"), "no image/png", 400},
		{"no base64", responses, part("data:image/png;base64,iVBORw0KGgo*"), "not base64", 400},
		{"a line end in it", responses, part(png[:60] + `\n` + png[60:]), "line end", 400},
		{"no URI", responses, part("iVBORw0KGgoAAAA="), "only data URIs", 400},
		{"to be fetched", responses, part("https://example.org/x.png"), "only data URIs", 400},
		{"no URL", responses, `{"type":"input_image"}`, "expected an image URL", 400},
		{"a chat's form", responses, chatPart(png), "'input_image'", 400},
		{"a URL too deep", responses, strings.Replace(chatPart(png), `"image_url"`, `"input_image"`, 1), "expected an image URL", 400},
		{"the other form in a chat", chat, part(png), "'image_url'", 400},
		{"a URL not deep enough", chat, strings.Replace(part(png), "input_image", "image_url", 1), "expected an image URL", 400},
	} {
		if testing.Short() && len(tc.part) > 1<<20 {
			continue
		}
		body := `{"model":"xai.grok-4.3","input":[{"role":"user","content":[` + tc.part + `]}]}`
		if tc.path == chat {
			body = strings.Replace(body, `"input"`, `"messages"`, 1)
		}
		a := post(s, tc.path, body)
		if a.Code != tc.code || !strings.Contains(a.Text, tc.says) {
			t.Errorf("%s = %d %.300s, want %d %q", tc.name, a.Code, a.Text, tc.code, tc.says)
		}
		if a.Code != 200 {
			continue
		}
		billed++
		if u, _ := usageOf(t, a); u.Input < 1000 {
			t.Errorf("%s: %d tokens, want the image counted", tc.name, u.Input)
		}
	}
	if n := s.Counts(); n.Billed != billed || billed < 4 {
		t.Errorf("%d billed, want the %d with good images", n.Billed, billed)
	}
}
