package progress

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"upwell/worker"
)

// A Printer shows a Meter while work goes on: a block that is drawn again in place on a
// terminal, and a new line now and then elsewhere.
type Printer struct {
	Out      io.Writer      // a [Console], or what one is made over
	Terminal bool           // whether Out, if it is no Console, is one that moves its cursor
	Total    int64          // jobs in all, or 0 when nobody knows
	Done     func() int64   // how many of them were done before this began; nil for none
	Budget   func() float64 // what the run may cost, in USD, or 0 when nobody has said; nil for nobody
	Every    time.Duration  // between lines when Out is no terminal; default 10s
}

// lanesShown is how many lanes have a line of their own.
const lanesShown = 4

// Run prints until ctx is done, and once more then on a terminal.
func (p Printer) Run(ctx context.Context, m *Meter) {
	c, ok := p.Out.(*Console)
	if !ok {
		if c = (&Console{Out: p.Out}); p.Terminal {
			c.Mode = Block
		}
	}
	c.show(ctx.Done(), &printing{Printer: p, meter: m}, p.Every)
}

// A printing is a Printer at work.
type printing struct {
	Printer
	meter *Meter
}

func (p *printing) begin() time.Duration { return p.meter.Elapsed() }
func (p *printing) facts() any           { return p.Facts(p.meter) }
func (p *printing) line() string         { return p.Line(p.Facts(p.meter)) }

func (p *printing) rows(width int) []row {
	f := p.Facts(p.meter)
	return f.block(width)
}

func (p *printing) last(width int) []row {
	f := p.Facts(p.meter)
	return f.summary(width, "stopped after ")
}

// Line words the facts for one line.
func (p Printer) Line(f Facts) string {
	parts := []string{fmt.Sprintf("%d done", f.Done)}
	if f.Jobs > 0 {
		parts[0] = fmt.Sprintf("%d/%d (%d%%)", f.Done, f.Jobs, 100*f.Done/f.Jobs)
	}
	parts = append(parts, fmt.Sprintf("%.1f/s", f.Rate))
	if f.InFlight > 0 {
		parts = append(parts, fmt.Sprintf("%d in flight", f.InFlight))
	}
	if f.Refused > 0 {
		parts = append(parts, fmt.Sprintf("%d refused", f.Refused))
	}
	if f.Failed > 0 {
		parts = append(parts, fmt.Sprintf("%d failed", f.Failed))
	}
	parts = append(parts, f.tokens(), f.money(false))
	switch {
	case f.Paused != "":
		parts = append(parts, f.pause()+": "+tidy(first(f.Paused, 60)))
	case f.left() > 0:
		parts = append(parts, f.ETA.String())
	default:
		parts = append(parts, Duration(f.elapsed()))
	}
	return strings.Join(parts, " · ")
}

// block words the facts for a terminal.
func (f *Facts) block(width int) []row {
	if f.Jobs > 0 && f.left() == 0 {
		return f.summary(width, "") // nothing is under way
	}
	end := f.ETA.String()
	switch {
	case f.Paused != "":
		end = "ETA unknown"
	case f.Bound == worker.BoundDraining:
		end = "stopping"
	}
	rows := append([]row{f.head(width, end)}, f.counts(width, true)...)
	rows = append(rows, f.lanes(width)...)
	switch advice := Advice(f.Bound); {
	case f.Paused != "":
		rows = append(rows, row{styled(bad, f.pause()+": "), text(tidy(f.Paused))})
	case f.Bound != worker.BoundEmpty && advice.What != "":
		r := row{styled(faint, "held back: "), text(advice.What)}
		if short, _, ok := strings.Cut(advice.What, ": "); ok && r.width() > width {
			r[1] = text(short)
		}
		rows = append(rows, r)
	}
	return rows
}

// summary words how it stands when it is over. stopped is what is said of it if jobs are
// left.
func (f *Facts) summary(width int, stopped string) []row {
	if f.left() == 0 {
		stopped = "in "
	}
	if f.Seconds > 0 {
		f.Rate = float64(f.answered) / f.Seconds // on the whole
	}
	return append([]row{f.head(width, stopped+Duration(f.elapsed()))}, f.counts(width, false)...)
}

// head is the row with the bar, and what is said of the end.
func (f *Facts) head(width int, end string) row {
	if f.Jobs == 0 {
		return row{styled(bold, fmt.Sprintf("%d done", f.Done)), textf("  in %s", Duration(f.elapsed()))}
	}
	return head(width, f.Done, f.Jobs, fmt.Sprintf("%d/%d", f.Done, f.Jobs), end)
}

// head returns a row with a bar as wide as there is room for what comes after it, which
// takes less than headRest. So the bar does not change its width all the time.
func head(width int, done, total int64, count, end string) row {
	r := row{styled(bold, " "+percent(done, total)), text("  " + count)}
	if end != "" {
		r = r.add(text("  "), styled(bold, end))
	}
	const headRest, widest = 44, 60
	room := min(width-headRest, widest)
	if room < 10 {
		room = min(10, width-r.width())
	}
	if room < 6 {
		room = 0
	}
	return append(bar(room, done, total), r...)
}

// counts are the rows about calls and money, underway or in the end.
func (f *Facts) counts(width int, underway bool) []row {
	failed := textf("%d failed", f.Failed)
	if f.Failed > 0 {
		failed.style = bad
	}
	refused := textf("%d refused", f.Refused)
	parts := []span{styled(bold, rate(f.Rate)), textf("%d in flight", f.InFlight), refused, failed, text(f.tokens()), text(f.money(false))}
	if f.Refused > 0 {
		refused = textf("%d refused (429: %d, capacity: %d)", f.Refused, f.Throttled, f.Unavailable)
	}
	long := []span{styled(bold, strings.TrimSuffix(rate(f.Rate), "/s")+" answers/s"), parts[1], refused, failed, parts[4], text(f.money(true))}
	if underway {
		long = append(long, textf("%s so far", Short(f.elapsed())))
	}
	if !underway && f.InFlight == 0 {
		parts, long = slices.Delete(parts, 1, 2), slices.Delete(long, 1, 2)
	}
	if rows := flow(width, long); len(rows) == 1 {
		return rows
	}
	return flow(width, parts)
}

// lanes are the rows about lanes.
func (f *Facts) lanes(width int) (rows []row) {
	shown := f.Lanes[:min(len(f.Lanes), lanesShown)]
	names, longest := make([]string, len(shown)), 0
	for i, l := range shown {
		names[i] = middle(tidy(l.Name), max(width/2, 12))
		longest = max(longest, row{text(names[i])}.width())
	}
	for i, l := range shown {
		r := row{styled(faint, fmt.Sprintf("%-*s", longest, names[i])), text("  " + tidy(l.doing(f.At)))}
		if len(f.Lanes) > 1 { // of one, it has been said
			r = append(r, textf(" · %d in flight", l.InFlight))
		}
		if l.Waiting > 0 {
			r = append(r, textf(" · %d waiting", l.Waiting))
		}
		rows = append(rows, r)
	}
	switch more := len(f.Lanes) - len(shown); more {
	case 0:
	case 1:
		rows = append(rows, row{styled(faint, "and 1 more lane")})
	default:
		rows = append(rows, row{styled(faint, fmt.Sprintf("and %d more lanes", more))})
	}
	return rows
}

// doing words what a lane is about.
func (l LaneFacts) doing(now time.Time) string {
	why := l.Reason
	switch {
	case !l.ClosedUntil.IsZero():
		_, why, _ = strings.Cut(l.Reason, "closed: ")
		return strings.TrimSuffix(fmt.Sprintf("closed %s more: %s", Short(max(l.ClosedUntil.Sub(now), time.Second)), why), ": ")
	case l.Rate == 0:
		return why
	case why == "grew":
		why = "growing"
	case why == "in flight":
		why = "as many in flight as it takes"
	}
	if why == "" {
		return "up to " + rate(l.Rate)
	}
	return fmt.Sprintf("up to %s (%s)", rate(l.Rate), why)
}

// rate words a rate with as many digits as it deserves.
func rate(perSecond float64) string {
	switch {
	case perSecond > 0 && perSecond < 1:
		return fmt.Sprintf("%.2f/s", perSecond)
	case perSecond < 100:
		return fmt.Sprintf("%.1f/s", perSecond)
	default:
		return fmt.Sprintf("%.0f/s", perSecond)
	}
}

func (f *Facts) elapsed() time.Duration { return time.Duration(f.Seconds * float64(time.Second)) }
func (f *Facts) tokens() string         { return Tokens(f.Usage.InputTokens+f.Usage.OutputTokens) + " tokens" }

// pause names what keeps a run from going on.
func (f *Facts) pause() string {
	if f.parked {
		return "PARKED"
	}
	return "PAUSED"
}

// money words what it has cost and, at length, what it will have cost.
func (f *Facts) money(long bool) string {
	s := cost(f.Cost)
	if f.Budget > 0 {
		s += " of " + Dollars(f.Budget)
	}
	if long && f.CostInAll > 0 {
		s += ", about " + Dollars(f.CostInAll) + " in all"
	}
	return s
}
