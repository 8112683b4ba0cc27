package s3sink_test

import (
	"errors"
	"io/fs"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"

	"upwell/jobs"
)

func TestBodies(t *testing.T) {
	const large = `{"custom_id":"contracts/msa 42+é.pdf","body":{ "input":"\u0001" }}`
	for _, tt := range []struct {
		name string
		key  jobs.Key
		ref  string
	}{
		{"by custom_id", job, "s3://bkt/team/runs/q3/letters/ac/contracts%2Fmsa%2042%2B%C3%A9.pdf.json"},
		{"by message id", jobs.Key{Run: "default"}, "s3://bkt/team/runs/default/letters/1e/0a-1b.json"},
	} {
		s := newFake(t).sink()
		for _, body := range []string{"an earlier one", large, large} {
			ref, err := s.PutBody(t.Context(), tt.key, "0a-1b", []byte(body))
			if ref != tt.ref || err != nil {
				t.Errorf("%s: PutBody = %s, %v, want %s", tt.name, ref, err, tt.ref)
			}
		}
		if got, err := s.Body(t.Context(), tt.ref); string(got) != large || err != nil {
			t.Errorf("%s: Body = %q, %v, want what was stored last", tt.name, got, err)
		}
	}
}

// References come from messages, so they must not lead to what else is in the
// account.
func TestBodiesElsewhere(t *testing.T) {
	f := newFake(t)
	s := f.sink()
	for _, ref := range []string{
		"", "s3://", "s3://bkt", "s3://bkt/", "s3://bkt/team/", "s3://bkt/team/runs", "s3://bkt/team/runs/", "s3://other/team/runs/q3/letters/00/a.json",
		"s3://bkt/runs/q3/letters/00/a.json", "s3://bkt/teams/runs/q3/a", "s3://bkt/team/state/levels.json", "s3://bkt/team/runs/../state/levels.json",
		"s3://bkt/team/runs/q3//a.json", "S3://bkt/team/runs/q3/a.json", "https://bkt/team/runs/q3/a.json", " s3://bkt/team/runs/q3/a.json",
	} {
		if b, err := s.Body(t.Context(), ref); err == nil || !strings.Contains(err.Error(), "is not in s3://bkt/team/runs/") {
			t.Errorf("Body(%q) = %q, %v, want it refused", ref, b, err)
		}
	}
	if log := f.log(); log != "" {
		t.Errorf("requests: %s, want none", log)
	}
	if _, err := s.Body(t.Context(), "s3://bkt/team/runs/q3/letters/00/a.json"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Body of nothing = %v, want %v", err, fs.ErrNotExist)
	}
}

// A body is written until it is there, like everything that is paid for.
func TestBodiesInTrouble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		s := f.sink()
		f.fault = func(n int, _ *http.Request) fault {
			if n < 20 {
				return fault{status: http.StatusInternalServerError, code: "InternalError", applied: n%2 == 0}
			}
			return fault{}
		}
		ref, err := s.PutBody(t.Context(), job, "m", []byte("b"))
		if err != nil {
			t.Fatalf("PutBody = %v, want nil", err)
		}
		if b, err := s.Body(t.Context(), ref); string(b) != "b" || err != nil {
			t.Errorf("Body = %q, %v, want b", b, err)
		}
	})
}
