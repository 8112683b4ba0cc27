package mantlesim

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"hash/maphash"
	"math"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"upwell/worker/mantle/mantlesim/capacity"
)

// A Server is a simulated endpoint. All methods may be called concurrently.
type Server struct {
	cfg     Config
	buffers sync.Pool // of *bytes.Buffer: request bodies until they are decoded
	cache   cache

	mu     sync.Mutex
	rng    *rand.Rand
	seq    int64
	keys   []string // nil accepts any
	room   *room
	faults faults
	ledger ledger
}

// New returns a Server. It panics if the Config's capacity or faults are not
// valid; capacity.ParseScript and SetFaults report the same as errors.
func New(cfg Config) *Server {
	s := &Server{cfg: cfg.withDefaults()}
	s.cache.block, s.cache.seed = s.cfg.CacheTokens, maphash.MakeSeed()
	s.buffers.New = func() any { return new(bytes.Buffer) }
	if err := s.reset(); err != nil {
		panic("mantlesim: " + err.Error())
	}
	return s
}

// Reset forgets all calls and all settings made since New. Calls in progress go
// on under the old ones.
func (s *Server) Reset() {
	if err := s.reset(); err != nil {
		panic("mantlesim: " + err.Error()) // it was valid in New
	}
}

func (s *Server) reset() error {
	hidden, err := capacity.New(s.cfg.Capacity)
	if err != nil {
		return err
	}
	fs, err := arm(s.cfg.Faults)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	old := s.ledger.counts
	s.rng, s.seq, s.keys = rand.New(rand.NewPCG(s.cfg.Seed, 0x6d616e746c65)), 0, s.cfg.Keys
	s.room = &room{Capacity: hidden}
	s.faults, s.ledger = fs, newLedger(s.cfg.LedgerEntries)
	s.cache.clear()
	s.ledger.counts.InFlight, s.ledger.counts.PeakInFlight = old.InFlight, old.InFlight
	s.ledger.counts.NewConnections = old.NewConnections
	return nil
}

// SetCapacity replaces the capacity; the script's clock starts now.
func (s *Server) SetCapacity(script capacity.Script) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	now, r := time.Now(), *s.room
	r.open(now)
	if err := r.Set(script, r.at(now)); err != nil {
		return err // and the clock is as it was
	}
	*s.room = r
	return nil
}

// ServeHTTP answers inference, model lists and the control API.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	path := r.URL.Path
	if cmd, ok := strings.CutPrefix(path, "/_sim/"); ok {
		s.control(w, r, cmd)
		return
	}
	base := standard
	if strings.HasPrefix(path, frontier+"/") {
		base = frontier
	}
	api, ok := strings.CutPrefix(path, base+"/")
	switch {
	case ok && api == "models" && r.Method == http.MethodGet:
		s.models(r).send(w)
	case ok && (api == "responses" || api == "chat/completions") && r.Method == http.MethodPost:
		s.infer(w, r, base, api)
	case ok && (api == "responses" || api == "chat/completions" || api == "models"):
		(&apiError{405, "method_not_allowed", "invalid_request_error", "Method " + r.Method + " is not allowed here.", ""}).reply().send(w)
	default: // also /responses/{id}: nothing is stored
		(&apiError{404, "not_found", "invalid_request_error", "No such route or object: " + r.Method + " " + path, ""}).reply().send(w)
	}
}

// models lists all models on either base path, as the real endpoint does.
func (s *Server) models(r *http.Request) reply {
	if _, err := s.authorize(r.Header); err != nil {
		return asAPIError(err).reply()
	}
	data := []any{}
	for _, m := range s.cfg.Models {
		vendor, _, _ := strings.Cut(m.ID, ".")
		data = append(data, map[string]any{"id": m.ID, "object": "model", "created": 0, "owned_by": vendor})
	}
	return jsonReply(http.StatusOK, map[string]any{"object": "list", "data": data})
}

// A call is one inference request in progress. Its handler's goroutine owns it.
type call struct {
	Entry
	id     string
	rng    *rand.Rand
	found  []*armed // faults whose expression matches the body
	cached int      // tokens
	room   *room    // that the claim is on; nil, with the claim, until it is admitted
	claim  *capacity.Claim
	ready  chan struct{} // closed when a claim that waits has its slot; nil if it need not wait
}

func (s *Server) infer(w http.ResponseWriter, r *http.Request, base, api string) {
	c := s.open(r)
	rep := s.answer(w, r, c, base, api)
	rep.id = c.id
	s.end(c, rep)
	rep.send(w)
}

func (s *Server) open(r *http.Request) *call {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seq++
	n := &s.ledger.counts
	n.Calls++
	n.InFlight++
	n.PeakInFlight = max(n.PeakInFlight, n.InFlight)
	c := &call{rng: rand.New(rand.NewPCG(s.rng.Uint64(), s.rng.Uint64()))}
	c.Seq, c.Received, c.Path = s.seq, time.Now(), r.URL.Path
	c.id = "req_" + hexID(c.rng, 12)
	return c
}

func (s *Server) end(c *call, rep reply) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c.Answered, c.Status = time.Now(), rep.status
	s.ledger.counts.InFlight--
	s.ledger.add(c.Entry, rep.drop || rep.cut)
}

// answer works out what c is told. The request is not referenced any more once
// the call has to wait.
func (s *Server) answer(w http.ResponseWriter, r *http.Request, c *call, base, api string) reply {
	q, err := s.read(w, r, c)
	if err == nil {
		err = s.validate(q, base, api)
		c.Model, c.Served = q.Model, q.tier
	}
	if err != nil {
		e := asAPIError(err)
		c.Reason = e.code
		return e.reply()
	}
	f, refused := s.decide(c, q)
	switch {
	case f.early():
		return s.strikes(r.Context(), c, f)
	case refused != "":
		return s.refuse(r.Context(), c, refused)
	}
	o := s.compose(c, q, f)
	rep := o.render(c, q)
	return s.generate(r.Context(), c, o, f, rep, q.model)
}

// read takes in the body, checks the key and decodes. The body is kept only as
// long as that lasts.
func (s *Server) read(w http.ResponseWriter, r *http.Request, c *call) (*request, error) {
	b := s.buffers.Get().(*bytes.Buffer)
	defer s.buffers.Put(b)
	b.Reset()
	_, err := b.ReadFrom(http.MaxBytesReader(w, r.Body, s.cfg.MaxBody))
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return nil, &apiError{413, "request_too_large", "invalid_request_error", "Request body is too large.", ""}
	}
	if err != nil {
		return nil, &apiError{400, hungUp, "invalid_request_error", "Request body broke off.", ""}
	}
	sum := sha256.Sum256(b.Bytes())
	c.BodySHA, c.Job = hex.EncodeToString(sum[:]), r.Header.Get("X-Upwell-Job")
	if c.Key, err = s.authorize(r.Header); err != nil {
		return nil, err
	}
	q, err := decode(b.Bytes())
	if err != nil {
		return nil, err
	}
	c.Job = q.job(r.Header)
	if q.Tier != nil {
		c.Tier = *q.Tier
	}
	c.found = s.matching(b.Bytes())
	return q, nil
}

// decide settles the fate of a valid call: a fault, a refusal by capacity, or a
// claim.
func (s *Server) decide(c *call, q *request) (f Fault, refused capacity.Reason) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	if s.faults.start.IsZero() {
		s.faults.start = now
	}
	s.room.open(now)
	if f = s.faults.strike(c.found, c, now); f.Kind != "" {
		c.Fault = f.Kind
	}
	if f.early() {
		return f, ""
	}
	c.cached = s.cache.hit(q.prefix, q.input)
	if refused = s.admit(c, q, now); refused != "" {
		return Fault{}, refused
	}
	s.cache.add(q.prefix)
	return f, ""
}

// generate waits for a slot and for the model, and books the outcome.
func (s *Server) generate(ctx context.Context, c *call, o output, f Fault, rep reply, m *Model) reply {
	tier := s.cfg.Tiers[c.Served]
	used := 0
	defer func() { s.release(c, used) }()
	if why := s.await(ctx, c); why != "" {
		return s.refuse(ctx, c, why)
	}
	latency := s.cfg.Latency.draw(o.length, c.rng.NormFloat64())
	factor := c.claim.Slow() * tier.Latency
	if f.Kind == Slow {
		factor *= cmp.Or(f.Factor, 10)
	}
	took := time.Duration(float64(latency) * factor)
	s.work(c, o.usage.Output, took)
	whole := sleep(ctx, took)
	if f.Kind == Failed && !f.Applied || !whole && s.cfg.FreeAbandoned {
		o.usage = Usage{}
	} else {
		used = o.usage.Input - o.usage.Cached + o.usage.Output
		c.Billed, c.Usage, c.Cost = true, o.usage, m.cost(o.usage, tier)
	}
	if !whole {
		c.Reason = hungUp
		return reply{drop: true}
	}
	if f.Applied && f.Kind != Failed {
		if spoilt, ok := f.reply(); ok {
			return s.hold(ctx, spoilt, f)
		}
	}
	rep.cut = f.Kind == Cut
	return rep
}

// strikes answers with a fault that comes instead of generation.
func (s *Server) strikes(ctx context.Context, c *call, f Fault) reply {
	rep, _ := f.reply()
	if f.Kind != Hang && !sleep(ctx, s.cfg.Refusal.Delay) {
		c.Reason = hungUp
		return reply{drop: true}
	}
	return s.hold(ctx, rep, f)
}

// hold keeps the answer back until the client hangs up, if f is a Hang.
func (s *Server) hold(ctx context.Context, rep reply, f Fault) reply {
	if f.Kind == Hang {
		<-ctx.Done()
	}
	rep.date = s.cfg.Refusal.RetryDate
	if rep.retry == 0 && rep.throttled() {
		rep.retry = s.cfg.Refusal.RetryAfter
	}
	return rep
}

// refuse answers a call that was not admitted, or that waited in vain.
func (s *Server) refuse(ctx context.Context, c *call, why capacity.Reason) reply {
	c.Reason = string(why)
	if why == hungUp || !sleep(ctx, s.cfg.Refusal.Delay) {
		c.Reason = hungUp
		return reply{drop: true}
	}
	r := s.cfg.Refusal
	var status int
	switch why {
	case capacity.OverSlots, capacity.OverWait:
		status = r.Capacity
	case capacity.Refused:
		status = s.cfg.Tiers[c.Served].Status
	default:
		status = r.Quota
	}
	if luck := c.rng.Float64(); why != capacity.Refused && luck < r.Overloaded {
		status = statusOverloaded
	} else if why != capacity.Refused && luck < r.Overloaded+r.Unavailable {
		status = http.StatusServiceUnavailable
	}
	e := statusError(status)
	switch why {
	case capacity.OverTokens, capacity.OverOutput:
		e.message = "Too many tokens. Reduce your token rate or max_tokens."
	case capacity.Refused:
		e.code, e.message = "capacity_unavailable", "No "+c.Served+" capacity is available. Try again later or use another service tier."
	default: // what the status says
	}
	return s.hold(ctx, e.reply(), Fault{})
}

// sleep waits for d and reports whether it could: false means that the client
// hung up.
func sleep(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// A reply is what goes over the wire, or does not.
type reply struct {
	id     string
	status int
	kind   string // content type
	body   []byte
	retry  time.Duration // for Retry-After, if positive
	date   bool          // as an HTTP date
	cut    bool          // break off in the middle of the body
	drop   bool          // break off before the first byte
}

func jsonReply(status int, v any) reply {
	return reply{status: status, kind: "application/json", body: []byte(marshal(v))}
}

func (rep reply) throttled() bool {
	return rep.status == http.StatusTooManyRequests || rep.status == http.StatusServiceUnavailable || rep.status == statusOverloaded
}

func (rep reply) send(w http.ResponseWriter) {
	if rep.drop {
		drop(w)
		return
	}
	h := w.Header()
	h.Set("Content-Type", rep.kind)
	h.Set("Content-Length", strconv.Itoa(len(rep.body)))
	if rep.id != "" {
		h.Set("X-Request-Id", rep.id)
		h.Set("X-Amzn-Requestid", rep.id)
	}
	if secs := math.Ceil(rep.retry.Seconds()); secs > 0 {
		h.Set("Retry-After", strconv.Itoa(int(secs)))
		if rep.date {
			h.Set("Retry-After", time.Now().Add(time.Duration(secs)*time.Second).UTC().Format(http.TimeFormat))
		}
	}
	w.WriteHeader(rep.status)
	if !rep.cut {
		_, _ = w.Write(rep.body) // a client that has gone misses nothing
		return
	}
	_, _ = w.Write(rep.body[:len(rep.body)/2])
	http.NewResponseController(w).Flush()
	panic(http.ErrAbortHandler)
}

// drop breaks the connection: with a reset where TCP allows it.
func drop(w http.ResponseWriter) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	if tcp, ok := conn.(interface{ SetLinger(int) error }); ok {
		_ = tcp.SetLinger(0)
	}
	conn.Close()
}
