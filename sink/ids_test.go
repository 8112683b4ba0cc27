package sink_test

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"upwell/sink"
)

// Changes of one line that these tests have been seen to catch: the hash is not
// in the key; <, > and & are escaped; the end of a part is not looked at; what is
// no JSON is passed over.

// decode reads a part to its end.
func decode(part []byte) (ids []string, err error) {
	for id, e := range sink.DecodeIDs(part) {
		if err = e; err == nil {
			ids = append(ids, id)
		}
	}
	return ids, err
}

func TestIDs(t *testing.T) {
	want := []string{"msa-0042", "a/b", "", "<&>\u2028", "line\nfeed", `"quoted"`, "é", strings.Repeat("long ", 100), strings.Repeat("\x01", 512)}
	part, err := sink.EncodeIDs(want)
	if err != nil {
		t.Fatal(err)
	}
	again, err := sink.EncodeIDs(want)
	if err != nil || !bytes.Equal(part, again) {
		t.Errorf("EncodeIDs of the same ids makes other bytes (%v), want the same", err)
	}
	got, err := decode(part)
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("DecodeIDs: %v; (-want +got):\n%s", err, diff)
	}
	z, err := gzip.NewReader(bytes.NewReader(part))
	if err != nil {
		t.Fatal(err)
	}
	var text bytes.Buffer
	if _, err := text.ReadFrom(z); err != nil || !strings.HasPrefix(text.String(), "{\"custom_id\":\"msa-0042\"}\n{\"custom_id\":\"a/b\"}\n") || !strings.Contains(text.String(), "<&>") {
		t.Errorf("a part begins %.90q (%v), want a JSON object on each line, and <&> as it is", text.String(), err)
	}
}

func TestIDsStopWhenToldTo(t *testing.T) {
	part, err := sink.EncodeIDs([]string{"a", "b"})
	if err != nil {
		t.Fatal(err)
	}
	for id, err := range sink.DecodeIDs(part) {
		if id != "a" || err != nil {
			t.Errorf("DecodeIDs goes on with %q, %v, want it to stop after a", id, err)
		}
		break
	}
}

func TestBrokenIDs(t *testing.T) {
	var ids []string
	for i := range 1000 {
		ids = append(ids, fmt.Sprint("job-", i*i))
	}
	part, err := sink.EncodeIDs(ids)
	if err != nil {
		t.Fatal(err)
	}
	flipped := slices.Clone(part)
	flipped[len(flipped)/2] ^= 0x10
	for name, b := range map[string][]byte{
		"empty": nil, "no gzip": []byte("{\"custom_id\":\"a\"}\n"), "half": part[:len(part)/2], "a bit": flipped,
		"without its sum": part[:len(part)-8], "no JSON": packed(t, "{\"custom_id\":\"a\"}\n<html>\n"),
		"a line without end": packed(t, strings.Repeat("x", 1<<17)),
	} {
		if got, err := decode(b); err == nil || !strings.Contains(err.Error(), "decode ids") {
			t.Errorf("%s: DecodeIDs = %d ids, %v, want an error", name, len(got), err)
		}
	}
}

// packed returns text in gzip.
func packed(t *testing.T, text string) []byte {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	if _, err := z.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestPartsOfAnIndex(t *testing.T) {
	for _, tt := range []struct{ count, parts, last int }{
		{0, 0, 0},
		{1, 1, 1},
		{99_999, 1, 99_999},
		{100_000, 1, 100_000},
		{100_001, 2, 1},
		{10_000_000, 100, 100_000},
	} {
		parts, m := sink.IDParts(tt.count), sink.Manifest{Count: tt.count}
		sum := 0
		for i := range parts {
			sum += m.IDsIn(i)
		}
		if parts != tt.parts || parts > 0 && m.IDsIn(parts-1) != tt.last || sum != tt.count || m.IDsIn(parts) != 0 {
			t.Errorf("%d jobs have %d parts, the last of %d, together %d, want %d and %d", tt.count, parts, m.IDsIn(parts-1), sum, tt.parts, tt.last)
		}
	}
}

func TestIDsKey(t *testing.T) {
	sum := strings.Repeat("0123456789abcdef", 4)
	for _, tt := range []struct{ prefix, sum, want string }{
		{"/team/", sum, "team/runs/q3/ids/0123456789abcdef/00007.jsonl.gz"},
		{"", "00ff", "runs/q3/ids/00ff/00007.jsonl.gz"},
	} {
		if got := sink.IDsKey(tt.prefix, "q3", tt.sum, 7); got != tt.want {
			t.Errorf("IDsKey = %s, want %s", got, tt.want)
		}
	}
}
