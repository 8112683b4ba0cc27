package s3sink

import (
	"context"
	"encoding/hex"
	"iter"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"upwell/jobs"
	"upwell/sink"
)

// Path returns where in the bucket the line of a job is, or would be.
func (s *Sink) Path(kind sink.Kind, k jobs.Key) string { return kind.Key(s.prefix, k) }

// Shards returns the shards that hold lines of a run, in their order: those with
// anything in them of the 256 for [Sink.ListShard]. It makes one request for
// each 1,000 folders.
func (s *Sink) Shards(ctx context.Context, run string, kind sink.Kind) (shards []byte, err error) {
	err = s.pages(ctx, kind.Prefix(s.prefix, run), "/", func(page *s3.ListObjectsV2Output) bool {
		for _, p := range page.CommonPrefixes {
			if shard, ok := shardOf(aws.ToString(p.Prefix)); ok {
				shards = append(shards, shard)
			}
		}
		return true
	})
	return shards, err
}

// ListShard returns what lies in one of a run's 256 shards, sorted by its path.
// The shard of a job is the first byte of its custom_id's SHA-256. Unlike
// [Sink.List], it yields what is no line too, with an empty CustomID, and with
// Whole false. An error ends the listing; it is the last pair.
func (s *Sink) ListShard(ctx context.Context, run string, kind sink.Kind, shard byte) iter.Seq2[Object, error] {
	folder := kind.Prefix(s.prefix, run) + hex.EncodeToString([]byte{shard}) + "/"
	return s.objects(ctx, run, folder)
}

// Strays returns what lies among the lines of a run and in none of its shards.
// None of it is a line in its place. An error ends the listing; it is the last
// pair.
func (s *Sink) Strays(ctx context.Context, run string, kind sink.Kind) iter.Seq2[Object, error] {
	return func(yield func(Object, error) bool) {
		prefix, more := kind.Prefix(s.prefix, run), true
		err := s.pages(ctx, prefix, "/", func(page *s3.ListObjectsV2Output) bool {
			more = more && yieldObjects(run, "", page.Contents, yield)
			for _, p := range page.CommonPrefixes {
				folder := aws.ToString(p.Prefix)
				if _, ok := shardOf(folder); ok || !more {
					continue
				}
				for o, err := range s.objects(ctx, run, folder) {
					if more = yield(o, err); !more || err != nil {
						more = false
						break
					}
				}
			}
			return more
		})
		if err != nil {
			yield(Object{}, err)
		}
	}
}

// shardOf returns the shard that a folder is.
func shardOf(folder string) (shard byte, ok bool) {
	_, name := cutLast(strings.TrimSuffix(folder, "/"))
	b, err := hex.DecodeString(name)
	if err != nil || len(b) != 1 || hex.EncodeToString(b) != name {
		return 0, false
	}
	return b[0], true
}

// cutLast returns a key's folder, with its slash, and what follows.
func cutLast(key string) (folder, name string) {
	i := strings.LastIndexByte(key, '/') + 1
	return key[:i], key[i:]
}

// objects lists a folder and what is beneath it.
func (s *Sink) objects(ctx context.Context, run, folder string) iter.Seq2[Object, error] {
	return func(yield func(Object, error) bool) {
		err := s.pages(ctx, folder, "", func(page *s3.ListObjectsV2Output) bool {
			return yieldObjects(run, folder, page.Contents, yield)
		})
		if err != nil {
			yield(Object{}, err)
		}
	}
}

// yieldObjects yields what a listing has found. Only what is right in folder can
// be a line. Empty objects whose names end in a slash are what consoles make to
// show an empty folder, and are passed over.
func yieldObjects(run, folder string, found []types.Object, yield func(Object, error) bool) bool {
	for _, c := range found {
		if strings.HasSuffix(aws.ToString(c.Key), "/") && aws.ToInt64(c.Size) == 0 {
			continue
		}
		o, line := listed(run, c)
		if in, _ := cutLast(o.Path); !line || in != folder {
			o.Key, o.Whole = jobs.Key{Run: run}, false
			o.Path = aws.ToString(c.Key)
		}
		if !yield(o, nil) {
			return false
		}
	}
	return true
}

// pages gives each page of a listing to do, until that returns false.
func (s *Sink) pages(ctx context.Context, prefix, delimiter string, do func(*s3.ListObjectsV2Output) bool) error {
	in := &s3.ListObjectsV2Input{Bucket: &s.bucket, Prefix: &prefix}
	if delimiter != "" {
		in.Delimiter = &delimiter
	}
	pages := s3.NewListObjectsV2Paginator(s.client, in)
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return s.wrap("list", prefix, s.explain("s3:ListBucket", err))
		}
		if !do(page) {
			return nil
		}
	}
	return nil
}
