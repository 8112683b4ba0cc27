package account

import (
	"cmp"
	"slices"
	"time"
)

// A Report is the account of a run.
type Report struct {
	Run       string    `json:"run"`
	Created   time.Time `json:"created,omitzero"` // when it was submitted, if its manifest says
	Submitted int       `json:"submitted"`

	Answered int `json:"answered"`
	Failed   int `json:"failed"` // with an error line and no result

	// Queue is how many messages the queue had when the account was begun, of
	// all runs and about right, or nil when nobody counted.
	Queue *int `json:"queue,omitzero"`

	// Superseded are error lines of jobs that have a result as well. They are
	// history, and no fault.
	Superseded Finding `json:"superseded"`

	// StillQueued are jobs without result and error, when the queue has as many
	// messages at least. Else they are Missing.
	StillQueued Finding `json:"still_queued"`
	Missing     Finding `json:"missing"`

	// Double are ids that the index has twice, and lines of a submitted job in a
	// place that is not the job's.
	Double Finding `json:"double"`

	// Unknown are results and error lines of jobs that nobody submitted, and
	// what is no line at all.
	Unknown Finding `json:"unknown"`

	// Damaged are lines that do not say what their place says, as far as they
	// were read.
	Damaged Finding `json:"damaged"`
	Read    int     `json:"lines_read"`
}

// Balanced reports whether every submitted job is accounted for, once, and nothing
// else is there.
func (r *Report) Balanced() bool {
	return r.Missing.Count == 0 && r.Double.Count == 0 && r.Unknown.Count == 0 && r.Damaged.Count == 0
}

// settleMissing decides where jobs are that were neither answered nor given up.
func (r *Report) settleMissing() {
	if r.Queue != nil && *r.Queue >= r.Missing.Count {
		r.StillQueued, r.Missing = r.Missing, Finding{}
	}
}

// A Finding is how often something was found, and where.
type Finding struct {
	Count    int       `json:"count"`
	Examples []Example `json:"examples,omitempty"` // the first by path, maxExamples at most
}

// maxExamples is how many examples of a finding are kept.
const maxExamples = 20

// An Example is a job or an object that something is the matter with.
type Example struct {
	CustomID string `json:"custom_id,omitzero"` // as far as it is known
	Path     string `json:"path"`               // of the object in the bucket: where it is, or should be
	Note     string `json:"note,omitzero"`
}

// add counts one more.
func (f *Finding) add(e Example) {
	f.Count++
	f.keep(e)
}

// merge adds what another part of the run has.
func (f *Finding) merge(g Finding) {
	f.Count += g.Count
	f.keep(g.Examples...)
}

// keep adds examples, and drops the last of too many.
func (f *Finding) keep(more ...Example) {
	f.Examples = append(f.Examples, more...)
	slices.SortStableFunc(f.Examples, func(a, b Example) int { return cmp.Or(cmp.Compare(a.Path, b.Path), cmp.Compare(a.Note, b.Note)) })
	f.Examples = f.Examples[:min(len(f.Examples), maxExamples)]
}

// merge adds what another part of the run has.
func (r *Report) merge(o *Report) {
	r.Answered += o.Answered
	r.Failed += o.Failed
	r.Read += o.Read
	r.Superseded.merge(o.Superseded)
	r.Missing.merge(o.Missing)
	r.Double.merge(o.Double)
	r.Unknown.merge(o.Unknown)
	r.Damaged.merge(o.Damaged)
}
