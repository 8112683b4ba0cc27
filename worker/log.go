package worker

import "time"

// record writes the event to the log, if it is for people who read logs. What goes
// wrong with a single request and is tried again is logged where that is decided.
func (w *Worker) record(e *Event) {
	var log func(msg string, args ...any)
	switch e.Kind {
	case Stored, Duplicate, Buried, Lost, Passed, Unparked:
		log = w.cfg.Log.Info
	case Parked:
		log = w.cfg.Log.Error
	case Late:
		log = w.cfg.Log.Warn
	case RateChanged, Closed, Opened:
		log = w.cfg.Log.Debug
	default:
		return
	}
	msg, args := line(e)
	log(msg, args...)
}

// line words an event.
func line(e *Event) (msg string, args []any) {
	switch e.Kind {
	case Parked:
		return "run parked", []any{"run", e.Key.Run, "why", e.Err.Error()}
	case Unparked:
		return "run goes on", []any{"run", e.Key.Run}
	case Passed:
		return "passed", []any{"message", e.Message, "parts", e.Parts}
	case Late:
		return "heartbeat late", []any{"message", e.Message, "by", e.Took.Round(time.Millisecond).String(), "err", e.Err}
	case RateChanged, Closed, Opened:
		return rateLine(e)
	default:
		return settledLine(e)
	}
}

// settledLine words the one line that every job ends with here.
func settledLine(e *Event) (msg string, args []any) {
	args = []any{"job", e.Key.String(), "attempts", e.Attempts}
	switch e.Kind {
	case Buried:
		return "dead-lettered", append(args, "class", string(e.Letter.Class), "reason", e.Letter.Reason)
	case Lost:
		return "lost", append(args, "why", e.Err)
	case Stored:
		msg = "stored"
	default:
		msg = "answered before"
	}
	if e.Result != nil {
		r := &e.Result.Upwell
		args = append(args, "tier", r.Tier, "region", r.Region, "tokens", r.Usage.InputTokens+r.Usage.OutputTokens, "repairs", r.Repairs)
	}
	return msg, args
}

// rateLine words what a lane's limiter has decided.
func rateLine(e *Event) (msg string, args []any) {
	s := e.Rate
	args = []any{"lane", e.Lane.String(), "reason", s.Reason, "binds", s.Binds, "per_second", float64(int(s.Rate*100)) / 100, "in_flight", s.InFlight, "waiting", s.Waiting}
	switch e.Kind {
	case Closed:
		return "lane closed", append(args, "until", s.ClosedUntil.UTC().Format(time.RFC3339))
	case Opened:
		return "lane opened", args
	default:
		return "rate changed", args
	}
}
