package opener

import (
	"fmt"
	"path"
	"strings"

	"upwell/jobs/foreign"
)

// A Place is a part of a bucket: all objects beneath a prefix, which ends at a whole
// element of their keys.
type Place struct {
	Bucket string
	Prefix string // without slashes around it; empty for all of the bucket
}

// ParsePlace reads an s3 URL such as s3://bucket/prefix.
func ParsePlace(text string) (Place, error) {
	rest, ok := strings.CutPrefix(text, "s3://")
	bucket, prefix, _ := strings.Cut(rest, "/")
	if !ok || bucket == "" || strings.ContainsAny(bucket, "*?[") {
		return Place{}, fmt.Errorf("%q, want a place in S3 such as s3://bucket/prefix", text)
	}
	return Place{bucket, strings.Trim(prefix, "/")}, nil
}

func (p Place) String() string { return "s3://" + strings.TrimSuffix(p.Bucket+"/"+p.Prefix, "/") }

// Holds reports whether the object is in the place. s3://b/in does not hold
// s3://b/inside.
func (p Place) Holds(o foreign.Object) bool {
	return o.Bucket == p.Bucket && (p.Prefix == "" || o.Key == p.Prefix || strings.HasPrefix(o.Key, p.Prefix+"/"))
}

// placeOf returns the smallest place that holds the object and others beside it.
func placeOf(o foreign.Object) Place {
	dir := strings.Trim(path.Dir(o.Key), "/")
	if dir == "." {
		dir = ""
	}
	return Place{o.Bucket, dir}
}
