package sinktest

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
)

var listChecks = []check{
	{"ListObjectsV2", list},
	{"ListObjectsV2/empty", listEmpty},
	{"ListObjectsV2/order", listOrder},
	{"ListObjectsV2/prefix", listPrefix},
	{"ListObjectsV2/pages", listPages},
	{"ListObjectsV2/delimiter", listDelimiter},
	{"ListObjectsV2/delimiter and pages", listDelimiterPages},
	{"ListObjectsV2/StartAfter", listStartAfter},
	{"ListObjectsV2/a thousand a page", listThousand},
	{"ListObjectsV2/read after write", listFresh},
}

type listing func(*s3.ListObjectsV2Input)

// page returns one page of the folder, or of what change makes of that.
func (f *folder) page(change listing) *s3.ListObjectsV2Output {
	in := &s3.ListObjectsV2Input{Bucket: &f.bucket, Prefix: &f.prefix}
	if change != nil {
		change(in)
	}
	out, err := f.client.ListObjectsV2(f.Context(), in)
	f.must(err)
	return out
}

// names returns a page's keys, and its common prefixes with an asterisk at the
// end, all without the folder's prefix.
func (f *folder) names(page *s3.ListObjectsV2Output) (names []string) {
	for _, o := range page.Contents {
		names = append(names, strings.TrimPrefix(text(o.Key), f.prefix))
	}
	for _, p := range page.CommonPrefixes {
		names = append(names, strings.TrimPrefix(text(p.Prefix), f.prefix)+"*")
	}
	if n := int(aws.ToInt32(page.KeyCount)); n != len(names) {
		f.Errorf("KeyCount is %d of %d entries", n, len(names))
	}
	return names
}

// all returns the names on all pages, and how many there are on each.
func (f *folder) all(change listing) (names []string, sizes []int) {
	var token *string
	for {
		page := f.page(func(in *s3.ListObjectsV2Input) {
			if change != nil {
				change(in)
			}
			in.ContinuationToken = token
		})
		got := f.names(page)
		names, sizes = append(names, got...), append(sizes, len(got))
		token = page.NextContinuationToken
		if more := aws.ToBool(page.IsTruncated); more != (text(token) != "") {
			f.Fatalf("IsTruncated is %v and the token %q", more, text(token))
		} else if !more {
			return names, sizes
		}
		if len(sizes) > 1000 {
			f.Fatalf("the listing does not end")
		}
	}
}

func (f *folder) fill(names ...string) {
	for _, n := range names {
		f.put(n, n)
	}
}

func (f *folder) sames(what string, got []string, want ...string) {
	if !slices.Equal(got, want) {
		f.Errorf("%s: got %.300q, want %.300q", what, got, want)
	}
}

func list(f *folder) {
	f.fill("b", "a")
	page := f.page(nil)
	f.sames("the keys", f.names(page), "a", "b")
	o := page.Contents[0]
	if aws.ToInt64(o.Size) != 1 || text(o.ETag) != etagOf("a") || time.Since(aws.ToTime(o.LastModified)).Abs() > time.Hour {
		f.Errorf("got size %v, ETag %s, time %v, want 1, the MD5, about now", aws.ToInt64(o.Size), text(o.ETag), o.LastModified)
	}
	if text(page.Name) != f.bucket || text(page.Prefix) != f.prefix || aws.ToBool(page.IsTruncated) {
		f.Errorf("the page is of %q, %q, truncated %v, want %q, %q, false", text(page.Name), text(page.Prefix), aws.ToBool(page.IsTruncated), f.bucket, f.prefix)
	}
}

func listEmpty(f *folder) {
	names, sizes := f.all(nil)
	if len(names) > 0 || len(sizes) != 1 {
		f.Errorf("got %q on %d pages, want nothing on one", names, len(sizes))
	}
}

// listOrder has keys sorted by their bytes, not by folders or letters.
func listOrder(f *folder) {
	want := []string{"A", "B/x", "Z", "a", "a!", "a-b", "a.json", "a/b", "a/b.json", "a/b/c", "a0", "ab", "é"}
	for _, n := range want {
		if n != "a" && n != "a/b" { // for servers on which an object cannot be a folder as well
			f.put(n, n)
		}
	}
	want = slices.DeleteFunc(want, func(n string) bool { return n == "a" || n == "a/b" })
	names, _ := f.all(nil)
	f.sames("the keys", names, want...)
	names, _ = f.all(func(in *s3.ListObjectsV2Input) { in.MaxKeys = new(int32(2)) })
	f.sames("the keys, in pages of two,", names, want...)
}

func listPrefix(f *folder) {
	f.fill("runs/x/1", "runs/x/2", "runs/xy/3", "other")
	for prefix, want := range map[string][]string{
		"runs/x/":  {"runs/x/1", "runs/x/2"},
		"runs/x":   {"runs/x/1", "runs/x/2", "runs/xy/3"},
		"runs/x/1": {"runs/x/1"},
		"oth":      {"other"},
		"none/":    nil,
	} {
		names, _ := f.all(func(in *s3.ListObjectsV2Input) { in.Prefix = f.key(prefix) })
		f.sames("beneath "+prefix, names, want...)
	}
}

func numbered(n int) (names []string) {
	for i := range n {
		names = append(names, fmt.Sprintf("d%d/%04d", i%3, i))
	}
	slices.Sort(names)
	return names
}

func listPages(f *folder) {
	want := numbered(10)
	f.fill(want...)
	for most, sizes := range map[int32][]int{1: {1, 1, 1, 1, 1, 1, 1, 1, 1, 1}, 3: {3, 3, 3, 1}, 5: {5, 5}, 10: {10}, 11: {10}} {
		names, got := f.all(func(in *s3.ListObjectsV2Input) { in.MaxKeys = &most })
		f.sames(fmt.Sprintf("pages of %d", most), names, want...)
		if !slices.Equal(got, sizes) {
			f.Errorf("pages of at most %d hold %d, want %d", most, got, sizes)
		}
	}
}

func delimited(in *s3.ListObjectsV2Input) { in.Delimiter = new("/") }

func listDelimiter(f *folder) {
	f.fill("a/1", "a/2", "b", "c/d/1", "c/d/2", "c/e")
	page := f.page(delimited)
	f.sames("the top", f.names(page), "b", "a/*", "c/*")
	page = f.page(func(in *s3.ListObjectsV2Input) { delimited(in); in.Prefix = f.key("c/") })
	f.sames("beneath c/", f.names(page), "c/e", "c/d/*")
	page = f.page(func(in *s3.ListObjectsV2Input) { delimited(in); in.Prefix = f.key("c") })
	f.sames("beneath c", f.names(page), "c/*")
}

// listDelimiterPages counts a common prefix as one entry, on one page.
func listDelimiterPages(f *folder) {
	f.fill("a/1", "a/2", "a/3", "b", "c/1", "c/2", "d")
	names, sizes := f.all(func(in *s3.ListObjectsV2Input) { delimited(in); in.MaxKeys = new(int32(1)) })
	f.sames("one at a time", names, "a/*", "b", "c/*", "d")
	if !slices.Equal(sizes, []int{1, 1, 1, 1}) {
		f.Errorf("the pages hold %d, want one each", sizes)
	}
}

func listStartAfter(f *folder) {
	f.fill("a", "b/1", "b/2", "c")
	for after, want := range map[string][]string{
		"":    {"a", "b/1", "b/2", "c"},
		"a":   {"b/1", "b/2", "c"},
		"b":   {"b/1", "b/2", "c"},
		"b/1": {"b/2", "c"},
		"bb":  {"c"},
		"c":   nil,
	} {
		names, _ := f.all(func(in *s3.ListObjectsV2Input) { in.StartAfter = f.key(after); in.MaxKeys = new(int32(2)) })
		f.sames("after "+after, names, want...)
	}
}

func listThousand(f *folder) {
	want := numbered(1005)
	var wg sync.WaitGroup
	for w := range 16 {
		wg.Go(func() {
			for i := w; i < len(want); i += 16 {
				if _, err := f.tryPut(want[i], ""); err != nil {
					f.Errorf("%v", err)
				}
			}
		})
	}
	wg.Wait()
	names, sizes := f.all(nil)
	f.sames("the keys", names, want...)
	if !slices.Equal(sizes, []int{1000, 5}) {
		f.Errorf("the pages hold %d, want 1000 and 5", sizes)
	}
}

// listFresh lists what was stored and deleted the moment before.
func listFresh(f *folder) {
	for i := range 10 {
		name := fmt.Sprint("key", i)
		f.put(name, "x")
		names, _ := f.all(nil)
		f.sames("after the put", names, name)
		f.delete(name)
		names, _ = f.all(nil)
		f.sames("after the delete", names)
	}
}
