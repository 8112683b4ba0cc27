package s3sink_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"upwell/sink"
	"upwell/sink/s3sink"
	"upwell/sink/s3sink/s3sim"
)

// Changes of one line that these tests have been seen to catch: the next part is
// fetched when this one is done; a part with fewer or more ids than it should have
// is taken; a part that is missing is no damage; a write is not tried again.

// A testBucket is a bucket in this process, with a client for what a Sink does not
// do, and the folder that its objects lie in.
type testBucket struct {
	*s3sink.Sink
	client *s3.Client
	dir    string
}

func newTestBucket(t *testing.T, fault func(op, bucket, key string) s3sim.Fault) testBucket {
	t.Helper()
	dir := t.TempDir()
	sim, err := s3sim.New(s3sim.Config{Dir: dir, Keys: map[string]string{"AKID": "secret"}, Fault: fault})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { sim.Close() })
	hc := &http.Client{Transport: inProcess{sim}}
	return testBucket{newBucket(t, "http://s3.test", hc), s3sink.NewClient(aws.Config{
		Region: "us-west-2", BaseEndpoint: new("http://s3.test"), HTTPClient: hc,
		Credentials: credentials.NewStaticCredentialsProvider("AKID", "secret", ""),
	}), filepath.Join(dir, bucket)}
}

// root is the prefix that newBucket's sinks have.
const root = "team a+b/"

// put stores an object that is no Sink's.
func (s testBucket) put(t *testing.T, key string, body []byte) {
	t.Helper()
	_, err := s.client.PutObject(t.Context(), &s3.PutObjectInput{Bucket: new(bucket), Key: new(root + key), Body: bytes.NewReader(body)})
	if err != nil {
		t.Fatal(err)
	}
}

// indexed is the manifest of a run of so many jobs.
func indexed(n int) sink.Manifest {
	return sink.Manifest{Run: "q3", Count: n, InputSHA256: "0123456789abcdef0123", IDParts: sink.IDParts(n)}
}

// numbered returns ids.
func numbered(from, to int) (ids []string) {
	for i := from; i < to; i++ {
		ids = append(ids, fmt.Sprint(i))
	}
	return ids
}

// index stores the index of a run with the ids 0 to m.Count-1.
func (s testBucket) index(t *testing.T, m sink.Manifest) {
	t.Helper()
	for part := range m.IDParts {
		from := part * sink.IDsPerPart
		if err := s.PutIDs(t.Context(), m.Run, m.InputSHA256, part, numbered(from, from+m.IDsIn(part))); err != nil {
			t.Fatal(err)
		}
	}
}

// count reads an index whose ids are numbers in their order.
func (s testBucket) count(t *testing.T, m sink.Manifest) (n int, err error) {
	t.Helper()
	for id, e := range s.IDs(t.Context(), m) {
		switch {
		case e != nil && id != "":
			t.Errorf("an error with the id %q, want none", id)
		case e == nil && id != fmt.Sprint(n):
			t.Fatalf("id %d is %q", n, id)
		case e == nil:
			n++
		}
		err = e
	}
	return n, err
}

func TestIndex(t *testing.T) {
	var fetched atomic.Int64
	s := newTestBucket(t, func(op, _, _ string) s3sim.Fault {
		if op == "GetObject" {
			fetched.Add(1)
		}
		return s3sim.Fault{}
	})
	m := indexed(2*sink.IDsPerPart + 3)
	s.index(t, m)
	if n, err := s.count(t, m); n != m.Count || err != nil {
		t.Errorf("IDs = %d of them, %v, want %d", n, err, m.Count)
	}
	if n := fetched.Load(); n != 3 {
		t.Errorf("%d requests, want one for each of 3 parts", n)
	}
	for _, err := range s.IDs(t.Context(), m) { // stops at once, with a fetch under way
		if err != nil {
			t.Error(err)
		}
		break
	}
	if n := fetched.Load(); n > 3+2 {
		t.Errorf("%d requests for one id, want 2 at most", n-3)
	}
}

// TestNextPartIsFetchedMeanwhile has the first id of a run seen when the second
// part has been asked for.
func TestNextPartIsFetchedMeanwhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var fetched atomic.Int64
		s := newTestBucket(t, func(op, _, _ string) s3sim.Fault {
			if op == "GetObject" {
				fetched.Add(1)
			}
			return s3sim.Fault{}
		})
		m := indexed(sink.IDsPerPart + 1)
		s.index(t, m)
		for _, err := range s.IDs(t.Context(), m) {
			if err != nil {
				t.Error(err)
			}
			synctest.Wait()
			break
		}
		if n := fetched.Load(); n != 2 {
			t.Errorf("%d parts were asked for at the first id, want 2", n)
		}
	})
}

func TestNoIndex(t *testing.T) {
	s := newTestBucket(t, nil)
	m := indexed(3)
	m.IDParts = 0
	for _, m.Count = range []int{3, 0} {
		if _, err := s.count(t, m); !errors.Is(err, sink.ErrNoIndex) || !strings.Contains(err.Error(), `"q3"`) {
			t.Errorf("IDs of %d = %v, want %v", m.Count, err, sink.ErrNoIndex)
		}
	}
}

// TestUncountedIndex has a manifest from before there was an index, which has been
// written since.
func TestUncountedIndex(t *testing.T) {
	s := newTestBucket(t, nil)
	m := indexed(sink.IDsPerPart)
	old := m
	old.IDParts = 0
	s.index(t, m)
	if n, err := s.count(t, old); n != m.Count || err != nil {
		t.Errorf("IDs = %d of them, %v, want %d", n, err, m.Count)
	}
	old.Count++ // of which a second part is missing
	if _, err := s.count(t, old); !errors.Is(err, sink.ErrBadIndex) {
		t.Errorf("IDs = %v, want %v", err, sink.ErrBadIndex)
	}
}

func TestBadIndex(t *testing.T) {
	m := indexed(3)
	key := sink.IDsKey("", m.Run, m.InputSHA256, 0)
	encode := func(ids []string) []byte {
		b, err := sink.EncodeIDs(ids)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	good := encode(numbered(0, 3))
	for name, body := range map[string][]byte{
		"deleted": nil, "empty": {}, "torn": good[:len(good)-4], "no gzip": []byte("0\n1\n2\n"),
		"one less": encode(numbered(0, 2)), "one more": encode(numbered(0, 4)),
	} {
		s := newTestBucket(t, nil)
		if body != nil {
			s.put(t, key, body)
		}
		n, err := s.count(t, m)
		if !errors.Is(err, sink.ErrBadIndex) || !strings.Contains(err.Error(), "s3://bkt/"+root+key) || n > 3 {
			t.Errorf("%s: IDs = %d of them, %v, want %v and where", name, n, err, sink.ErrBadIndex)
		}
		s.index(t, m) // as submitting again does
		if n, err := s.count(t, m); n != 3 || err != nil {
			t.Errorf("%s: IDs = %d of them, %v after the index was written anew, want 3", name, n, err)
		}
	}
}

// TestIndexThroughTrouble lets trouble befall each request, in its two forms.
func TestIndexThroughTrouble(t *testing.T) {
	for name, f := range map[string]s3sim.Fault{
		"refused": {Status: 503, Code: "SlowDown"}, "done and answered wrongly": {Apply: true, Status: 500, Code: "InternalError"},
		"lost": {Drop: true}, "done and lost": {Apply: true, Drop: true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var n atomic.Int64
				s := newTestBucket(t, func(_, _, key string) s3sim.Fault {
					if strings.Contains(key, "/ids/") && n.Add(1)%3 != 0 {
						return f
					}
					return s3sim.Fault{}
				})
				s.index(t, indexed(3))
				if n, err := s.count(t, indexed(3)); n != 3 || err != nil {
					t.Errorf("IDs = %d of them, %v, want 3", n, err)
				}
			})
		})
	}
}

func TestIndexThatMayNotBeWritten(t *testing.T) {
	s := newTestBucket(t, func(_, _, key string) s3sim.Fault {
		if strings.Contains(key, "/ids/") {
			return s3sim.Fault{Status: 403, Code: "AccessDenied"}
		}
		return s3sim.Fault{}
	})
	err := s.PutIDs(t.Context(), "q3", "00ff", 0, numbered(0, 3))
	if err == nil || !strings.Contains(err.Error(), "allow s3:PutObject") {
		t.Errorf("PutIDs = %v, want the permission it takes", err)
	}
}

func TestIndexEndsWithItsContext(t *testing.T) {
	s := newTestBucket(t, nil)
	m := indexed(3)
	s.index(t, m)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, err := range s.IDs(ctx, m) {
		if !errors.Is(err, context.Canceled) || errors.Is(err, sink.ErrBadIndex) {
			t.Errorf("IDs = %v, want %v", err, context.Canceled)
		}
	}
}
