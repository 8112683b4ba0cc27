package dashboard

import (
	"context"
	"net/http"
	"strings"
	"time"

	"upwell/jobs"
)

const (
	// mostLooks bounds the jobs that are looked up at a time: a page has one.
	mostLooks = 4

	// lookTime is how long one may take.
	lookTime = 10 * time.Second

	// nameMost bounds what is asked for, textMost the text of an answer that is
	// shown, reasonMost that of an error, in bytes, and attemptsMost the attempts: the
	// first ones and the last.
	nameMost     = 64 << 10
	textMost     = 256 << 10
	reasonMost   = 16 << 10
	attemptsMost = 100
)

// A jobView is what a job's page shows.
type jobView struct {
	Run      string `json:"run"`
	CustomID string `json:"custom_id"`
	State    string `json:"state"` // under_way, stored or failed

	Since   *time.Time `json:"since,omitempty"` // under_way
	Calling bool       `json:"calling,omitzero"`

	Finished   *time.Time     `json:"finished,omitempty"` // stored, failed
	Model      string         `json:"model,omitzero"`
	Tier       string         `json:"tier,omitzero"`
	Region     string         `json:"region,omitzero"`
	Usage      *jobs.Usage    `json:"usage,omitempty"`
	CostUSD    *jobs.USD      `json:"cost_usd,omitempty"`
	Billed     int            `json:"billed_calls,omitzero"`
	Repairs    int            `json:"repairs,omitzero"`
	Extensions int            `json:"extensions,omitzero"`
	Class      jobs.Class     `json:"class,omitzero"`  // failed
	Reason     string         `json:"reason,omitzero"` // failed
	Output     string         `json:"output,omitzero"`
	Cut        bool           `json:"output_cut,omitzero"` // there is more of it
	Attempts   []jobs.Attempt `json:"attempts"`
	Left       int            `json:"attempts_left_out,omitzero"` // from the middle
}

// job serves what is known of a job: what the worker does with it, or what is stored.
func (d *Dashboard) job(rw http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	k := jobs.Key{Run: q.Get("run"), CustomID: q.Get("id")}
	if k.CustomID == "" || len(k.Run)+len(k.CustomID) > nameMost {
		refuse(rw, r, http.StatusBadRequest, "give the job's custom_id as id, and its run")
		return
	}
	if u, ok := d.cfg.Meter.Underway(k); ok {
		v := jobView{Run: k.Run, CustomID: k.CustomID, State: "under_way", Since: &u.Since, Calling: u.Calling}
		v.attempts(u.Attempts)
		answer(rw, http.StatusOK, v)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), lookTime)
	defer cancel()
	res, ok, err := d.stored(ctx, k)
	switch {
	case err != nil:
		d.cfg.Log.WarnContext(ctx, "looking up a job for the dashboard", "job", k.String(), "err", err)
		refuse(rw, r, http.StatusBadGateway, "the store could not be asked: "+cut(err.Error(), reasonMost))
	case !ok:
		refuse(rw, r, http.StatusNotFound, "nothing is stored for this job yet, and no call for it is under way here")
	default:
		answer(rw, http.StatusOK, view(k, res))
	}
}

// stored asks for the job's line, when it is the turn of this request.
func (d *Dashboard) stored(ctx context.Context, k jobs.Key) (r jobs.Result, ok bool, err error) {
	if d.cfg.Result == nil {
		return r, false, nil
	}
	select {
	case d.looks <- struct{}{}:
		defer func() { <-d.looks }()
	case <-ctx.Done():
		return r, false, ctx.Err()
	}
	return d.cfg.Result(ctx, k)
}

func view(k jobs.Key, r jobs.Result) jobView {
	u := &r.Upwell
	v := jobView{
		Run: k.Run, CustomID: k.CustomID, State: "stored",
		Finished: &u.Finished, Model: u.Model, Tier: u.Tier, Region: u.Region, Usage: &u.Usage, CostUSD: &u.CostUSD,
		Billed: u.Billed, Repairs: u.Repairs, Extensions: u.Extensions,
	}
	if r.Error != nil {
		v.State, v.Class, v.Reason = "failed", r.Error.Code, cut(r.Error.Message, reasonMost)
	}
	v.Output = u.OutputText
	if v.Output == "" {
		v.Output = string(u.Output)
	}
	if len(v.Output) > textMost {
		v.Output, v.Cut = cut(v.Output, textMost), true
	}
	v.attempts(u.Attempts)
	return v
}

// attempts takes over a job's attempts.
func (v *jobView) attempts(all []jobs.Attempt) {
	v.Attempts = append([]jobs.Attempt{}, all...)
	if n := len(all); n > attemptsMost {
		v.Left = n - attemptsMost
		v.Attempts = append(v.Attempts[:attemptsMost/2], all[n-attemptsMost/2:]...)
	}
	for i := range v.Attempts {
		v.Attempts[i].Error = cut(v.Attempts[i].Error, reasonMost)
	}
}

// cut returns s, or as much of it as fits into so many bytes.
func cut(s string, most int) string {
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "…"
}
