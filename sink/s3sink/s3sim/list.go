package s3sim

import (
	"slices"
	"strings"
	"time"

	"github.com/rclone/gofakes3"
)

// A lister fills one page of a listing. It walks the folders in the order of
// the keys, entering only those that may hold something for the page, and
// merges the odd keys in.
type lister struct {
	b      *bucket
	prefix string
	delim  string
	from   string   // the least key still wanted; rises past each common prefix
	odd    []string // odd keys still to come, sorted
	max    int

	page *gofakes3.ObjectList
	n    int
	last string // the last entry of the page
}

// list returns the objects whose keys begin with prefix and come after
// marker, at most limit of them if limit is positive. Keys that have delim
// after the prefix are rolled up into common prefixes.
func (b *bucket) list(prefix, delim, marker string, limit int) (*gofakes3.ObjectList, error) {
	l := &lister{
		b: b, prefix: prefix, delim: delim, max: limit,
		from: prefix, page: gofakes3.NewObjectList(),
	}
	if marker != "" {
		next := marker + "\x00"
		if l.common(marker) == marker {
			next = past(marker) // a page that ended in a common prefix
		}
		l.from = max(l.from, next)
	}
	b.mu.RLock()
	for key := range b.odd {
		if key >= l.from && strings.HasPrefix(key, prefix) {
			l.odd = append(l.odd, key)
		}
	}
	b.mu.RUnlock()
	slices.Sort(l.odd)

	dir := prefix[:strings.LastIndex(prefix, "/")+1]
	more := true
	var err error
	if dir == "" || plain(strings.TrimSuffix(dir, "/")) != "" {
		more, err = l.walk(dir)
	}
	for more && err == nil && len(l.odd) > 0 {
		more, err = l.add(l.odd[0])
		l.odd = l.odd[1:]
	}
	return l.page, err
}

// walk adds the keys beneath dir, and reports whether the page wants more.
func (l *lister) walk(dir string) (more bool, err error) {
	keys, err := l.b.names(dir, l.wanted)
	if err != nil {
		return false, err
	}
	for _, key := range keys {
		switch {
		case !l.wanted(key): // since from rose
			continue
		case strings.HasSuffix(key, "/"):
			more, err = l.walk(key)
		default:
			more, err = l.merge(key)
		}
		if !more || err != nil {
			return more, err
		}
	}
	return true, nil
}

// wanted reports whether key, or if it ends in a slash some key beneath that
// folder, may be part of what is left of the listing.
func (l *lister) wanted(key string) bool {
	if !strings.HasSuffix(key, "/") {
		return key >= l.from && strings.HasPrefix(key, l.prefix)
	}
	return (key >= l.from || strings.HasPrefix(l.from, key)) &&
		(strings.HasPrefix(key, l.prefix) || strings.HasPrefix(l.prefix, key))
}

// merge adds key, after the odd keys that come before it.
func (l *lister) merge(key string) (more bool, err error) {
	for len(l.odd) > 0 && l.odd[0] <= key {
		odd := l.odd[0]
		l.odd = l.odd[1:]
		if more, err := l.add(odd); !more || err != nil || odd == key {
			return more, err
		}
	}
	return l.add(key)
}

// add adds one key to the page, unless the page is full.
func (l *lister) add(key string) (more bool, err error) {
	if key < l.from {
		return true, nil // rolled up already
	}
	if l.max > 0 && l.n == l.max {
		l.page.IsTruncated, l.page.NextMarker = true, l.last
		return false, nil
	}
	if p := l.common(key); p != "" {
		l.page.AddPrefix(p)
		l.from, l.last = past(p), p
		l.n++
		return true, nil
	}
	f, rec, err := l.b.open(key)
	if gofakes3.HasErrorCode(err, gofakes3.ErrNoSuchKey) {
		return true, nil // deleted meanwhile
	} else if err != nil {
		return false, err
	}
	_ = f.Close()
	l.page.Add(&gofakes3.Content{
		Key:          key,
		LastModified: gofakes3.NewContentTime(rec.Time.Truncate(time.Second)), // as HeadObject
		ETag:         rec.etag(),
		Size:         rec.Size,
		StorageClass: gofakes3.StorageStandard,
	})
	l.last = key
	l.n++
	return true, nil
}

// common returns the common prefix that key is rolled up into, if any.
func (l *lister) common(key string) string {
	rest, ok := strings.CutPrefix(key, l.prefix)
	if i := strings.Index(rest, l.delim); ok && l.delim != "" && i >= 0 {
		return key[:len(l.prefix)+i+len(l.delim)]
	}
	return ""
}

// past returns the least string greater than all that begin with p, whose
// last byte is not 0xff since it ends a delimiter.
func past(p string) string {
	end := []byte(p)
	end[len(end)-1]++
	return string(end)
}
