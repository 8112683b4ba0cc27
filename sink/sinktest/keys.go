package sinktest

import (
	"strings"

	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
)

var deleteChecks = []check{
	{"DeleteObject", deleteObject},
	{"DeleteObject/missing", deleteMissing},
	{"DeleteObject/leaves its neighbours", deleteNeighbour},
	{"DeleteObjects", deleteObjects},
}

func deleteObject(f *folder) {
	f.put("a", "x")
	f.delete("a")
	_, _, err := f.tryGet("a")
	f.answers(err, 404, "NoSuchKey", "getting what is deleted")
	f.lacks("a")
}

func deleteMissing(f *folder) {
	f.delete("none")
	f.delete("none/such")
}

func deleteNeighbour(f *folder) {
	f.fill("d/a", "d/b", "d/c/e")
	f.delete("d/a")
	f.delete("d") // which is no object
	names, _ := f.all(nil)
	f.sames("what is left", names, "d/b", "d/c/e")
}

func deleteObjects(f *folder) {
	f.fill("a", "b/c", "stays")
	var ids []types.ObjectIdentifier
	for _, n := range []string{"a", "b/c", "none"} {
		ids = append(ids, types.ObjectIdentifier{Key: f.key(n)})
	}
	out, err := f.client.DeleteObjects(f.Context(), &s3.DeleteObjectsInput{Bucket: &f.bucket, Delete: &types.Delete{Objects: ids}})
	f.must(err)
	if len(out.Deleted) != 3 || len(out.Errors) != 0 {
		f.Errorf("%d deleted, %d errors, want 3, 0: that there is none is no error", len(out.Deleted), len(out.Errors))
	}
	names, _ := f.all(nil)
	f.sames("what is left", names, "stays")
}

var keyChecks = []check{
	{"key/punctuation", keys("a b", "a+b", "a&b=c", "a;b", "a:b", "a,b", "a@b", "a$b", "a'b", `a"b`, "(a)", "a!b", "a*b", "~a", "a=b")},
	{"key/percent", keys("100%", "a%b", "a%20b", "a%2Fb", "%")},
	{"key/question mark and hash", keys("a?b", "a?x-id=1", "a#b", "?", "#")},
	{"key/backslash", keys(`a\b`, `\`)},
	{"key/angle brackets", keys("<a>", "a&amp;b")},
	{"key/beyond ASCII", keys("größe", "日本/語", "😀", "e\u0301")},
	{"key/dots", keys(".a", "a.", "...", "a/.b/c", "..a")},
	{"key/double slash", keys("a//b")},
	{"key/slash first", keys("/a")},
	{"key/slash last", keys("dir/")},
	{"key/object and folder", objectAndFolder},
	{"key/folder and object", folderAndObject},
	{"key/case", keys("Case", "case")},
	{"key/1024 bytes", longKey},
	{"key/long segment", longSegment},
	{"key/too long", tooLongKey},
}

// keys returns a check of keys: that they can be stored, read, found in a
// listing by themselves, and deleted.
func keys(names ...string) func(*folder) {
	return func(f *folder) {
		for _, n := range names {
			f.use(n)
		}
		for _, n := range names {
			f.holds(n, "body of "+n)
			f.delete(n)
			f.lacks(n)
		}
		left, _ := f.all(nil)
		f.sames("what is left", left)
	}
}

func (f *folder) use(name string) {
	body := "body of " + name
	f.put(name, body, absent)
	_, err := f.tryPut(name, "again", absent)
	f.answers(err, 412, "", "storing a second time")
	f.holds(name, body)
	names, _ := f.all(func(in *s3.ListObjectsV2Input) { in.Prefix = f.key(name) })
	f.sames("the listing of it", names, name)
}

func objectAndFolder(f *folder) {
	f.put("a", "object")
	f.put("a/b", "beneath")
	f.holds("a", "object")
	f.holds("a/b", "beneath")
	names, _ := f.all(nil)
	f.sames("the keys", names, "a", "a/b")
}

func folderAndObject(f *folder) {
	f.put("a/b", "beneath")
	f.put("a", "object")
	f.delete("a/b")
	f.holds("a", "object")
}

// longKey is as long as a key may be, in segments that are not.
func longKey(f *folder) {
	name := strings.Repeat("0123456789/", 100)[:1024-len(f.prefix)-1] + "z"
	f.use(name)
}

// longSegment has more between two slashes than a file's name may have.
func longSegment(f *folder) { f.use(strings.Repeat("x", 300) + "/y") }

func tooLongKey(f *folder) {
	_, err := f.tryPut(strings.Repeat("k", 1025-len(f.prefix)), "x")
	f.answers(err, 400, "KeyTooLongError", "a key of 1025 bytes")
}
