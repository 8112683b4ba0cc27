package s3sink_test

import (
	"errors"
	"io"
	"io/fs"
	"net/http"
	"slices"
	"strings"
	"testing"

	"upwell/sink/s3sink"
	"upwell/sink/s3sink/s3sim"
)

// breaking breaks off the body of every GET of an object after some bytes, times times.
type breaking struct {
	inner http.RoundTripper
	after int64
	times int
	asked []string // the ranges of the GETs
}

func (b *breaking) RoundTrip(r *http.Request) (*http.Response, error) {
	res, err := b.inner.RoundTrip(r)
	if err != nil || r.Method != http.MethodGet || r.URL.Query().Has("list-type") {
		return res, err
	}
	b.asked = append(b.asked, r.Header.Get("Range"))
	if b.times > 0 {
		b.times--
		res.Body = io.NopCloser(io.MultiReader(io.LimitReader(res.Body, b.after), failing{}))
	}
	return res, nil
}

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

func listing(t *testing.T, f s3sink.Folder) map[string]s3sink.File {
	t.Helper()
	files := make(map[string]s3sink.File)
	var names []string
	for file, err := range f.Files(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		files[file.Name] = file
		names = append(names, file.Name)
	}
	if !slices.IsSorted(names) {
		t.Errorf("Files = %q, want them in order", names)
	}
	return files
}

// TestOpenGoesOn has a connection that breaks off be made again where it did, and given
// up when nothing comes any more.
func TestOpenGoesOn(t *testing.T) {
	text := strings.Repeat("0123456789", 1000)
	for _, tt := range []struct {
		after int64
		times int
		want  string // the ranges, or an error
	}{
		{0, 0, ""},
		{1234, 1, " bytes=1234-"},
		{1234, 5, " bytes=1234- bytes=2468- bytes=3702- bytes=4936- bytes=6170-"},
		{0, 2, ""}, // the first byte never came
		{0, 9, "unexpected EOF"},
	} {
		b := &breaking{inner: inProcess{newSim(t, nil)}, after: tt.after, times: tt.times}
		f := newFolder(t, &http.Client{Transport: b}, "in")
		if err := putFile(t, f, "a.csv", text); err != nil {
			t.Fatal(err)
		}
		r, err := f.Open(t.Context(), listing(t, f)["a.csv"])
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(r)
		r.Close()
		switch {
		case err != nil || tt.times > 5:
			if err == nil || !strings.Contains(err.Error(), tt.want) || tt.want == "" || !strings.Contains(err.Error(), "in/a.csv") {
				t.Errorf("after %d bytes, %d times: %v, want %q", tt.after, tt.times, err, tt.want)
			}
		case string(got) != text:
			t.Errorf("after %d bytes, %d times: %d bytes, want all %d", tt.after, tt.times, len(got), len(text))
		case tt.after > 0 && strings.Join(b.asked, " ") != tt.want:
			t.Errorf("after %d bytes, %d times: ranges %q, want %q", tt.after, tt.times, b.asked, tt.want)
		}
	}
}

// TestOpenOfWhatWasReplaced has no file of which one half is old and the other new.
func TestOpenOfWhatWasReplaced(t *testing.T) {
	b := &breaking{inner: inProcess{newSim(t, nil)}, after: 3, times: 1}
	f := newFolder(t, &http.Client{Transport: b}, "in")
	put := func(text string) {
		t.Helper()
		if err := putFile(t, f, "a.csv", text); err != nil {
			t.Fatal(err)
		}
	}
	put("old text")
	old := listing(t, f)["a.csv"]
	r, err := f.Open(t.Context(), old)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	put("new text")
	if got, err := io.ReadAll(r); err == nil || !strings.Contains(err.Error(), "replaced since it was listed") {
		t.Errorf("ReadAll = %q, %v, want an error that says so", got, err)
	}
	if _, err := f.Open(t.Context(), old); err == nil || !strings.Contains(err.Error(), "replaced since it was listed") {
		t.Errorf("Open = %v, want an error that says so", err)
	}
}

func TestStatAndOpenOfNothing(t *testing.T) {
	denied := ""
	sim := newSim(t, func(op, _, _ string) s3sim.Fault {
		if op == denied {
			return s3sim.Fault{Status: 403, Code: "AccessDenied"}
		}
		return s3sim.Fault{}
	})
	f := newFolder(t, &http.Client{Transport: inProcess{sim}}, "in")
	if err := putFile(t, f, "a/b.txt", "text"); err != nil {
		t.Fatal(err)
	}
	if got, err := f.Stat(t.Context(), "a/b.txt"); err != nil || got != listing(t, f)["a/b.txt"] || got.Size != 4 || got.ETag == "" {
		t.Errorf("Stat = %+v, %v, want what the listing says", got, err)
	}
	if _, err := f.Stat(t.Context(), "a"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Stat(a) = %v, want that it does not exist", err)
	}
	if _, err := f.Open(t.Context(), s3sink.File{Name: "a"}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Open(a) = %v, want that it does not exist", err)
	}
	denied = "GetObject"
	if _, err := f.Open(t.Context(), s3sink.File{Name: "a/b.txt"}); err == nil || !strings.Contains(err.Error(), "allow s3:GetObject on "+bucket+"/in/*") {
		t.Errorf("Open = %v, want what to allow", err)
	}
}
