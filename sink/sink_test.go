package sink_test

import (
	"fmt"
	"regexp"
	"strings"
	"testing"

	"upwell/jobs"
	"upwell/sink"
)

func TestKeys(t *testing.T) {
	for _, tt := range []struct{ id, want string }{
		{"msa-0042", "80/msa-0042.json"},
		{"a/b c", "0a/a%2Fb%20c.json"},
		{"..", "5e/%2E..json"},
		{".hidden.txt", "42/%2Ehidden.txt.json"},
		{"v1.2_final", "5b/v1.2_final.json"},
		{"50%", "28/50%25.json"},
		{"~", "7a/%7E.json"},
		{"é", "4a/%C3%A9.json"},
		{"", "e3/~e3b0c44298fc1c149afbf4c8996fb924.json"},
	} {
		k := jobs.Key{Run: "q3", CustomID: tt.id}
		want := "team/runs/q3/results/" + tt.want
		got := sink.Results.Key("team", k)
		if got != want {
			t.Errorf("Results.Key(%q) = %s, want %s", tt.id, got, want)
		}
		if id, whole := sink.ID(got); id != tt.id || !whole {
			t.Errorf("ID(%q) = %q, %v, want %q, true", got, id, whole, tt.id)
		}
	}
}

func TestFolders(t *testing.T) {
	for _, prefix := range []string{"a/b", "/a/b/"} {
		if got, want := sink.ManifestKey(prefix, "q3"), "a/b/runs/q3/manifest.json"; got != want {
			t.Errorf("ManifestKey(%q) = %s, want %s", prefix, got, want)
		}
		if got, want := sink.Errors.Prefix(prefix, "q3"), "a/b/runs/q3/errors/"; got != want {
			t.Errorf("Errors.Prefix(%q) = %s, want %s", prefix, got, want)
		}
	}
	if got, want := sink.Results.Prefix("", "q3"), "runs/q3/results/"; got != want {
		t.Errorf("Results.Prefix of no prefix = %s, want %s", got, want)
	}
}

func TestLongIDsAreCut(t *testing.T) {
	for _, tt := range []struct {
		id    string
		whole bool
		left  string // of the custom_id, in the name
	}{
		{strings.Repeat("a", 200), true, strings.Repeat("a", 200)},
		{strings.Repeat("a", 201), false, strings.Repeat("a", 200)},
		{strings.Repeat("/", 66), true, strings.Repeat("/", 66)},
		{strings.Repeat("/", 67), false, strings.Repeat("/", 66)},
		{"a" + strings.Repeat("/", 67), false, "a" + strings.Repeat("/", 66)},
		{"ab" + strings.Repeat("/", 67), false, "ab" + strings.Repeat("/", 66)},
	} {
		key := sink.Results.Key("", jobs.Key{Run: "r", CustomID: tt.id})
		if id, whole := sink.ID(key); id != tt.left || whole != tt.whole {
			t.Errorf("ID(%s) = %q, %v, want %q, %v", key, id, whole, tt.left, tt.whole)
		}
	}
}

func TestForeignKeysAreNoLines(t *testing.T) {
	long := sink.Results.Key("", jobs.Key{Run: "r", CustomID: strings.Repeat("a", 300)})
	for _, key := range []string{
		"",
		"runs/r/results/",
		"runs/r/results/_SUCCESS",
		"runs/r/manifest.json",
		"runs/r/results/00/msa-0042.json", // the wrong folder
		"runs/r/results/80/msa%2D0042.json",
		"runs/r/results/80/msa-0042",
		"runs/r/results/0a/a%2fb%20c.json", // the wrong case
		"msa-0042.json",
		strings.Replace(long, "~", "~0", 1),
		strings.Replace(long, "~", "a/~", 1),
		strings.Replace(long, "a~", "%~", 1),
	} {
		if id, whole := sink.ID(key); id != "" || whole {
			t.Errorf("ID(%q) = %q, %v, want none", key, id, whole)
		}
	}
}

var form = regexp.MustCompile(`^runs/r/errors/[0-9a-f]{2}/[A-Za-z0-9_%~-][A-Za-z0-9_.%~-]*\.json$`)

func FuzzKey(f *testing.F) {
	for _, id := range []string{"", ".", "..", "a/../b", "~", "%", "%41", "A", "é", "\x00", strings.Repeat("é", 99)} {
		f.Add(id, id+"x")
	}
	f.Fuzz(func(t *testing.T, a, b string) {
		ka := sink.Errors.Key("", jobs.Key{Run: "r", CustomID: a})
		kb := sink.Errors.Key("", jobs.Key{Run: "r", CustomID: b})
		if (a == b) != (ka == kb) {
			t.Errorf("%q and %q have the keys %s and %s", a, b, ka, kb)
		}
		if !form.MatchString(ka) {
			t.Errorf("%q has the key %q", a, ka)
		}
		if file := ka[strings.LastIndexByte(ka, '/')+1:]; len(file) > 238 {
			t.Errorf("%q has a file name of %d bytes", a, len(file))
		}
		id, whole := sink.ID(ka)
		if whole && id != a || !whole && (id == "" || !strings.HasPrefix(a, id)) {
			t.Errorf("ID(%q) = %q, %v, want %q", ka, id, whole, a)
		}
	})
}

func FuzzID(f *testing.F) {
	f.Add("runs/r/results/80/msa-0042.json")
	f.Add("x/%/~.json")
	f.Fuzz(func(t *testing.T, key string) {
		id, whole := sink.ID(key)
		if !whole {
			return
		}
		if made := sink.Results.Key("", jobs.Key{CustomID: id}); !strings.HasSuffix("/"+key, made[len("runs//results"):]) {
			t.Errorf("ID(%q) = %q, whose key is %q", key, id, made)
		}
	})
}

func ExampleKind_Key() {
	k := jobs.Key{Run: "2026-q3", CustomID: "contracts/msa 42.pdf"}
	key := sink.Results.Key("legal", k)
	fmt.Println(key)
	fmt.Println(sink.ID(key))
	// Output:
	// legal/runs/2026-q3/results/e0/contracts%2Fmsa%2042.pdf.json
	// contracts/msa 42.pdf true
}

func BenchmarkKey(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		sink.Results.Key("team", jobs.Key{Run: "2026-q3", CustomID: "contracts/msa-0042.pdf"})
	}
}

func TestBodyKey(t *testing.T) {
	for _, tt := range []struct{ id, want string }{
		{"msa-0042", "team/runs/q3/letters/80/msa-0042.json"},
		{"a/b c", "team/runs/q3/letters/0a/a%2Fb%20c.json"},
		{"", "team/runs/q3/letters/80/msa-0042.json"}, // by the message's id, which is this
	} {
		got := sink.BodyKey("/team/", jobs.Key{Run: "q3", CustomID: tt.id}, "msa-0042")
		if got != tt.want || !strings.HasPrefix(got, sink.Root("team/")) {
			t.Errorf("BodyKey(%q) = %s, want %s, under %s", tt.id, got, tt.want, sink.Root("team/"))
		}
	}
	if got := sink.Root(""); got != "runs/" {
		t.Errorf("Root of no prefix = %s, want runs/", got)
	}
}
