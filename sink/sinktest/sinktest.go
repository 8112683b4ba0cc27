// Package sinktest checks whether a server behaves as Amazon S3 does, as far as
// a store of results depends on it.
//
// The checks speak through the SDK and know nothing of the server or of the
// adapter in sink/s3sink. They share a bucket, which [Run] makes and removes, and
// each keeps to a folder of its own in it.
package sinktest

import (
	"context"
	"crypto/rand"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"upwell/integration/conformance"
)

// A Server is what to test.
type Server struct {
	// Client returns a client of the server that may do everything. It is
	// called for each set of options that the checks need.
	Client func(...func(*s3.Options)) *s3.Client

	// Deviations are the checks that the server is known to fail, by name, each
	// with the reason. One that passes after all is reported.
	Deviations map[string]string
}

// A check is a function that is given a folder to work in.
type check struct {
	name string
	run  func(*folder)
}

// Run tests a server.
func Run(t *testing.T, s Server) {
	t.Helper()
	client := s.Client()
	bucket := "conformance-" + strings.ToLower(rand.Text())
	if _, err := client.CreateBucket(t.Context(), &s3.CreateBucketInput{Bucket: &bucket}); err != nil {
		t.Fatal(err)
	}
	var all []conformance.Check
	for _, c := range slices.Concat(putChecks, conditionChecks, getChecks, listChecks, deleteChecks, keyChecks, bucketChecks, multipartChecks) {
		all = append(all, conformance.Check{Name: c.name, Run: func(x *conformance.T) {
			c.run(&folder{T: x, server: s, client: client, bucket: bucket, prefix: rand.Text() + "/"})
		}})
	}
	conformance.Run(t, all, s.Deviations)
	remove(t, client, bucket)
}

// remove empties and deletes the bucket.
func remove(t *testing.T, client *s3.Client, bucket string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	pages := s3.NewListObjectsV2Paginator(client, &s3.ListObjectsV2Input{Bucket: &bucket})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			t.Logf("the bucket %s is left behind: %v", bucket, err)
			return
		}
		var ids []types.ObjectIdentifier
		for _, o := range page.Contents {
			ids = append(ids, types.ObjectIdentifier{Key: o.Key})
		}
		_, _ = client.DeleteObjects(ctx, &s3.DeleteObjectsInput{Bucket: &bucket, Delete: &types.Delete{Objects: ids, Quiet: new(true)}})
	}
	if _, err := client.DeleteBucket(ctx, &s3.DeleteBucketInput{Bucket: &bucket}); err != nil {
		t.Logf("the bucket %s is left behind: %v", bucket, err)
	}
}
