package mantlesim

import (
	"encoding/base64"
	"fmt"
	"io"
	"slices"
	"strings"
)

// maxImage is the size of the largest image, in bytes, as xAI documents it.
const maxImage = 20 << 20

// signatures are what images begin with, by their types.
var signatures = map[string]string{"image/png": "\x89PNG\r\n\x1a\n", "image/jpeg": "\xff\xd8\xff"}

// isImage reports whether a part of a prompt is an image in either API's form.
func isImage(part map[string]any) bool {
	return part["type"] == "input_image" || part["type"] == "image_url"
}

// checkImage reports what is wrong with an image in a prompt. Only data is taken, as
// there is nowhere to fetch an image from.
func checkImage(part map[string]any, api string) error {
	holder, param, want := part, "input.content", "input_image"
	if api != "responses" {
		param, want = "messages.content", "image_url"
	}
	where := param + ".image_url"
	if part["type"] != want {
		return invalid("invalid_value", param+".type", fmt.Sprintf("Invalid value: '%v'. Supported values are: '%s' and text.", part["type"], want))
	}
	url, isText := part["image_url"].(string)
	if api != "responses" {
		holder, _ = part["image_url"].(map[string]any)
		url, isText = holder["url"].(string)
		where += ".url"
	}
	if !isText {
		return invalid("invalid_type", where, "Invalid type for '"+where+"': expected an image URL.")
	}
	if detail, there := holder["detail"]; there && !slices.Contains([]any{"auto", "low", "high"}, detail) {
		return invalid("invalid_value", param+".detail", fmt.Sprintf("Invalid value: '%v'. Supported values are: 'auto', 'low' and 'high'.", detail))
	}
	if why := badImage(url); why != "" {
		return invalid("invalid_image", where, "Invalid image: "+why)
	}
	return nil
}

// badImage returns what is wrong with a data URI, or "".
func badImage(url string) string {
	head, data, _ := strings.Cut(url, ",")
	kind, isBase64 := strings.CutSuffix(strings.TrimPrefix(head, "data:"), ";base64")
	signature, known := signatures[kind]
	switch {
	case !strings.HasPrefix(head, "data:"):
		return "only data URIs are simulated."
	case !isBase64 || !known:
		return "want a data URI of image/png or image/jpeg in base64."
	case strings.ContainsAny(data, "\r\n"): // which the decoder would pass over
		return "a line end in the base64 data."
	}
	var start strings.Builder
	r := base64.NewDecoder(base64.StdEncoding, strings.NewReader(data))
	_, err := io.CopyN(&start, r, int64(len(signature)))
	rest := int64(0)
	if err == nil {
		rest, err = io.Copy(io.Discard, r)
	}
	switch {
	case err == io.EOF || err == nil && start.String() != signature: //nolint:errorlint // CopyN returns it as it is
		return "the data is no " + kind + "."
	case err != nil:
		return "the data is not base64."
	case int64(len(signature))+rest > maxImage:
		return fmt.Sprintf("larger than %d MiB.", maxImage>>20)
	}
	return ""
}
