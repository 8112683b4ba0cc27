package s3sim

import (
	"net/http"
	"net/url"
	"strings"
)

// operations names what a request asks for: by "bucket" or "object", its
// method, and the query parameter that selects among several.
var operations = map[string]string{
	"bucket PUT":            "CreateBucket",
	"bucket HEAD":           "HeadBucket",
	"bucket DELETE":         "DeleteBucket",
	"bucket GET":            "ListObjects",
	"bucket GET list-type":  "ListObjectsV2",
	"bucket GET uploads":    "ListMultipartUploads",
	"bucket GET versions":   "ListObjectVersions",
	"bucket GET location":   "GetBucketLocation",
	"bucket GET versioning": "GetBucketVersioning",
	"bucket POST delete":    "DeleteObjects",
	"bucket POST":           "PostObject",

	"object GET":             "GetObject",
	"object GET attributes":  "GetObjectAttributes",
	"object GET tagging":     "GetObjectTagging",
	"object GET uploadId":    "ListParts",
	"object HEAD":            "HeadObject",
	"object DELETE":          "DeleteObject",
	"object DELETE tagging":  "DeleteObjectTagging",
	"object DELETE uploadId": "AbortMultipartUpload",
	"object PUT":             "PutObject",
	"object PUT tagging":     "PutObjectTagging",
	"object PUT uploadId":    "UploadPart",
	"object POST uploads":    "CreateMultipartUpload",
	"object POST uploadId":   "CompleteMultipartUpload",
}

// selectors are the query parameters that select an operation: those that
// operations mentions, and those of operations that have no name here.
var selectors = []string{
	"uploadId", "uploads", "tagging", "attributes",
	"list-type", "versions", "location", "versioning", "delete",

	"acl", "cors", "encryption", "legal-hold", "lifecycle", "logging", "notification", "object-lock",
	"ownershipControls", "policy", "publicAccessBlock", "replication", "retention", "website",
}

// operation says which S3 operation r asks for, and on what. It is "Other"
// for those that have no name here.
func operation(r *http.Request) (op, bucket, key string) {
	bucket, key, _ = strings.Cut(strings.TrimLeft(r.URL.Path, "/"), "/")
	switch {
	case bucket == "":
		return "ListBuckets", "", ""
	case key == "":
		op = "bucket " + r.Method
	default:
		op = "object " + r.Method
	}
	name, ok := operations[op+selector(r.URL.Query())]
	switch {
	case !ok:
		name = "Other"
	case r.Header.Get("X-Amz-Copy-Source") == "":
	case name == "PutObject":
		name = "CopyObject"
	case name == "UploadPart":
		name = "UploadPartCopy"
	}
	return name, bucket, key
}

// selector returns the parameter in q that selects an operation, after a
// space, or nothing.
func selector(q url.Values) string {
	for _, s := range selectors {
		if q.Has(s) {
			return " " + s
		}
	}
	return ""
}
