package mantlesim_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"upwell/worker/mantle/mantlesim"
	"upwell/worker/mantle/mantlesim/capacity"
)

// Each kind in every form it has: what the caller of each API sees, and whether
// the call was billed.
func TestFaults(t *testing.T) {
	type f = mantlesim.Fault
	for _, tc := range []struct {
		fault  f
		code   int
		billed int64
		says   string // in the body of a Responses call
		chat   string // in the body of a Chat call; "" for the same
	}{
		{f{Kind: mantlesim.Throttle}, 429, 0, `"type":"rate_limit_error"`, ""},
		{f{Kind: mantlesim.Throttle, Applied: true}, 429, 1, `"type":"rate_limit_error"`, ""},
		{f{Kind: mantlesim.Unavailable}, 503, 0, `"type":"service_unavailable_error"`, ""},
		{f{Kind: mantlesim.Unavailable, Applied: true}, 503, 1, `"type":"service_unavailable_error"`, ""},
		{f{Kind: mantlesim.Overloaded}, 529, 0, `"type":"overloaded_error"`, ""},
		{f{Kind: mantlesim.Internal}, 500, 0, `"type":"server_error"`, ""},
		{f{Kind: mantlesim.Internal, Applied: true}, 500, 1, `"type":"server_error"`, ""},
		{f{Kind: mantlesim.Internal, Status: 504}, 504, 0, `"type":"server_error"`, ""},
		{f{Kind: mantlesim.Denied}, 401, 0, "not available for this account", ""},
		{f{Kind: mantlesim.Denied, Status: 403}, 403, 0, "access_denied", ""},
		{f{Kind: mantlesim.HTML}, 502, 0, "<html>", ""},
		{f{Kind: mantlesim.HTML, Applied: true}, 502, 1, "<html>", ""},
		{f{Kind: mantlesim.StringError}, 503, 0, `{"error":"overloaded"}`, ""},
		{f{Kind: mantlesim.NestedError}, 503, 0, `{"error":{"message":{"detail":"overloaded"}}}`, ""},
		{f{Kind: mantlesim.AWSError}, 429, 0, `"__type":"ThrottlingException"`, ""},
		{f{Kind: mantlesim.Garbage}, 200, 0, "upstream connect error", ""},
		{f{Kind: mantlesim.Garbage, Applied: true}, 200, 1, "upstream connect error", ""},
		{f{Kind: mantlesim.Truncate}, 200, 1, `"incomplete_details":{"reason":"max_output_tokens"}`, `"finish_reason":"length"`},
		{f{Kind: mantlesim.Decline}, 200, 1, `"type":"refusal"`, `"content":null,"refusal":"I can't`},
		{f{Kind: mantlesim.Filter}, 200, 1, `"incomplete_details":{"reason":"content_filter"}`, `"finish_reason":"content_filter"`},
		{f{Kind: mantlesim.Empty}, 200, 1, `"output":[],`, `"completion_tokens":0`},
		{f{Kind: mantlesim.Failed}, 200, 0, `"status":"failed","background":false,"error":{"code":"server_error"`, `{"error":{"code":"server_error"`},
		{f{Kind: mantlesim.Failed, Applied: true}, 200, 1, `"status":"failed"`, `{"error":{"code":"server_error"`},
		{f{Kind: mantlesim.Slow}, 200, 1, `"status":"completed"`, `"finish_reason":"stop"`},
	} {
		s := mantlesim.New(mantlesim.Config{Faults: []f{tc.fault}})
		a, c := post(s, responses, grok("hi")), post(s, chat, grokChat("hi"))
		inChat := tc.chat
		if inChat == "" {
			inChat = tc.says
		}
		if a.Code != tc.code || c.Code != tc.code || !strings.Contains(a.Text, tc.says) || !strings.Contains(c.Text, inChat) {
			t.Errorf("%+v:\n%d %s\n%d %s", tc.fault, a.Code, a.Text, c.Code, c.Text)
		}
		n := s.Counts()
		if n.Billed != 2*tc.billed || n.Faults[tc.fault.Kind] != 2 || n.Status[tc.code] != 2 || (n.Cost > 0) != (tc.billed > 0) {
			t.Errorf("%+v: %+v, want %d billed", tc.fault, n, 2*tc.billed)
		}
		for _, e := range s.Ledger() {
			if e.Fault != tc.fault.Kind || e.Status != tc.code || e.Billed != (tc.billed == 1) {
				t.Errorf("%+v: ledger has %+v", tc.fault, e)
			}
		}
	}
}

// Empty success: completed, nothing in it, and the input is billed.
func TestEmptyUsage(t *testing.T) {
	s := mantlesim.New(mantlesim.Config{Faults: []mantlesim.Fault{{Kind: mantlesim.Empty}}})
	v := post(s, responses, grok(contract)).decode(t)
	if at(v, "status") != "completed" || at(v, "usage", "output_tokens") != 0. || at(v, "usage", "input_tokens") == 0. {
		t.Errorf("= %v", v)
	}
}

func TestTruncateLeavesHalf(t *testing.T) {
	s := mantlesim.New(mantlesim.Config{Faults: []mantlesim.Fault{{Kind: mantlesim.Truncate}}})
	schema := `,"text":{"format":{"type":"json_schema","name":"x","schema":` + clauses + `}}`
	for range 20 {
		a := post(s, responses, grok(contract, schema))
		if text := a.output(t); text == "" || json.Valid([]byte(text)) {
			t.Errorf("truncated to %q", text)
		}
	}
}

func TestViolations(t *testing.T) {
	s := mantlesim.New(mantlesim.Config{Faults: []mantlesim.Fault{{Kind: mantlesim.Violate}}})
	for _, schema := range []string{
		clauses, `{"type":"string"}`, `{"type":"object"}`, `{"anyOf":[{"required":["a"]},{"type":"object"}]}`,
		`{"required":["a"],"properties":{"a":{"type":"integer"},"b":{}}}`, `{"required":["a"],"type":["object","null","string"]}`,
		`{"$ref":"#/$defs/x","$defs":{"x":{"type":"array"}}}`,
	} {
		check := checker(t, schema)
		for i := range 20 {
			doc := answerTo(t, s, []string{responses, chat}[i%2], schema)
			if err := check(doc); err == nil {
				t.Errorf("%s is satisfied by %s", schema, doc)
			}
		}
	}
}

func TestWrappings(t *testing.T) {
	for kind, around := range map[string][2]string{
		mantlesim.Fence:   {"```json\n", "\n```"},
		mantlesim.Chatter: {"Here is the JSON you asked for:\n\n", "\n\nLet me know if you need anything else [1]."},
	} {
		s := mantlesim.New(mantlesim.Config{Faults: []mantlesim.Fault{{Kind: kind}}})
		for _, path := range []string{responses, chat} {
			text := answerTo(t, s, path, clauses)
			inner := strings.TrimSuffix(strings.TrimPrefix(text, around[0]), around[1])
			if len(inner) != len(text)-len(around[0])-len(around[1]) || checker(t, clauses)(inner) != nil {
				t.Errorf("%s: %q, want a good answer in %q", kind, text, around)
			}
		}
	}
}

func TestFaultConditions(t *testing.T) {
	type f = mantlesim.Fault
	ten := func(s *mantlesim.Server, body ...string) (hit string) {
		for i := range 10 {
			if post(s, responses, body[i%len(body)]).Code == 200 {
				hit += "."
			} else {
				hit += "x"
			}
		}
		return hit
	}
	a, b := grok("plain"), grok("with MARK-7 inside")
	flex := grok("hi", `,"service_tier":"flex"`)
	other := `{"model":"xai.grok-4.6","input":"hi"}`
	for _, tc := range []struct {
		fault f
		body  []string
		want  string
	}{
		{f{}, []string{a}, "xxxxxxxxxx"},
		{f{First: 3, Last: 5}, []string{a}, "..xxx....."},
		{f{First: 9}, []string{a}, "........xx"},
		{f{Times: 2}, []string{a}, "xx........"},
		{f{First: 4, Times: 2}, []string{a}, "...xx....."},
		{f{Match: "MARK-7"}, []string{a, b}, ".x.x.x.x.x"},
		{f{Match: `MARK-\d`, Times: 2}, []string{a, b}, ".x.x......"},
		{f{Match: `MARK-[0-6]`}, []string{a, b}, ".........."},
		{f{Tier: "flex"}, []string{a, a, flex}, "..x..x..x."},
		{f{Model: "xai.grok-4.6"}, []string{a, other}, ".x.x.x.x.x"},
	} {
		tc.fault.Kind = mantlesim.Internal
		s := mantlesim.New(mantlesim.Config{Faults: []f{tc.fault}})
		if got := ten(s, tc.body...); got != tc.want {
			t.Errorf("%+v struck %s, want %s", tc.fault, got, tc.want)
		}
		s.Reset()
		if got := ten(s, tc.body...); got != tc.want {
			t.Errorf("%+v after Reset struck %s, want %s", tc.fault, got, tc.want)
		}
	}
	s := mantlesim.New(mantlesim.Config{Faults: []f{{Kind: mantlesim.Internal, P: 0.3}}})
	for range 1000 {
		post(s, responses, a)
	}
	within(t, "struck with p=0.3", float64(s.Counts().Status[500]), 300, 50)

	s = mantlesim.New(mantlesim.Config{Faults: []f{{Kind: mantlesim.Throttle, Times: 1}, {Kind: mantlesim.Internal, Times: 1}}})
	if x, y, z := post(s, responses, a).Code, post(s, responses, a).Code, post(s, responses, a).Code; x != 429 || y != 500 || z != 200 {
		t.Errorf("in the list's order: %d %d %d, want 429 500 200", x, y, z)
	}
	post(s, responses, `{`) // an invalid call is not a fault's business
	if err := s.SetFaults([]f{{Kind: "explode"}}); err == nil {
		t.Error("an unknown kind was accepted")
	}
	if err := s.SetFaults([]f{{Kind: mantlesim.Internal, Status: 99}}); err == nil {
		t.Error("an impossible status was accepted")
	}
	if err := s.SetFaults([]f{{Kind: mantlesim.Slow, Match: "("}}); err == nil {
		t.Error("a broken expression was accepted")
	}
}

func TestFaultWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		outage := []mantlesim.Fault{{Kind: mantlesim.Unavailable, After: 5 * time.Second, Until: 8 * time.Second, RetryAfter: 3 * time.Second}}
		run := func(s *mantlesim.Server) (codes string) {
			for range 10 {
				if a := post(s, responses, grok("hi")); a.Code == 503 && a.Header.Get("Retry-After") == "3" {
					codes += "x"
				} else {
					codes += "."
				}
				time.Sleep(time.Second)
			}
			return codes
		}
		s := mantlesim.New(mantlesim.Config{Faults: outage})
		time.Sleep(time.Minute) // the clock starts with the first call
		if got := run(s); got != ".....xxx.." {
			t.Errorf("since the first call: %s", got)
		}
		if err := s.SetFaults(outage); err != nil {
			t.Error(err)
		}
		if got := run(s); got != ".....xxx.." {
			t.Errorf("since they were set: %s", got)
		}
	})
}

func TestSlowAndHang(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := mantlesim.New(mantlesim.Config{Latency: steady(time.Second), Faults: []mantlesim.Fault{
			{Kind: mantlesim.Slow, First: 1, Last: 1},
			{Kind: mantlesim.Slow, Factor: 3, First: 2, Last: 2},
			{Kind: mantlesim.Hang, First: 3, Last: 3},
			{Kind: mantlesim.Hang, First: 4, Last: 4, Applied: true},
		}})
		for i, want := range []float64{10, 3, 100, 100, 1} {
			ctx, cancel := context.WithTimeout(t.Context(), 100*time.Second)
			begin := time.Now()
			a := postContext(ctx, s, responses, grok("hi"))
			within(t, "seconds", time.Since(begin).Seconds(), want, 0)
			if a.Broken != (want == 100) {
				t.Errorf("call %d: broken %v", i+1, a.Broken)
			}
			cancel()
		}
		var billed []bool
		for _, e := range s.Ledger() {
			billed = append(billed, e.Billed)
		}
		if want := []bool{true, true, false, true, true}; !slices.Equal(billed, want) {
			t.Errorf("billed %v, want %v", billed, want)
		}
	})
}

// Over a real connection: what a client's network stack makes of it.
func TestBrokenConnections(t *testing.T) {
	s := mantlesim.New(mantlesim.Config{Faults: []mantlesim.Fault{
		{Kind: mantlesim.Reset, First: 1, Last: 1},
		{Kind: mantlesim.Reset, First: 2, Last: 2, Applied: true},
		{Kind: mantlesim.Cut, First: 3, Last: 3},
		{Kind: mantlesim.Hang, First: 4, Last: 4},
	}})
	arrived, left := make(chan bool, 100), make(chan bool, 100)
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() { left <- true }()
		arrived <- true
		s.ServeHTTP(w, r)
	}))
	srv.Config.ConnState = s.ConnState
	srv.Start()
	defer srv.Close()
	call := func(ctx context.Context) (status int, body []byte, err error) {
		r, _ := http.NewRequestWithContext(ctx, http.MethodPost, srv.URL+responses, strings.NewReader(grok("hi")))
		r.Header.Set("Authorization", "Bearer k")
		r.Header.Set("X-Upwell-Job", "j1")
		res, err := srv.Client().Do(r)
		if err != nil {
			return 0, nil, err
		}
		defer res.Body.Close()
		body, err = io.ReadAll(res.Body)
		return res.StatusCode, body, err
	}
	for i := range 2 {
		if status, _, err := call(t.Context()); status != 0 || !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, io.EOF) {
			t.Errorf("reset %d: %v", i+1, err)
		}
		if got := s.Billed("j1"); got != i {
			t.Errorf("after reset %d: billed %d, want %d", i+1, got, i)
		}
	}
	status, body, err := call(t.Context())
	if status != http.StatusOK || !errors.Is(err, io.ErrUnexpectedEOF) || len(body) == 0 || json.Valid(body) {
		t.Errorf("cut: %d, %q, %v", status, body, err)
	}
	for range 3 {
		<-arrived
		<-left
	}
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-arrived; cancel() }()
	if status, _, err := call(ctx); status != 0 || !errors.Is(err, context.Canceled) {
		t.Errorf("hang: %v", err)
	}
	<-left // the server has noticed
	for range 10 {
		if status, _, err := call(t.Context()); err != nil || status != http.StatusOK {
			t.Fatalf("afterwards: %d, %v", status, err)
		}
	}
	n := s.Counts()
	if n.Dropped != 4 || n.Answered != 10 || n.Billed != 12 || n.Repeated != 11 || n.NewConnections != 5 {
		t.Errorf("counts = %+v, want 4 dropped, 10 answered, 12 billed, 11 repeated, 5 connections", n)
	}
}

func TestFaultJSON(t *testing.T) {
	text := `[{"kind":"reset","p":0.5,"first":2,"last":9,"match":"x+","model":"m","tier":"flex","times":3,"applied":true,"status":502,"factor":2,"after":"1m0s","until":"1m30s","retry_after":"2s"}]`
	var list []mantlesim.Fault
	if err := json.Unmarshal([]byte(text), &list); err != nil {
		t.Fatal(err)
	}
	want := mantlesim.Fault{
		Kind: mantlesim.Reset, P: 0.5, First: 2, Last: 9, Match: "x+", Model: "m", Tier: "flex", Times: 3, Applied: true,
		Status: 502, Factor: 2, After: time.Minute, Until: 90 * time.Second, RetryAfter: 2 * time.Second,
	}
	if list[0] != want {
		t.Errorf("= %+v", list[0])
	}
	if out, err := json.Marshal(list); err != nil || string(out) != text {
		t.Errorf("again = %s, %v", out, err)
	}
	for _, bad := range []string{`[{"kind":"reset","when":5}]`, `[{"kind":"reset","after":"soon"}]`, `[{"kind":5}]`} {
		if err := json.Unmarshal([]byte(bad), &list); err == nil {
			t.Errorf("%s was accepted", bad)
		}
	}
}

func TestLedger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := mantlesim.New(mantlesim.Config{LedgerEntries: 5, Latency: steady(2 * time.Second), Keys: []string{"good-key"}, Capacity: capacity.MustScript("0s burst=10; 1h calls=0")})
		body := grok("hi", `,"metadata":{"custom_id":"from-body"}`)
		post(s, responses, body)
		post(s, responses, body, "X-Upwell-Job", "from-header")
		post(s, responses, grok("nameless"))
		send(t.Context(), s, "POST", responses, body, "Authorization", "Bearer bad")
		post(s, responses, `{"model":"nobody"}`, "X-Upwell-Job", "from-header")
		l := s.Ledger()
		for i, want := range []mantlesim.Entry{
			{Seq: 1, Status: 200, Job: "from-body", Billed: true, Model: "xai.grok-4.3", Served: "default"},
			{Seq: 2, Status: 200, Job: "from-header", Billed: true, Model: "xai.grok-4.3", Served: "default"},
			{Seq: 3, Status: 200, Billed: true, Model: "xai.grok-4.3", Served: "default"},
			{Seq: 4, Status: 401, Reason: "access_denied"},
			{Seq: 5, Status: 404, Reason: "model_not_found", Job: "from-header", Model: "nobody"},
		} {
			got := l[i]
			if got.Path != responses || len(got.BodySHA) != 64 || len(got.Key) != 8 || got.Answered.Sub(got.Received) != time.Duration(b2i(want.Billed))*2*time.Second {
				t.Errorf("entry %d = %+v", i, got)
			}
			got.Path, got.BodySHA, got.Key, got.Received, got.Answered, got.Usage, got.Cost = "", "", "", time.Time{}, time.Time{}, mantlesim.Usage{}, 0
			if got != want {
				t.Errorf("entry %d = %+v, want %+v", i, got, want)
			}
		}
		if s.Billed("from-body") != 1 || s.Billed(l[0].BodySHA) != 2 || s.Billed(l[2].BodySHA) != 1 || s.Billed("") != 0 || s.Counts().Repeated != 0 {
			t.Errorf("billed %d, %d, %d, %d", s.Billed("from-body"), s.Billed(l[0].BodySHA), s.Billed(l[2].BodySHA), s.Billed(""))
		}
		post(s, responses, grok("nameless"))
		post(s, responses, body)
		if n := s.Counts(); n.Repeated != 1 || n.Calls != 7 || n.Billed != 5 { // the first from-body had left the ledger
			t.Errorf("counts = %+v, want 7 calls, 5 billed, 1 repeated", n)
		}
		l = s.Ledger()
		if len(l) != 5 || l[0].Seq != 3 || l[4].Seq != 7 || s.Billed("from-header") != 0 || s.Billed("from-body") != 1 {
			t.Errorf("kept %d from %d to %d", len(l), l[0].Seq, l[len(l)-1].Seq)
		}
		var cost float64
		for _, e := range l {
			cost += e.Cost
		}
		if got := s.Counts().Cost; got <= cost {
			t.Errorf("total cost %v is not above that of the entries kept, %v", got, cost)
		}
	})
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

func TestControl(t *testing.T) {
	s := mantlesim.New(mantlesim.Config{})
	srv := httptest.NewServer(s)
	defer srv.Close()
	control := func(method, cmd, body string) (int, string) {
		t.Helper()
		r, _ := http.NewRequestWithContext(t.Context(), method, srv.URL+"/_sim/"+cmd, strings.NewReader(body))
		res, err := srv.Client().Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		b, _ := io.ReadAll(res.Body)
		return res.StatusCode, string(b)
	}
	expect := func(cmd, body string, code, then int) {
		t.Helper()
		if got, text := control("POST", cmd, body); got != code {
			t.Errorf("%s %s = %d %s, want %d", cmd, body, got, text, code)
		}
		if got := post(s, responses, grok("hi")).Code; got != then {
			t.Errorf("after %s %s: %d, want %d", cmd, body, got, then)
		}
	}
	expect("capacity", "0s calls=0", 204, 429)
	expect("capacity", "calls=x", 400, 429)
	expect("capacity", "", 204, 200)
	expect("faults", `[{"kind":"internal"}]`, 204, 500)
	expect("faults", `[{"kind":"explode"}]`, 400, 500)
	expect("faults", `{`, 400, 500)
	expect("faults", `[]`, 204, 200)
	expect("keys", `["other"]`, 204, 401)
	expect("keys", `5`, 400, 401)
	expect("keys", `null`, 204, 200)

	_, text := control("GET", "counts", "")
	var n mantlesim.Counts
	if err := json.Unmarshal([]byte(text), &n); err != nil || n.Calls != 10 || n.Answered != 3 || n.Status[401] != 2 {
		t.Errorf("counts = %s, %v", text, err)
	}
	_, text = control("GET", "ledger", "")
	d, entries := json.NewDecoder(bytes.NewBufferString(text)), 0
	for ; d.More(); entries++ {
		var e mantlesim.Entry
		if err := d.Decode(&e); err != nil || e.Seq != int64(entries+1) {
			t.Fatalf("entry %d = %+v, %v", entries, e, err)
		}
	}
	if entries != 10 || strings.Count(text, "\n") != 10 {
		t.Errorf("%d entries in %d lines", entries, strings.Count(text, "\n"))
	}
	control("POST", "capacity", "calls=0")
	expect("reset", "", 204, 200)
	if n := s.Counts(); n.Calls != 1 || len(s.Ledger()) != 1 {
		t.Errorf("after reset: %+v", n)
	}
	if code, _ := control("GET", "reset", ""); code != 404 {
		t.Errorf("GET reset = %d", code)
	}
}
