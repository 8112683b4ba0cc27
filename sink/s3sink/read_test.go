package s3sink_test

import (
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"upwell/jobs"
	"upwell/sink"
	"upwell/sink/s3sink"
)

var errNotExist = fs.ErrNotExist

func TestHasSaysWhichPermissionIsMissing(t *testing.T) {
	f := newFake(t)
	f.fault = func(int, *http.Request) fault { return fault{status: 403, code: "AccessDenied"} }
	has, err := f.sink().Has(t.Context(), job)
	if has || err == nil || !strings.Contains(err.Error(), "s3:ListBucket on bkt:") {
		t.Errorf("Has = %v, %v, want an error that names s3:ListBucket", has, err)
	}
}

func TestReadOfNothing(t *testing.T) {
	s := newFake(t).sink()
	if _, err := s.Read(t.Context(), sink.Results, job); !errors.Is(err, errNotExist) {
		t.Errorf("Read = %v, want %v", err, errNotExist)
	}
}

func TestReadOfWhatIsNoLine(t *testing.T) {
	f := newFake(t)
	f.objects[sink.Results.Key("team", job)] = http.Header{"Body": {"<html>"}}
	if _, err := f.sink().Read(t.Context(), sink.Results, job); err == nil || !strings.Contains(err.Error(), "s3 get s3://bkt/team/runs/q3/") {
		t.Errorf("Read = %v, want an error that says where", err)
	}
}

func TestList(t *testing.T) {
	f := newFake(t)
	s := f.sink()
	ids := []string{"a", "b/c", "..", strings.Repeat("long ", 99), "d", "e", ""}
	for _, id := range ids {
		k := jobs.Key{Run: "q3", CustomID: id}
		if _, err := s.Put(t.Context(), k, jobs.Result{CustomID: id}); err != nil {
			t.Fatal(err)
		}
		k.Run = "q30"
		if _, err := s.Put(t.Context(), k, jobs.Result{}); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.PutError(t.Context(), job, result("no")); err != nil {
		t.Fatal(err)
	}
	for _, foreign := range []string{"", "_SUCCESS", "00/", "zz/a.json", "00/.json"} {
		f.objects["team/runs/q3/results/"+foreign] = http.Header{"Body": {""}}
	}

	var got []string
	for o, err := range s.List(t.Context(), "q3", sink.Results) {
		if err != nil {
			t.Fatal(err)
		}
		r, err := s.ReadObject(t.Context(), o)
		if err != nil || o.Key.Run != "q3" || !o.Modified.Equal(stored) || o.Size == 0 {
			t.Errorf("%+v: %v", o, err)
		}
		if whole := len(r.CustomID) < 200; o.Whole != whole || !strings.HasPrefix(r.CustomID, o.Key.CustomID) {
			t.Errorf("%+v of the custom_id %q", o, r.CustomID)
		}
		got = append(got, r.CustomID)
	}
	slices.Sort(got)
	slices.Sort(ids)
	if diff := cmp.Diff(ids, got); diff != "" {
		t.Errorf("listed (-want +got):\n%s", diff)
	}
}

func TestListStopsWhenToldTo(t *testing.T) {
	f := newFake(t)
	s := f.sink()
	for i := range 6 {
		if _, err := s.Put(t.Context(), jobs.Key{Run: "q3", CustomID: fmt.Sprint(i)}, jobs.Result{}); err != nil {
			t.Fatal(err)
		}
	}
	f.requests = nil
	for _, err := range s.List(t.Context(), "q3", sink.Results) {
		if err != nil {
			t.Errorf("List = %v, want nil", err)
		}
		break
	}
	if f.log() != "GET" {
		t.Errorf("requests: %s, want GET", f.log())
	}
}

func TestListReportsTrouble(t *testing.T) {
	f := newFake(t)
	s := f.sink()
	for i := range 4 {
		if _, err := s.Put(t.Context(), jobs.Key{Run: "q3", CustomID: fmt.Sprint(i)}, jobs.Result{}); err != nil {
			t.Fatal(err)
		}
	}
	f.requests = nil
	f.fault = func(n int, _ *http.Request) fault {
		if n == 1 {
			return fault{status: 403, code: "AccessDenied"}
		}
		return fault{}
	}
	var errs []string
	var seen int
	for o, err := range s.List(t.Context(), "q3", sink.Results) {
		seen++
		if err != nil {
			errs = append(errs, err.Error())
			if o != (s3sink.Object{}) {
				t.Errorf("an error with the object %v", o)
			}
		}
	}
	if seen != 3 || len(errs) != 1 || !strings.Contains(errs[0], "allow s3:ListBucket on bkt") {
		t.Errorf("%d pairs and the errors %q, want 3 and one that names s3:ListBucket", seen, errs)
	}
}

func TestCheck(t *testing.T) {
	for _, tt := range []struct {
		fault fault
		want  string
	}{
		{fault{}, ""},
		{fault{status: 404}, "there is no such bucket: create it"},
		{fault{status: 403}, "allow s3:ListBucket on bkt"},
		{fault{status: 301, home: "eu-west-1"}, "the bucket is in eu-west-1, not in us-west-2"},
		{fault{status: 400, home: "eu-west-1"}, "the bucket is in eu-west-1, not in us-west-2"},
		{fault{status: 403, home: "us-west-2"}, "allow s3:ListBucket on bkt"},
	} {
		f := newFake(t)
		f.fault = func(int, *http.Request) fault { return tt.fault }
		switch err := f.sink().Check(t.Context()); {
		case tt.want == "" && err != nil:
			t.Errorf("Check = %v, want nil", err)
		case tt.want != "" && (err == nil || !strings.Contains(err.Error(), "s3 check s3://bkt: "+tt.want)):
			t.Errorf("Check with %v = %v, want %q", tt.fault, err, tt.want)
		}
	}
}
