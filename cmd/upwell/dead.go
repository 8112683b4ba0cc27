package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"
	"text/tabwriter"
	"time"
	"unicode/utf8"

	"golang.org/x/term"

	"upwell/cmd/internal/awsconf"
	"upwell/cmd/internal/dead"
	"upwell/cmd/internal/progress"
	"upwell/jobs"
	"upwell/jobs/sqsqueue"
	"upwell/sink/s3sink"
)

// deadCmd looks at dead letters and sends them back.
type deadCmd struct {
	List    deadListCmd    `cmd:"" help:"Count dead letters by class, and list them."`
	Show    deadShowCmd    `cmd:"" help:"Show all that is known about one dead letter."`
	Redrive deadRedriveCmd `cmd:"" help:"Send dead letters back to the queue of jobs, changed if asked."`
}

// deadFlags say where dead letters and what is stored of them are.
type deadFlags struct {
	Queue     string `group:"Storage:" placeholder:"QUEUE" env:"UPWELL_QUEUE" help:"SQS queue of jobs, by name or URL."`
	DeadQueue string `group:"Storage:" placeholder:"QUEUE" env:"UPWELL_DEAD_QUEUE" help:"Dead-letter queue. Default: the target of the queue's redrive policy."`
	Bucket    string `group:"Storage:" placeholder:"BUCKET" env:"UPWELL_BUCKET" help:"S3 bucket for results, or s3://bucket/prefix. It holds the bodies of large letters."`
	Prefix    string `group:"Storage:" placeholder:"PREFIX" env:"UPWELL_PREFIX" help:"Prefix of all keys in the bucket."`
	awsFlags
}

// whereFlags choose letters.
type whereFlags struct {
	Where []string `sep:"none" placeholder:"KEY=VALUE,..." help:"Only letters with this: class, status (500 or 5xx), run, model, id, or older (24h, 7d) since they failed. Of a key that comes twice, either."`
}

// open finds the queues and, if one is named, the bucket.
func (f *deadFlags) open(ctx context.Context, e env) (*sqsqueue.Queue, *s3sink.Sink, error) {
	if f.Queue == "" && f.DeadQueue == "" {
		return nil, nil, fail(exitUsage, errors.New("no queue: name the dead-letter queue with --dead-queue, or with --queue one whose redrive policy names it"))
	}
	conf, err := awsconf.Load(ctx, awsconf.Options{Profile: f.Profile, Connections: readers, Log: e.log})
	if err != nil {
		return nil, nil, fail(exitConfig, err)
	}
	queue, err := sqsqueue.Open(ctx, sqsqueue.NewClient(conf), sqsqueue.Config{
		Queue: cmp.Or(f.Queue, f.DeadQueue), Dead: f.DeadQueue, Log: e.log,
	})
	if err != nil || f.Bucket == "" {
		return queue, nil, fail(exitConfig, err)
	}
	storage := storageFlags{Bucket: f.Bucket, Prefix: f.Prefix}
	results, err := storage.sink(ctx, conf)
	return queue, results, err
}

// plan says which letters are meant and what becomes of them.
func (f *whereFlags) plan(results *s3sink.Sink, sets []string) (*dead.Plan, error) {
	var p dead.Plan
	var err error
	if p.Filter, err = dead.ParseFilter(f.Where); err != nil {
		return nil, fail(exitUsage, fmt.Errorf("--where %w", err))
	}
	if p.Change, err = dead.ParseChange(sets); err != nil {
		return nil, fail(exitUsage, fmt.Errorf("--set %w", err))
	}
	if results != nil {
		p.Body = results.Body
	}
	return &p, nil
}

// checkLimit reports what is wrong with a number of letters.
func checkLimit(n int) error {
	if n < 0 {
		return fail(exitUsage, fmt.Errorf("--limit %d, want a whole number from 1, or 0 for all", n))
	}
	return nil
}

// scanned is the end of a command that has read the letters.
func scanned(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return fail(exitInterrupted, errors.New("interrupted"))
	}
	return fail(exitConfig, err)
}

// deadListCmd lists dead letters.
type deadListCmd struct {
	deadFlags
	whereFlags

	Limit  *int `placeholder:"N" help:"Letters to list, the latest first; 0 for all. Default: 20, and all with --json."`
	JSON   bool `name:"json" help:"Print a JSON object for each letter."`
	Redact bool `env:"UPWELL_REDACT" help:"Leave out reasons, which may quote prompts and answers."`
}

// listed is how many letters are listed if nobody says: they fit on a screen.
const listed = 20

// Run lists them.
func (c *deadListCmd) Run(ctx context.Context, e env) error {
	l := &letterList{counts: make(dead.Counts), limit: listed, width: widthOf(e.stdout)}
	if c.JSON {
		l.limit, l.json = 0, json.NewEncoder(e.stdout)
	}
	if c.Limit != nil {
		l.limit = *c.Limit
	}
	if err := checkLimit(l.limit); err != nil {
		return err
	}
	plan, err := c.plan(nil, nil) // what is wrong with the command comes first
	if err != nil {
		return err
	}
	queue, results, err := c.open(ctx, e)
	if err != nil {
		return err
	}
	if results != nil {
		plan.Body = results.Body
	}
	survey, err := queue.Letters(ctx, func(ctx context.Context, letters []*sqsqueue.Letter) error {
		for _, letter := range letters {
			if plan.Match(ctx, letter) {
				if c.Redact {
					letter.Reason = withheld
				}
				if err := l.add(letter); err != nil {
					return err
				}
			}
		}
		return nil
	})
	if err == nil && !c.JSON {
		l.print(e.stdout, queue, survey)
	}
	missed(e.stderr, survey)
	return scanned(ctx, err)
}

// withheld stands for a reason that is not to be shown: whose words it has cannot be
// known, as another worker may have written it.
const withheld = "(redacted)"

// A deadRow is a letter in a list.
type deadRow struct {
	Class       jobs.Class `json:"class"`
	Run         string     `json:"run"`
	CustomID    string     `json:"custom_id"`
	Status      int        `json:"status,omitzero"`
	RequestID   string     `json:"request_id,omitzero"`
	Attempts    int        `json:"attempts"`
	FirstFailed time.Time  `json:"first_failed,omitzero"`
	Reason      string     `json:"reason"`
	Model       string     `json:"model,omitzero"`
	MessageID   string     `json:"message_id"`
	Sent        time.Time  `json:"sent"`
	Receives    int        `json:"receives"`
	Bytes       int        `json:"bytes"`
	BodyRef     string     `json:"body_ref,omitzero"`
	since       time.Time
}

func rowOf(l *sqsqueue.Letter) deadRow {
	return deadRow{
		l.Class, l.Run, l.CustomID, l.Status, l.RequestID, l.Attempts, l.FirstFailed, l.Reason, l.Model,
		l.ID, l.Sent.UTC(), l.Receives, len(l.Body), l.BodyRef, l.Since(),
	}
}

// A letterList is what is kept of the letters that are listed.
type letterList struct {
	limit, width int
	json         *json.Encoder // nil for a table

	mu     sync.Mutex
	counts dead.Counts
	rows   []deadRow
}

func (l *letterList) add(letter *sqsqueue.Letter) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.counts[letter.Class]++
	row := rowOf(letter)
	if l.json != nil {
		if l.limit > 0 && l.counts.Total() > l.limit {
			return sqsqueue.ErrStop
		}
		return l.json.Encode(row)
	}
	row.Reason = cut(dead.Clean(row.Reason), l.width)
	l.rows = append(l.rows, row)
	if l.limit > 0 && len(l.rows) >= 2*l.limit {
		l.sort()
	}
	return nil
}

// sort puts the latest first, and lets go of those beyond the limit.
func (l *letterList) sort() {
	slices.SortFunc(l.rows, func(a, b deadRow) int {
		return cmp.Or(b.since.Compare(a.since), cmp.Compare(a.Run, b.Run), cmp.Compare(a.CustomID, b.CustomID), cmp.Compare(a.MessageID, b.MessageID))
	})
	if l.limit > 0 && len(l.rows) > l.limit {
		l.rows = slices.Clip(l.rows[:l.limit])
	}
}

func (l *letterList) print(w io.Writer, queue *sqsqueue.Queue, survey sqsqueue.Survey) {
	printCounts(w, matching(l.counts.Total(), survey.Letters)+" in "+path.Base(queue.Dead()), l.counts)
	l.sort()
	if len(l.rows) == 0 {
		return
	}
	var table strings.Builder
	t := tabwriter.NewWriter(&table, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "\nCLASS\tRUN\tID\tSTATUS\tATTEMPTS\tFIRST FAILED\tREASON")
	for _, r := range l.rows {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%d\t%s\t%s\n", r.Class, dash(r.Run), dash(r.CustomID), dash(nonZero(r.Status)), r.Attempts, stamp(r.FirstFailed), r.Reason)
	}
	t.Flush()
	for line := range strings.Lines(table.String()) {
		fmt.Fprintln(w, cut(strings.TrimRight(line, " \n"), l.width))
	}
	if n := l.counts.Total() - len(l.rows); n > 0 {
		fmt.Fprintf(w, "and %d more: --limit 0 lists all\n", n)
	}
}

// matching says how many letters there are and how many are meant.
func matching(n, of int) string {
	switch {
	case n != of:
		return fmt.Sprintf("%d of %d dead letters", n, of)
	case n == 1:
		return "1 dead letter"
	default:
		return fmt.Sprintf("%d dead letters", n)
	}
}

func printCounts(w io.Writer, title string, counts dead.Counts) {
	fmt.Fprintln(w, title)
	var rows []progress.Row
	for _, class := range dead.Classes {
		if counts[class] > 0 {
			rows = append(rows, progress.Row{Name: string(class), Value: strconv.Itoa(counts[class])})
		}
	}
	for class, n := range counts { // of a newer upwell, or somebody else's
		if !slices.Contains(dead.Classes, class) {
			rows = append(rows, progress.Row{Name: dead.Clean(string(class)), Value: strconv.Itoa(n)})
		}
	}
	progress.Table(w, rows)
}

// missed says what a scan could not see.
func missed(w io.Writer, s sqsqueue.Survey) {
	if s.Elsewhere > 0 {
		fmt.Fprintf(w, "%d more are held by another reader: look again when it is done\n", s.Elsewhere)
	}
	if s.Damaged > 0 {
		fmt.Fprintf(w, "%d more arrived damaged each time: look again in a moment\n", s.Damaged)
	}
	if s.Unread > 0 {
		fmt.Fprintf(w, "%d more could not be read: SQS lets 120,000 messages of a queue be in flight, and one group of a FIFO queue at a time; redrive some, and look again\n", s.Unread)
	}
}

// widthOf returns how wide a line may be: as the terminal, or what a file may well
// have.
func widthOf(o *output) int {
	if width, _, err := term.GetSize(int(o.Fd())); err == nil && width > 0 {
		return width
	}
	return 240
}

// cut returns the first n characters of s, or all.
func cut(s string, n int) string {
	if utf8.RuneCountInString(s) <= n {
		return s
	}
	return string([]rune(s)[:n-1]) + "…"
}

// dash returns s fit for a column, or a dash for nothing.
func dash(s string) string { return cmp.Or(cut(dead.Clean(s), 60), "-") }

func nonZero(n int) string {
	if n == 0 {
		return ""
	}
	return strconv.Itoa(n)
}

func stamp(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.Local().Format(time.DateTime)
}
